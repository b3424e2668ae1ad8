//! Files of records: each record is a document, encoded on its own.

use std::fs;
use std::path::{Path, PathBuf};

use bpe::files::input::TextFields;
use bpe::files::tokens::{EncodeOptions, EncodeStats, encode_files};
use bpe::{Pattern, Progress, TokenId, Tokenizer, Vocab};
use proptest::prelude::*;
use serde_json::json;

use crate::arrays::read_npy;
use crate::folder::contents;
use crate::oracle;

const EOT: &str = "<|endoftext|>";
const GPT2: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

fn tokenizer() -> Tokenizer {
    let words: [&[u8]; 4] = [b" the", b" cat", b"dog", "日本".as_bytes()];
    let vocab = Vocab::from_merges(&oracle::train(&words, 9), &[EOT]).unwrap();
    Tokenizer::new(vocab, &[EOT], Pattern::Gpt2).unwrap()
}

/// Records that would be encoded otherwise if they were joined: words, specials in two halves.
fn records() -> impl Strategy<Value = Vec<String>> {
    let piece = prop::sample::select(vec![
        "the", " the", " cat", "dog", "日本", "\n", "  ", "\"", "<|endof", "text|>", EOT,
    ]);
    let record = prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat());
    prop::collection::vec(record, 0..30)
}

/// A file of text between two of records, one of them packed.
fn write(folder: &Path, records: &[String]) -> (Vec<PathBuf>, Vec<Vec<String>>) {
    let (first, rest) = records.split_at(records.len() / 3);
    let (middle, last) = rest.split_at(rest.len() / 2);
    let lines = |records: &[String]| -> String {
        records.iter().map(|text| json!({"id": 7, "body": text}).to_string() + "\n").collect()
    };
    let middle = middle.concat();
    let paths = ["a.jsonl", "b.txt", "c.ndjson.zst"].map(|name| folder.join(name));
    fs::write(&paths[0], lines(first)).unwrap();
    fs::write(&paths[1], &middle).unwrap();
    fs::write(&paths[2], zstd::encode_all(lines(last).as_bytes(), 1).unwrap()).unwrap();
    let text = if middle.is_empty() { vec![] } else { vec![middle] };
    (paths.to_vec(), vec![first.to_vec(), text, last.to_vec()])
}

