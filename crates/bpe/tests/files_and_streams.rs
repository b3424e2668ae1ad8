//! Whatever way text comes in, whole, in pieces or in files, the ids are the same.

use std::fs;
use std::path::{Path, PathBuf};

use bpe::files::tokens::{EncodeOptions, EncodeStats, encode_files};
use bpe::{Error, Pattern, Progress, StreamEncoder, TokenId, Tokenizer, Vocab};
use proptest::prelude::*;

use crate::arrays::read_npy;
use crate::oracle;

const EOT: &str = "<|endoftext|>";
const CORPUS: &str = "the cat sat on the mat, the other cats didn't. He'll say the theme is theirs \
    日本語の本 日本の日曜日 中国人民 Привет, привет мир! 🙂🙂 1234567890    \t\t  \n\n\n aaaaaaaaaaaaaaaaa";

/// `gap` moves the special tokens' ids up, so that they need 32 bits.
fn tokenizer(pattern: &str, gap: TokenId) -> Tokenizer {
    let mut words = Vec::new();
    Pattern::Gpt2.for_each(CORPUS.as_bytes(), |word| words.push(word)).unwrap();
    let trained = Vocab::from_merges(&oracle::train(&words, 80), &[] as &[&str]).unwrap();
    let eot = (trained.max_id() + 1 + gap, EOT.as_bytes().to_vec());
    let tokens = trained.tokens().map(|(id, token)| (id, token.to_vec())).chain([eot]);
    let vocab = Vocab::new(tokens, trained.merge_bytes()).unwrap();
    Tokenizer::new(vocab, &[EOT, "|>é"], Pattern::parse(pattern).unwrap()).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &[u8]) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

/// Text with special tokens whole and broken, long runs, wide characters, bytes that are not UTF-8.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<String> = CORPUS.split_inclusive(' ').map(str::to_owned).collect();
    let piece = prop_oneof![
        6 => prop::sample::select(words).prop_map(String::into_bytes),
        2 => Just(EOT.as_bytes().to_vec()),
        1 => Just("<|endoftext|>é|>é".as_bytes().to_vec()),
        1 => "[ \t\n]{1,40}".prop_map(String::into_bytes),
        1 => "[a日]{1,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..10),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn write_all(folder: &Path, texts: &[Vec<u8>]) -> Vec<PathBuf> {
    let named = texts.iter().enumerate().map(|(i, text)| (folder.join(format!("{i}.txt")), text));
    named.map(|(path, text)| fs::write(&path, text).map(|()| path).unwrap()).collect()
}

fn run(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: &EncodeOptions,
) -> EncodeStats {
    encode_files(tokenizer, paths, out, options, &Progress::new()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_stream_cut_anywhere_gives_the_ids_of_the_whole(
        text in text(),
        repeat in prop::sample::select(vec![1usize, 1, 30, 200]),
        sizes in prop::collection::vec(prop_oneof![1usize..9, 100usize..30_000], 1..20),
        pattern in prop::sample::select(vec!["gpt2", "gpt4o", "qwen2", "starcoder", r"\w+|\s+|[^\w\s]+"]),
    ) {
        let tokenizer = tokenizer(pattern, 0);
        let text = text.repeat(repeat);
        let mut stream = StreamEncoder::new(&tokenizer);
        let (mut rest, mut ids) = (text.as_slice(), Vec::new());
        for size in sizes {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            stream.push(piece, &mut ids).unwrap();
            rest = after;
        }
        stream.push(rest, &mut ids).unwrap();
        stream.finish(&mut ids).unwrap();
        prop_assert_eq!(&ids, &encode(&tokenizer, &text));
        // The same encoder takes another text.
        ids.clear();
        stream.push(b"the cat", &mut ids).unwrap();
        stream.finish(&mut ids).unwrap();
        prop_assert_eq!(ids, encode(&tokenizer, b"the cat"));
    }

    #[test]
    fn files_are_encoded_as_each_is_whole(
        texts in prop::collection::vec(text(), 1..4),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        chunk_bytes in 1usize..400,
        gap in prop::sample::select(vec![0, 70_000]),
        append in any::<bool>(),
    ) {
        let tokenizer = tokenizer("gpt2", gap);
        let eot = tokenizer.special_ids()[0];
        let folder = tempfile::tempdir().unwrap();
        let paths = write_all(folder.path(), &texts);
        let out = folder.path().join("tokens.npy");
        let options = EncodeOptions {
            threads,
            chunk_bytes,
            append_eot: append.then_some(eot),
            separator: Some(eot),
            fingerprint: "f".repeat(64),
            ..EncodeOptions::default()
        };
        let stats = run(&tokenizer, &paths, &out, &options);

        let mut expected = Vec::new();
        let mut documents = 0;
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let ids = encode(&tokenizer, text);
            documents += ids.split(|&id| id == eot).count() - usize::from(ids.ends_with(&[eot]));
            expected.extend(ids);
            expected.extend(options.append_eot);
        }
        let ids = read_npy(&out);
        prop_assert_eq!(&ids, &expected);
        let mut back = Vec::new();
        if !append {
            tokenizer.decode(&ids, &mut back).unwrap();
            prop_assert_eq!(back, texts.concat());
        }

        prop_assert_eq!(stats.dtype, if gap == 0 { "uint16" } else { "uint32" });
        prop_assert_eq!(stats.tokens, expected.len() as u64);
        prop_assert_eq!(stats.documents, documents as u64);
        let lens: Vec<u64> = texts.iter().map(|text| text.len() as u64).collect();
        prop_assert_eq!(stats.bytes, lens.iter().sum::<u64>());
        let input_lens: Vec<u64> = stats.inputs.iter().map(|input| input.bytes).collect();
        prop_assert_eq!(input_lens, lens);
        let mut sidecar: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join("tokens.json")).unwrap()).unwrap();
        // Of the file, not of what it says.
        let checksum = sidecar.as_object_mut().and_then(|sidecar| sidecar.remove("checksum"));
        prop_assert!(checksum.is_some());
        prop_assert_eq!(sidecar, serde_json::to_value(&stats).unwrap());
    }
}

