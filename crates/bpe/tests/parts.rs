//! Arrays made in parts, joined: the files that one job makes of all the text.

use std::fs;
use std::path::{Path, PathBuf};

use bpe::files::input::{TextFields, cuts};
use bpe::files::tokens::{EncodeOptions, Part, encode_files, join_files};
use bpe::{Pattern, Progress, Tokenizer, Vocab};
use proptest::prelude::*;

use crate::folder::contents;
use crate::oracle;

const EOT: &str = "<|endoftext|>";

fn tokenizer() -> Tokenizer {
    let words: [&[u8]; 4] = [b" the", b" cat", b"dog", "日本".as_bytes()];
    let vocab = Vocab::from_merges(&oracle::train(&words, 9), &[EOT]).unwrap();
    Tokenizer::new(vocab, &[EOT], Pattern::Gpt2).unwrap()
}

fn options(tokenizer: &Tokenizer) -> EncodeOptions {
    let separator = tokenizer.special_ids().first().copied();
    EncodeOptions { separator, fingerprint: "f".into(), chunk_bytes: 30, ..Default::default() }
}

/// Encodes each file in parts of about `part_bytes`.
fn parts_of(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    folder: &Path,
    part_bytes: usize,
    whole: &EncodeOptions,
) -> Vec<Part> {
    let mut parts = Vec::new();
    let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
    for (index, path) in paths.iter().enumerate() {
        let ends = cuts(path, part_bytes, pattern, special, &TextFields::default()).unwrap();
        let mut start = 0;
        for end in ends.unwrap() {
            let options = EncodeOptions {
                documents: true,
                range: Some(start..end),
                val_fraction: 0.0,
                shard_tokens: None,
                ..whole.clone()
            };
            start = end;
            let array = folder.join(format!("part-{}.npy", parts.len()));
            let path = std::slice::from_ref(path);
            encode_files(tokenizer, path, &array, &options, &Progress::new()).unwrap();
            parts.push(Part { array, files: vec![index] });
        }
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn joined_parts_are_one_job(
        pieces in prop::collection::vec(
            prop::sample::select(vec![" the", " cat", "dog", "日本", "\n", " 12", EOT, EOT, "<|"]),
            1..120,
        ),
        part_bytes in 1usize..200,
        val_fraction in prop::sample::select(vec![0.0, 0.5]),
        shard_tokens in prop::option::of(20u64..90),
        append_eot: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (one, joined) = (folder.path().join("one"), folder.path().join("joined"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&joined).unwrap();
        let paths = [folder.path().join("a.txt"), folder.path().join("b.txt")];
        let (first, second) = pieces.split_at(pieces.len() / 3 + 1);
        fs::write(&paths[0], first.concat()).unwrap();
        fs::write(&paths[1], format!("{}.", second.concat())).unwrap();
        let tokenizer = tokenizer();
        let options = options(&tokenizer);
        let eot = options.separator.filter(|_| append_eot);
        let options = EncodeOptions { append_eot: eot, val_fraction, shard_tokens, ..options };
        let progress = Progress::new();
        let whole = encode_files(&tokenizer, &paths, &one.join("t.npy"), &options, &progress);
        let parts = parts_of(&tokenizer, &paths, folder.path(), part_bytes, &options);
        let out = joined.join("t.npy");
        let again = join_files(&tokenizer, &paths, &parts, &out, &options, &progress);
        prop_assert_eq!(whole.unwrap(), again.unwrap());
        prop_assert_eq!(contents(&one), contents(&joined));
    }
}
