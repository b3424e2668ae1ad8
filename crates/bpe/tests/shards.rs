//! Training and validation, shards, resuming, skipping: the ids are the same, each in its place.

use std::fs;
use std::path::{Path, PathBuf};

use bpe::files::tokens::{EncodeOptions, EncodeStats, encode_files};
use bpe::{Pattern, Progress, Result, TokenId, Tokenizer, Vocab};
use proptest::prelude::*;

use crate::arrays::read_npy;
use crate::folder::contents;
use crate::oracle;

const EOT: &str = "<|endoftext|>";

fn tokenizer(pattern: &str) -> Tokenizer {
    let words: [&[u8]; 4] = [b" the", b" cat", b"dog", "日本".as_bytes()];
    let vocab = Vocab::from_merges(&oracle::train(&words, 9), &[EOT]).unwrap();
    Tokenizer::new(vocab, &[EOT], Pattern::parse(pattern).unwrap()).unwrap()
}

fn write_all(folder: &Path, texts: &[String]) -> Vec<PathBuf> {
    let named = texts.iter().enumerate().map(|(i, text)| (folder.join(format!("{i}.txt")), text));
    named.map(|(path, text)| fs::write(&path, text).map(|()| path).unwrap()).collect()
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    let piece = prop::sample::select(vec![" the", " cat", "dog", "日本", "\n", " 12", EOT, EOT]);
    let text = prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat());
    prop::collection::vec(text, 1..4)
}

/// No two documents alike.
fn numbered(texts: &[String]) -> Vec<String> {
    let mut number = 0..;
    let mut mark = |document| format!("{}{document}", number.next().unwrap_or(0));
    texts.iter().map(|text| text.split_inclusive(EOT).map(&mut mark).collect()).collect()
}

fn run(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: EncodeOptions,
) -> Result<EncodeStats> {
    let separator = tokenizer.special_ids().first().copied();
    let options = EncodeOptions { separator, fingerprint: "f".into(), ..options };
    encode_files(tokenizer, paths, out, &options, &Progress::new())
}

/// All ids that a sidecar is about, in order.
fn read_set(sidecar: &Path) -> Vec<TokenId> {
    let json: serde_json::Value = serde_json::from_slice(&fs::read(sidecar).unwrap()).unwrap();
    let ids: Vec<TokenId> = match json.get("shards") {
        None => read_npy(&sidecar.with_extension("npy")),
        Some(shards) => shards
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|shard| {
                let ids = read_npy(&sidecar.with_file_name(shard["file"].as_str().unwrap()));
                assert_eq!(shard["tokens"], ids.len());
                ids
            })
            .collect(),
    };
    assert_eq!(json["tokens"], ids.len());
    ids
}

