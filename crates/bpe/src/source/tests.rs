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

/// Writes `text` to a file of that name, packed as the name says; returns it, read back in chunks.
fn read_named(name: &str, text: &[u8], text_field: Option<&str>) -> Result<Vec<(Chunk, Vec<u8>)>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    let packed = if name.ends_with(".gz") {
        // Two members, as `cat a.gz b.gz` makes them.
        let pack = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            packer.write_all(text).expect("memory");
            packer.finish().expect("memory")
        };
        let (one, other) = text.split_at(text.len() / 2);
        [pack(one), pack(other)].concat()
    } else if name.ends_with(".zst") {
        zstd::encode_all(text, 1).expect("memory")
    } else {
        text.to_vec()
    };
    std::fs::write(&path, packed).expect("room on disk");
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::default());
    let source = Source::open_records(&[path], &pattern, &special, 50, text_field)?;
    let mut chunks = Vec::new();
    let mut buffer = Vec::new();
    while let Some(chunk) = source.read_next(&mut buffer)? {
        chunks.push((chunk, buffer.clone()));
    }
    let read: u64 = chunks.iter().map(|(chunk, _)| chunk.input_bytes).sum();
    assert_eq!(read, source.total_bytes());
    Ok(chunks)
}

#[test]
fn unpacks_what_its_name_says_is_packed() {
    let text = b"some words of a document, and more of it\n".repeat(50);
    for name in ["a.txt", "a.txt.gz", "a.zst"] {
        let chunks = read_named(name, &text, None).expect("readable");
        assert!(chunks.len() > 10, "{name}: {} chunks", chunks.len());
        let back: Vec<u8> = chunks.into_iter().flat_map(|(_, text)| text).collect();
        assert_eq!(back, text, "{name}");
    }
}

#[test]
fn a_packed_file_cut_short_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut.gz");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    packer.write_all(&b"words and words ".repeat(99)).expect("memory");
    let packed = packer.finish().expect("memory");
    std::fs::write(&path, &packed[..packed.len() - 12]).expect("room on disk");
    let special = SpecialTokens::default();
    let source = Source::open(&[path], &Pattern::Gpt2, &special, 1 << 20).expect("a file");
    let error = source.read_next(&mut Vec::new()).expect_err("cut short").to_string();
    assert!(error.contains("cut.gz"), "{error}");
}

#[test]
fn a_line_of_json_is_a_document() {
    let lines = br#"{"id": 1, "text": "caf\u00e9 \n one", "more": {"text": "no"}}

{"text": "", "id": 2}
{"id": [3], "text": "and a longer text than a chunk is to be, so that it is the last"}
{"text": "four"}"#;
    for name in ["a.jsonl", "a.ndjson.gz", "a.jsonl.zst"] {
        let chunks = read_named(name, lines, Some("text")).expect("readable");
        let pieces: Vec<String> = chunks
            .iter()
            .flat_map(|(chunk, text)| chunk.pieces(text))
            .map(|piece| String::from_utf8(piece.to_vec()).expect("UTF-8"))
            .collect();
        let long = "and a longer text than a chunk is to be, so that it is the last";
        assert_eq!(pieces, ["café \n one", "", long, "four"], "{name}");
        assert!(chunks.len() > 1);
    }
    // Without a field's name it is text like any other.
    let chunks = read_named("a.jsonl", lines, None).expect("readable");
    assert_eq!(chunks.into_iter().flat_map(|(_, text)| text).collect::<Vec<_>>(), lines);
}

#[test]
fn says_which_line_is_no_record() {
    let error = |lines: &str| {
        let read = read_named("a.jsonl", lines.as_bytes(), Some("text"));
        read.expect_err("refused").to_string()
    };
    let missing = error("{\"text\": \"a\"}\n{\"body\": \"b\"}");
    assert!(missing.contains("a.jsonl: line 2") && missing.contains("\"text\""), "{missing}");
    for wrong in ["[1]", "{\"text\": 7}", "{\"text\": \"a\"} x", "{\"text\"", "\"text\""] {
        let message = error(wrong);
        assert!(message.contains("line 1: "), "{message}");
    }
}