#[test]
fn a_stream_holds_back_no_more_than_a_batch_and_a_run() {
    let tokenizer = tokenizer("gpt2", 0);
    let mut stream = StreamEncoder::new(&tokenizer);
    let (mut ids, mut most) = (Vec::new(), 0);
    for _ in 0..20_000 {
        stream.push(b"the cat sat on the mat, ", &mut ids).unwrap();
        most = most.max(stream.pending());
    }
    assert!(most < 20_000, "{most} bytes pending");
    // 3 MB without a cut, byte by byte: linear, or this test would not end.
    for _ in 0..3_000_000 {
        stream.push(b"a", &mut ids).unwrap();
    }
    stream.push(&b" the cat".repeat(1 << 19), &mut ids).unwrap();
    assert!(stream.pending() < 20_000, "{} bytes pending", stream.pending());
    stream.finish(&mut ids).unwrap();
    let text = [b"the cat sat on the mat, ".repeat(20_000), vec![b'a'; 3_000_000]].concat();
    let text = [text, b" the cat".repeat(1 << 19)].concat();
    assert!(ids == encode(&tokenizer, &text));
}

#[test]
fn an_empty_input_is_an_empty_array() {
    let tokenizer = tokenizer("gpt2", 0);
    let folder = tempfile::tempdir().unwrap();
    let paths = write_all(folder.path(), &[Vec::new()]);
    let out = folder.path().join("tokens.npy");
    let stats = run(&tokenizer, &paths, &out, &EncodeOptions::default());
    assert_eq!((stats.tokens, stats.documents, read_npy(&out).len()), (0, 0, 0));
}

#[test]
fn what_fails_leaves_nothing() {
    let tokenizer = tokenizer("gpt2", 0);
    let folder = tempfile::tempdir().unwrap();
    let paths = write_all(folder.path(), &[b"some text ".repeat(1000)]);
    let options = EncodeOptions { threads: 2, chunk_bytes: 100, ..EncodeOptions::default() };
    let fails = |paths: &[PathBuf], out: &str, progress: &Progress| {
        let result = encode_files(&tokenizer, paths, &folder.path().join(out), &options, progress);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left");
        result.unwrap_err()
    };
    let cancelled = Progress::new();
    cancelled.cancel();
    assert!(matches!(fails(&paths, "a.npy", &cancelled), Error::Cancelled));
    let fresh = Progress::new();
    let missing = [paths[0].clone(), folder.path().join("missing.txt")];
    assert!(fails(&missing, "a.npy", &fresh).to_string().contains("missing.txt"));
    assert!(fails(&paths, "a.bin", &fresh).to_string().contains("must end in .npy"));
    assert!(matches!(fails(&paths, "absent/a.npy", &fresh), Error::Io { .. }));
}