/// The ids of training and of validation, which the sidecars' counts agree with.
fn read_both(folder: &Path, stats: &EncodeStats, tokenizer: &Tokenizer) -> [Vec<TokenId>; 2] {
    let check = |stats: &EncodeStats, name: &str| {
        let ids = read_set(&folder.join(name));
        let mut text = Vec::new();
        tokenizer.decode(&ids, &mut text).unwrap();
        assert_eq!((stats.tokens, stats.bytes), (ids.len() as u64, text.len() as u64));
        ids
    };
    let val = stats.val.as_deref().map(|val| check(val, "tokens.val.json"));
    [check(stats, "tokens.json"), val.unwrap_or_default()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_document_goes_whole_to_one_side_whatever_the_shards_and_threads(
        texts in texts(),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        chunk_bytes in 1usize..200,
        shard_tokens in prop::option::of(1u64..100),
        seed in 0u64..5,
    ) {
        let tokenizer = tokenizer("gpt2");
        let texts = numbered(&texts);
        let folder = tempfile::tempdir().unwrap();
        let paths = write_all(folder.path(), &texts);
        let plain = EncodeOptions { val_fraction: 0.3, seed, threads: 1, ..Default::default() };
        let out = folder.path().join("tokens.npy");
        let stats = run(&tokenizer, &paths, &out, plain.clone()).unwrap();
        let expected = read_both(folder.path(), &stats, &tokenizer);

        // Documents in order, each found whole at the front of what is left of one side.
        let mut left = [expected[0].as_slice(), &expected[1]];
        for text in &texts {
            for document in text.split_inclusive(EOT) {
                let mut ids = Vec::new();
                tokenizer.encode(document.as_bytes(), &mut ids).unwrap();
                let side = left.iter().position(|side| side.starts_with(&ids));
                prop_assert!(side.is_some(), "{document:?} is split");
                left[side.unwrap()] = &left[side.unwrap()][ids.len()..];
            }
        }
        prop_assert_eq!(left, [&[] as &[TokenId]; 2]);

        let split = EncodeOptions { threads, chunk_bytes, shard_tokens, ..plain };
        let again = run(&tokenizer, &paths, &out, split).unwrap();
        prop_assert_eq!(read_both(folder.path(), &again, &tokenizer), expected);
        prop_assert_eq!(again.documents, stats.documents);
        if let (Some(size), [all @ .., _]) = (shard_tokens, again.shards.as_slice()) {
            prop_assert!(all.iter().all(|shard| shard.tokens == size));
        }
        prop_assert!(!folder.path().join("tokens.resume.json").exists());
    }

    #[test]
    fn an_interrupted_job_goes_on_where_it_was(
        texts in texts(),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        chunk_bytes in 1usize..200,
        shard_tokens in 1u64..60,
        fails_at in 0usize..6,
        val_fraction in prop::sample::select(vec![0.0, 0.3]),
    ) {
        let tokenizer = tokenizer("gpt2");
        let input = tempfile::tempdir().unwrap();
        let paths = write_all(input.path(), &texts);
        let options = EncodeOptions {
            threads,
            chunk_bytes,
            val_fraction,
            shard_tokens: Some(shard_tokens),
            ..Default::default()
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(&tokenizer, &paths, &whole.path().join("tokens.npy"), options.clone()).unwrap();

        // A folder is where the shard is to go.
        let out = parts.path().join("tokens.npy");
        let obstacle = parts.path().join(format!("tokens-{fails_at:05}.npy"));
        fs::create_dir(&obstacle).unwrap();
        let failed = run(&tokenizer, &paths, &out, options.clone()).is_err();
        prop_assert_eq!(failed, whole.path().join(obstacle.file_name().unwrap()).exists());
        fs::remove_dir(&obstacle).unwrap();
        prop_assert!(!contents(parts.path()).iter().any(|(name, _)| name.ends_with(".part")));
        let resume = EncodeOptions { resume: true, ..options };
        run(&tokenizer, &paths, &out, resume).unwrap();
        prop_assert_eq!(contents(parts.path()), contents(whole.path()));
    }
}

#[cfg(unix)]
#[test]
fn finished_shards_are_not_written_again_and_another_job_is_refused() {
    use std::os::unix::fs::MetadataExt;
    let tokenizer = tokenizer("gpt2");
    let folder = tempfile::tempdir().unwrap();
    let paths = write_all(folder.path(), &[" the cat".repeat(1000)]);
    let out = folder.path().join("tokens.npy");
    let options = EncodeOptions {
        shard_tokens: Some(300),
        chunk_bytes: 100,
        resume: true,
        ..Default::default()
    };
    let obstacle = folder.path().join("tokens-00002.npy");
    fs::create_dir(&obstacle).unwrap();
    run(&tokenizer, &paths, &out, options.clone()).unwrap_err();
    fs::remove_dir(&obstacle).unwrap();
    let inode = || fs::metadata(folder.path().join("tokens-00001.npy")).unwrap().ino();
    let before = inode();

    let other = EncodeOptions { shard_tokens: Some(301), ..options.clone() };
    let error = run(&tokenizer, &paths, &out, other).unwrap_err().to_string();
    assert!(error.contains("a different shard_tokens"), "{error}");
    run(&tokenizer, &paths, &out, options).unwrap();
    assert_eq!(inode(), before);
}

#[test]
fn what_cannot_be_encoded_or_read_is_skipped_and_named_if_asked() {
    let tokenizer = tokenizer(r"(x+x+)+(?=y)|[^x]");
    let folder = tempfile::tempdir().unwrap();
    let bad = "x".repeat(60);
    let mut paths = write_all(folder.path(), &[format!("good{EOT}{bad}{EOT}fine"), "more".into()]);
    paths.insert(1, folder.path().join("missing.txt"));
    let out = folder.path().join("tokens.npy");
    run(&tokenizer, &paths, &out, EncodeOptions::default()).unwrap_err();
    let skip = EncodeOptions { skip_errors: true, ..Default::default() };
    let stats = run(&tokenizer, &paths, &out, skip).unwrap();
    let mut text = Vec::new();
    tokenizer.decode(&read_npy(&out), &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), format!("good{EOT}{EOT}finemore"));
    assert_eq!(stats.skipped.len(), 2, "{:?}", stats.skipped);
    assert!(stats.skipped[0].contains("missing.txt"), "{:?}", stats.skipped);
    assert!(stats.skipped[1].contains("0.txt: 60 bytes: "), "{:?}", stats.skipped);
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let tokenizer = tokenizer("gpt2");
    let folder = tempfile::tempdir().unwrap();
    let paths = write_all(folder.path(), &["text".into()]);
    let refused = |options: EncodeOptions| {
        let out = folder.path().join("tokens.npy");
        run(&tokenizer, &paths, &out, options).unwrap_err().to_string()
    };
    let nothing = EncodeOptions::default;
    assert!(refused(EncodeOptions { val_fraction: 1.5, ..nothing() }).contains("val_fraction 1.5"));
    assert!(
        refused(EncodeOptions { val_fraction: f64::NAN, ..nothing() }).contains("val_fraction")
    );
    assert!(refused(EncodeOptions { shard_tokens: Some(0), ..nothing() }).contains("shard_tokens"));
    assert!(refused(EncodeOptions { resume: true, ..nothing() }).contains("shard_tokens"));
    assert_eq!(contents(folder.path()).len(), 1);
}
