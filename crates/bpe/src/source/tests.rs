use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::special::Segment;

/// Every pretoken and special token of `text`, in order: what no cut may change.
fn parts(text: &[u8], pattern: &Pattern, special: &SpecialTokens) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let walked = special.for_each_segment(text, |segment| match segment {
        Segment::Text(piece) => pattern.for_each(piece, |pretoken| parts.push(pretoken.to_vec())),
        Segment::Special(index) => {
            parts.push(format!("special {index}").into_bytes());
            Ok(())
        }
    });
    walked.expect("these patterns do not fail");
    parts
}

/// Text in which everything that a cut can get wrong is frequent: special tokens whole, nested,
/// overlapping and in pieces, contractions, runs of spaces, wide characters, bytes that are no
/// UTF-8. The special tokens are below.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "aba",
        "'s",
        "'ll",
        "'",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1",
        "23",
        "4567",
        ".",
        "!?",
        "<|x|>",
        "<|x|><|x|>",
        "<|x",
        "|>",
        "<",
        "é",
        "日本",
        "語",
        "\u{3000}",
        "😀",
        "B",
        "Ab",
        "/",
    ]);
    let piece = prop_oneof![
        20 => piece.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const SPECIALS: [&[&str]; 4] = [&[], &["<|x|>"], &["<|x|>", "<|x|><|x|>"], &["aba", " ", "ba b"]];

fn pattern() -> impl Strategy<Value = Pattern> {
    prop::sample::select(vec!["gpt2", "gpt4", "gpt4o", r"\w+|\s"])
        .prop_map(|name| Pattern::parse(name).expect("a known pattern"))
}

fn special() -> impl Strategy<Value = SpecialTokens> {
    prop::sample::select(SPECIALS.to_vec())
        .prop_map(|tokens| SpecialTokens::new(tokens).expect("good tokens"))
}

fn write(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text).expect("room on disk");
    file
}

fn read_all(source: &Source) -> Vec<(Chunk, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut buffer = Vec::new();
    while let Some(chunk) = source.read_next(&mut buffer).expect("a readable file") {
        chunks.push((chunk, buffer.clone()));
    }
    chunks
}

proptest! {
    #[test]
    fn parts_at_a_cut_are_the_parts_of_the_whole(
        text in text(), rest in text(), from in 0usize..80, pattern in pattern(), special in special(),
    ) {
        let whole = [text.clone(), rest].concat();
        let cuts = [
            next_cut(&text, from, &pattern, &special),
            last_cut(&text, &pattern, &special),
            last_cut_from(&text, from, &pattern, &special),
        ];
        for cut in cuts.into_iter().flatten() {
            prop_assert!(0 < cut && cut <= text.len());
            let mut apart = parts(&whole[..cut], &pattern, &special);
            apart.extend(parts(&whole[cut..], &pattern, &special));
            prop_assert_eq!(apart, parts(&whole, &pattern, &special), "cut at {}", cut);
        }
    }

    #[test]
    fn chunks_are_the_text_in_order_and_never_part_a_pretoken(
        texts in prop::collection::vec(text(), 1..4),
        chunk_bytes in 1usize..100,
        streams in any::<bool>(),
        pattern in pattern(),
        special in special(),
    ) {
        let files: Vec<_> = texts.iter().map(|text| write(text)).collect();
        let paths: Vec<_> = files.iter().map(|file| file.path().to_path_buf()).collect();
        let mut source = Source::open(&paths, &pattern, &special, chunk_bytes).expect("files");
        if streams {
            source.inputs.iter_mut().for_each(|input| input.len = None);
        }
        let mut found: Vec<Vec<u8>> = vec![Vec::new(); texts.len()];
        let mut found_parts: Vec<Vec<Vec<u8>>> = vec![Vec::new(); texts.len()];
        let mut last = None;
        for (index, (chunk, text)) in read_all(&source).into_iter().enumerate() {
            prop_assert_eq!(chunk.index, index as u64);
            prop_assert!(!text.is_empty());
            if let Some((file, ended)) = last {
                prop_assert_eq!(ended, chunk.file != file);
            }
            last = Some((chunk.file, chunk.ends_file));
            found_parts[chunk.file].extend(parts(&text, &pattern, &special));
            found[chunk.file].extend(text);
        }
        prop_assert_eq!(&found, &texts);
        for (text, found_parts) in texts.iter().zip(found_parts) {
            prop_assert_eq!(found_parts, parts(text, &pattern, &special));
        }
    }
}

#[test]
fn a_known_pattern_is_cut_near_the_wish() {
    let text = "the quick brown fox ".repeat(1000);
    let file = write(text.as_bytes());
    let pattern = Pattern::parse("gpt2").expect("a known pattern");
    let paths = [file.path().to_path_buf()];
    let source = Source::open(&paths, &pattern, &SpecialTokens::default(), 100).expect("a file");
    let chunks = read_all(&source);
    assert!(chunks.len() > text.len() / 120, "{} chunks", chunks.len());
    assert_eq!(
        chunks.iter().map(|(chunk, _)| chunk.input_bytes).sum::<u64>(),
        source.total_bytes()
    );
}

#[test]
fn a_special_token_cuts_for_any_pattern() {
    let text = "some words of a document<|endoftext|>".repeat(100);
    let file = write(text.as_bytes());
    let pattern = Pattern::parse(r"\w+|\W").expect("a regular expression");
    let special = SpecialTokens::new(&["<|endoftext|>"]).expect("good tokens");
    let source = Source::open(&[file.path().to_path_buf()], &pattern, &special, 10).expect("file");
    // All but the last, which stands too near the end for a text that might go on.
    assert_eq!(read_all(&source).len(), 100);
}

#[test]
fn names_what_it_cannot_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = |path: PathBuf| {
        let pattern = Pattern::parse("gpt2").expect("a known pattern");
        let opened = Source::open(&[path], &pattern, &SpecialTokens::default(), 1 << 20);
        opened.err().expect("refused").to_string()
    };
    assert!(open(folder.path().to_path_buf()).contains("directory"));
    assert!(open(folder.path().join("absent.txt")).contains("absent.txt"));
}

#[test]
fn a_file_that_shrinks_is_an_error_and_the_end() {
    let file = write(&b"some words ".repeat(100));
    let pattern = Pattern::parse("gpt2").expect("a known pattern");
    let paths = [file.path().to_path_buf()];
    let source = Source::open(&paths, &pattern, &SpecialTokens::default(), 100).expect("a file");
    let mut buffer = Vec::new();
    assert!(source.read_next(&mut buffer).expect("still whole").is_some());
    file.as_file().set_len(10).expect("a file that can be cut");
    let error = source.read_next(&mut buffer).expect_err("it ends too early").to_string();
    assert!(error.contains("shorter"), "{error}");
    assert!(source.read_next(&mut buffer).expect("no more").is_none());
}