fn run(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: EncodeOptions,
) -> EncodeStats {
    let options = EncodeOptions {
        fields: TextFields { json: Some("body".to_owned()), ..TextFields::default() },
        separator: tokenizer.special_ids().first().copied(),
        ..options
    };
    encode_files(tokenizer, paths, out, &options, &Progress::new()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn each_record_is_encoded_by_itself(
        records in records(),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        chunk_bytes in 1usize..300,
        append in any::<bool>(),
        trusted in any::<bool>(),
    ) {
        let tokenizer = tokenizer();
        let eot = tokenizer.special_ids()[0];
        let folder = tempfile::tempdir().unwrap();
        let (paths, files) = write(folder.path(), &records);
        let out = folder.path().join("tokens.npy");
        let append_eot = append.then_some(eot);
        let options = EncodeOptions {
            threads, chunk_bytes, append_eot, special_in_records: trusted, ..Default::default()
        };
        let stats = run(&tokenizer, &paths, &out, options);
        let (mut expected, mut documents) = (Vec::new(), 0);
        for (number, text) in files.iter().enumerate().flat_map(|(i, texts)| {
            texts.iter().map(move |text| (i, text))
        }) {
            // The second file is one of text.
            let special: &[&str] = if trusted || number == 1 { &[EOT] } else { &[] };
            let ids = oracle::encode(tokenizer.vocab(), special, GPT2, text);
            let ends = ids.iter().filter(|&&id| id == eot).count();
            documents += (ends + usize::from(ids.last() != Some(&eot))) as u64;
            expected.extend(ids);
            expected.extend(append_eot);
        }
        prop_assert_eq!(read_npy(&out), expected);
        prop_assert_eq!(stats.documents, documents);
        let lens: Vec<u64> =
            files.iter().map(|texts| texts.iter().map(|text| text.len() as u64).sum()).collect();
        prop_assert_eq!(stats.bytes, lens.iter().sum::<u64>());
        let inputs: Vec<u64> = stats.inputs.iter().map(|input| input.bytes).collect();
        prop_assert_eq!(inputs, lens);
    }

    #[test]
    fn records_go_whole_to_one_side_and_a_job_goes_on_inside_a_file(
        records in records(),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        chunk_bytes in 1usize..100,
        shard_tokens in 5u64..90,
        fails_at in 0usize..6,
    ) {
        let tokenizer = tokenizer();
        let eot = tokenizer.special_ids()[0];
        // No two alike, so that each can be found.
        let numbered = |(i, text): (usize, &String)| text.replace(EOT, " ") + &format!("{i};");
        let records: Vec<String> = records.iter().enumerate().map(numbered).collect();
        let [input, whole, parts] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let (paths, files) = write(input.path(), &records);
        let options = EncodeOptions {
            threads, chunk_bytes, val_fraction: 0.4, append_eot: Some(eot), ..Default::default()
        };
        let stats = run(&tokenizer, &paths, &whole.path().join("tokens.npy"), options.clone());
        let sides = ["tokens.npy", "tokens.val.npy"].map(|name| read_npy(&whole.path().join(name)));
        let mut left = sides.each_ref().map(Vec::as_slice);
        for text in files.iter().flatten() {
            let mut ids = oracle::encode(tokenizer.vocab(), &[EOT], GPT2, text);
            ids.push(eot);
            let side = left.iter().position(|side| side.starts_with(&ids));
            prop_assert!(side.is_some(), "{text:?} is split");
            left[side.unwrap()] = &left[side.unwrap()][ids.len()..];
        }
        prop_assert_eq!(left, [&[] as &[TokenId]; 2]);
        let documents = stats.documents + stats.val.as_ref().unwrap().documents;
        prop_assert_eq!(documents, files.iter().flatten().count() as u64);

        // In shards, interrupted by a folder where one is to go, and resumed.
        fs::remove_file(whole.path().join("tokens.npy")).unwrap();
        fs::remove_file(whole.path().join("tokens.val.npy")).unwrap();
        let options = EncodeOptions { shard_tokens: Some(shard_tokens), ..options };
        run(&tokenizer, &paths, &whole.path().join("tokens.npy"), options.clone());
        let obstacle = parts.path().join(format!("tokens-{fails_at:05}.npy"));
        fs::create_dir(&obstacle).unwrap();
        let failing = EncodeOptions {
            fields: TextFields { json: Some("body".to_owned()), ..TextFields::default() },
            separator: Some(eot),
            ..options.clone()
        };
        let out = parts.path().join("tokens.npy");
        let failed = encode_files(&tokenizer, &paths, &out, &failing, &Progress::new()).is_err();
        prop_assert_eq!(failed, whole.path().join(obstacle.file_name().unwrap()).exists());
        fs::remove_dir(&obstacle).unwrap();
        run(&tokenizer, &paths, &out, EncodeOptions { resume: true, ..options });
        prop_assert_eq!(contents(parts.path()), contents(whole.path()));
    }
}

#[test]
fn records_without_text_are_skipped_and_named_if_asked() {
    let tokenizer = tokenizer();
    let eot = tokenizer.special_ids()[0];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"body\": \"the\"}\n{\"body\": 1}\n{}\n{\"body\": \"cat\"}\n").unwrap();
    let out = folder.path().join("tokens.npy");
    let options =
        EncodeOptions { append_eot: Some(eot), skip_errors: true, ..EncodeOptions::default() };
    let stats = run(&tokenizer, &[path], &out, options);
    let mut text = Vec::new();
    tokenizer.decode(&read_npy(&out), &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), format!("the{EOT}cat{EOT}"));
    assert_eq!(stats.skipped.len(), 2, "{:?}", stats.skipped);
    assert!(stats.skipped[0].contains("a.jsonl: line 2: "), "{:?}", stats.skipped);
    assert!(stats.skipped[1].contains("a.jsonl: line 3: no field \"body\""), "{:?}", stats.skipped);
}

/// Threads begin with later files while one unpacks the first: what is ahead waits, on the disk too.
#[test]
fn packed_files_read_at_once_give_what_one_thread_gives() {
    let tokenizer = tokenizer();
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..12usize)
        .map(|i| {
            let line = |n: usize| format!(" the cat {n} of file {i} dog{EOT}日本\n");
            let text: String = (0..(i * 397) % 2000).map(line).collect();
            let path = folder.path().join(format!("{i:02}.txt.zst"));
            fs::write(&path, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
            path
        })
        .collect();
    let made = |threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        let options = EncodeOptions {
            threads,
            chunk_bytes: 50,
            val_fraction: 0.3,
            shard_tokens: Some(9000),
            ..EncodeOptions::default()
        };
        run(&tokenizer, &paths, &folder.path().join("tokens.npy"), options);
        contents(folder.path())
    };
    let expected = made(1);
    assert!(expected.len() > 8, "{} files", expected.len());
    for _ in 0..3 {
        assert!(made(2) == expected && made(9) == expected);
    }
}
