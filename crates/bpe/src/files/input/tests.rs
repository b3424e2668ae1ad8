use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::text::cut_tests::{parts, pattern, special, text};

fn chunks_of(chunk_bytes: usize) -> SourceOptions {
    SourceOptions { chunk_bytes, ..SourceOptions::default() }
}

/// Reads the field "text" of JSON lines.
#[cfg(all(feature = "gzip", feature = "parquet"))]
fn records(chunk_bytes: usize) -> SourceOptions {
    let fields = TextFields { json: Some("text".to_owned()), ..TextFields::default() };
    SourceOptions { fields, ..chunks_of(chunk_bytes) }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    packer.write_all(text).expect("memory");
    packer.finish().expect("memory")
}

fn zstandard(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).expect("memory")
}

/// Whether this build reads files of that name.
fn is_readable(name: &str) -> bool {
    let needed = [
        (".gz", cfg!(feature = "gzip")),
        (".zst", cfg!(feature = "zstd")),
        (".parquet", cfg!(feature = "parquet")),
    ];
    needed.iter().all(|(ending, enabled)| *enabled || !name.ends_with(ending))
}

fn write(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text).expect("room on disk");
    file
}

fn read_all(source: &Source) -> Vec<(Chunk, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut buffer = Vec::new();
    while let Some(chunk) = source.read_next(&mut buffer, true).expect("a readable file") {
        chunks.push((chunk, buffer.clone()));
    }
    chunks
}

proptest! {
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
        let options = chunks_of(chunk_bytes);
        let mut source = Source::open(&paths, &pattern, &special, &options).expect("files");
        if streams {
            source.inputs.iter_mut().for_each(|input| input.len = None);
        }
        let mut found: Vec<Vec<u8>> = vec![Vec::new(); texts.len()];
        let mut found_parts: Vec<Vec<Vec<u8>>> = vec![Vec::new(); texts.len()];
        let mut last = None;
        let mut next = Place::default();
        for (chunk, text) in read_all(&source) {
            prop_assert_eq!((chunk.start.file, chunk.start.offset), (next.file, next.offset));
            next = chunk.end.clone();
            prop_assert!(!text.is_empty() || texts[chunk.start.file].is_empty());
            if let Some((file, ended)) = last {
                prop_assert_eq!(ended, chunk.start.file != file);
            }
            let file = chunk.start.file;
            last = Some((file, chunk.ends_file));
            found_parts[file].extend(parts(&text, &pattern, &special));
            found[file].extend(text);
        }
        prop_assert_eq!(&found, &texts);
        for (text, found_parts) in texts.iter().zip(found_parts) {
            prop_assert_eq!(found_parts, parts(text, &pattern, &special));
        }
    }
}

#[test]
fn a_known_pattern_is_cut_near_the_size_asked_for() {
    let text = "the quick brown fox ".repeat(1000);
    let file = write(text.as_bytes());
    let pattern = Pattern::parse("gpt2").expect("a known pattern");
    let paths = [file.path().to_path_buf()];
    let special = SpecialTokens::default();
    let source = Source::open(&paths, &pattern, &special, &chunks_of(100)).expect("a file");
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
    let paths = [file.path().to_path_buf()];
    let source = Source::open(&paths, &pattern, &special, &chunks_of(10)).expect("a file");
    // All but the last, which is too near the end for a text that might go on.
    assert_eq!(read_all(&source).len(), 100);
}

#[test]
fn names_what_it_cannot_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = |path: PathBuf| {
        let pattern = Pattern::parse("gpt2").expect("a known pattern");
        let opened =
            Source::open(&[path], &pattern, &SpecialTokens::default(), &chunks_of(1 << 20));
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
    let special = SpecialTokens::default();
    let source = Source::open(&paths, &pattern, &special, &chunks_of(100)).expect("a file");
    let mut buffer = Vec::new();
    assert!(source.read_next(&mut buffer, true).expect("still whole").is_some());
    file.as_file().set_len(10).expect("a file that can be cut");
    let error = source.read_next(&mut buffer, true).expect_err("it ends too early").to_string();
    assert!(error.contains("shorter"), "{error}");
    assert!(source.read_next(&mut buffer, true).expect("no more").is_none());
}

/// Writes `text` to a file of that name, packed as the name says; returns it, read back in chunks.
fn read_named(name: &str, text: &[u8], text_field: Option<&str>) -> Result<Vec<(Chunk, Vec<u8>)>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    let packed = if name.ends_with(".gz") {
        // Two members, as `cat a.gz b.gz` makes them.
        let (one, other) = text.split_at(text.len() / 2);
        [gzip(one), gzip(other)].concat()
    } else if name.ends_with(".zst") {
        zstandard(text)
    } else {
        text.to_vec()
    };
    std::fs::write(&path, packed).expect("room on disk");
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::default());
    let fields = TextFields { json: text_field.map(str::to_owned), ..TextFields::default() };
    let options = SourceOptions { fields, ..chunks_of(50) };
    let source = Source::open(&[path], &pattern, &special, &options)?;
    let mut chunks = Vec::new();
    let mut buffer = Vec::new();
    while let Some(chunk) = source.read_next(&mut buffer, true)? {
        chunks.push((chunk, buffer.clone()));
    }
    let read: u64 = chunks.iter().map(|(chunk, _)| chunk.input_bytes).sum();
    assert_eq!(read, source.total_bytes());
    Ok(chunks)
}

#[test]
fn unpacks_what_its_name_says_is_packed() {
    let text = b"some words of a document, and more of it\n".repeat(50);
    for name in ["a.txt", "a.txt.gz", "a.zst"].into_iter().filter(|name| is_readable(name)) {
        let chunks = read_named(name, &text, None).expect("readable");
        assert!(chunks.len() > 10, "{name}: {} chunks", chunks.len());
        let back: Vec<u8> = chunks.into_iter().flat_map(|(_, text)| text).collect();
        assert_eq!(back, text, "{name}");
    }
}

#[test]
fn files_that_this_build_cannot_read_are_refused_by_name() {
    for (name, feature) in [("a.gz", "gzip"), ("a.jsonl.zst", "zstd"), ("a.parquet", "parquet")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, b"").expect("room on disk");
        let special = SpecialTokens::default();
        match Source::open(&[path], &Pattern::Gpt2, &special, &chunks_of(50)) {
            Ok(_) => assert!(is_readable(name), "{name} is read"),
            Err(error) => {
                let message = error.to_string();
                assert!(!is_readable(name), "{message}");
                assert!(message.contains(name), "{message}");
                assert!(message.contains(&format!("the cargo feature {feature:?}")), "{message}");
            }
        }
    }
}

#[cfg(feature = "gzip")]
#[test]
fn a_packed_file_cut_short_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut.gz");
    let packed = gzip(&b"words and words ".repeat(99));
    std::fs::write(&path, &packed[..packed.len() - 12]).expect("room on disk");
    let special = SpecialTokens::default();
    let options = chunks_of(1 << 20);
    let source = Source::open(&[path], &Pattern::Gpt2, &special, &options).expect("a file");
    let error = source.read_next(&mut Vec::new(), true).expect_err("cut short").to_string();
    assert!(error.contains("cut.gz"), "{error}");
}

#[test]
fn a_line_of_json_is_a_document() {
    let lines = br#"{"id": 1, "text": "caf\u00e9 \n one", "more": {"text": "no"}}

{"text": "", "id": 2}
{"id": [3], "text": "and a longer text than a chunk is to be, so that it is the last"}
{"text": "four"}"#;
    let names = ["a.jsonl", "a.ndjson.gz", "a.jsonl.zst"];
    for name in names.into_iter().filter(|name| is_readable(name)) {
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
fn odd_records_are_read_as_most_parsers_read_them() {
    let lines = b"\xef\xbb\xbf{\"text\": \"first\", \"text\": \"second\"}\r\n\n \n\
        {\"text\": null}\n{\"te\\u0078t\": \"\\ud83d\\ude00\"}\n\n\n";
    for name in ["a.jsonl", "a.jsonl.gz"].into_iter().filter(|name| is_readable(name)) {
        let chunks = read_named(name, lines, Some("text")).expect("readable");
        let texts: Vec<&[u8]> =
            chunks.iter().flat_map(|(chunk, text)| chunk.pieces(text)).collect();
        assert_eq!(texts, [b"second".as_slice(), "😀".as_bytes()], "{name}");
    }
}

#[test]
fn a_packed_table_is_refused() {
    let error = read_named("a.parquet.gz", b"", None).expect_err("refused").to_string();
    assert!(error.contains("a.parquet.gz: ") && error.contains("unpack"), "{error}");
}

/// Every chunk from `start` on, of a source of its own.
#[cfg(all(feature = "gzip", feature = "zstd", feature = "parquet"))]
fn read_from(source: &Source, start: &Place) -> Vec<(Chunk, Vec<u8>)> {
    source.seek(start, &Progress::new()).expect("a place that was reached before");
    read_all(source)
}

#[cfg(all(feature = "gzip", feature = "zstd", feature = "parquet"))]
#[test]
fn reading_goes_on_where_any_chunk_began() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = b"some words of a document, and more of it\n".repeat(20);
    let lines = br#"{"text": "one"}
{"text": "some more of it"}

"#
    .repeat(20);
    let rows: Vec<_> = (0..300).map(|row| (row % 3 > 0).then(|| format!("row {row}"))).collect();
    let files: [(&str, Vec<u8>); 7] = [
        ("a.txt", text.clone()),
        ("empty.txt", Vec::new()),
        ("b.txt.gz", gzip(&text)),
        ("c.txt.zst", zstandard(&text)),
        ("d.jsonl", lines.clone()),
        ("e.jsonl.gz", gzip(&lines)),
        ("f.parquet", super::parquet::tests::table(&rows, 100)),
    ];
    let written = files.iter().map(|(name, content)| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("room on disk");
        path
    });
    let paths: Vec<_> = written.collect();
    let special = SpecialTokens::default();
    let open = || Source::open(&paths, &Pattern::Gpt2, &special, &records(100));
    let all = read_all(&open().expect("files"));
    assert!(all.len() > 30, "{} chunks", all.len());
    let read: u64 = all.iter().map(|(chunk, _)| chunk.input_bytes).sum();
    assert_eq!(read, open().expect("files").total_bytes());
    for (number, (chunk, _)) in all.iter().enumerate() {
        let rest = read_from(&open().expect("files"), &chunk.start);
        assert!(rest[0].0.start == chunk.start);
        assert!(pieces(&rest) == pieces(&all[number..]), "from chunk {number}");
    }
}

/// Files that are read at the same time, by several threads: all chunks, one after the other.
#[cfg(all(feature = "gzip", feature = "zstd", feature = "parquet"))]
#[test]
fn threads_read_several_files_and_what_they_read_joins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |i: usize| format!("words of file {i}, more of them\n").repeat(50 * i).into_bytes();
    let lines = |i: usize| format!("{{\"text\": \"file {i}\"}}\n").repeat(40 * i).into_bytes();
    let rows: Vec<_> = (0..500).map(|row| (row % 3 > 0).then(|| format!("row {row}"))).collect();
    let mut paths = Vec::new();
    for i in 0..4 {
        for (name, content) in [
            (format!("{i}.txt"), text(i)),
            (format!("{i}.gz"), gzip(&text(i))),
            (format!("{i}.zst"), zstandard(&text(i))),
            (format!("{i}.jsonl"), lines(i)),
            (format!("{i}.jsonl.gz"), gzip(&lines(i))),
            (format!("{i}.parquet"), super::parquet::tests::table(&rows, 30)),
        ] {
            paths.push(folder.path().join(name));
            std::fs::write(&paths[paths.len() - 1], content).expect("room on disk");
        }
    }
    let special = SpecialTokens::default();
    let open = || Source::open(&paths, &Pattern::Gpt2, &special, &records(200)).expect("files");
    let expected = pieces(&read_all(&open()));
    for (threads, ahead) in [(1, true), (2, true), (7, true), (7, false)] {
        let source = open();
        let mut chunks: Vec<_> = std::thread::scope(|scope| {
            let read = || {
                let (mut chunks, mut buffer) = (Vec::new(), Vec::new());
                while let Some(chunk) = source.read_next(&mut buffer, ahead).expect("readable") {
                    chunks.push((chunk, buffer.clone()));
                    std::thread::yield_now();
                }
                chunks
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        chunks.sort_by_key(|(chunk, _)| (chunk.start.file, chunk.start.offset));
        let places = |place: &Place| (place.file, place.offset);
        for pair in chunks.windows(2) {
            assert_eq!(places(&pair[0].0.end), places(&pair[1].0.start));
        }
        assert!(pieces(&chunks) == expected, "{threads} threads");
        let read: u64 = chunks.iter().map(|(chunk, _)| chunk.input_bytes).sum();
        assert_eq!(read, source.total_bytes());
    }
}

/// The records of each file, or its text; where chunks end does not matter.
#[cfg(all(feature = "gzip", feature = "zstd", feature = "parquet"))]
fn pieces(chunks: &[(Chunk, Vec<u8>)]) -> Vec<(usize, Vec<Vec<u8>>)> {
    let mut files: Vec<(usize, Vec<Vec<u8>>)> = Vec::new();
    for (chunk, text) in chunks {
        let file = chunk.start.file;
        if files.last().is_none_or(|(last, _)| *last != file) {
            files.push((file, Vec::new()));
        }
        let pieces = chunk.pieces(text).map(<[u8]>::to_vec);
        match files.last_mut() {
            Some((_, known)) if !chunk.has_records() && !known.is_empty() => {
                pieces.for_each(|piece| known[0].extend(piece));
            }
            Some((_, known)) => known.extend(pieces),
            None => {}
        }
    }
    files
}

#[cfg(all(feature = "gzip", feature = "parquet"))]
#[test]
fn what_cannot_be_read_is_left_out_and_named_if_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("room on disk");
        path
    };
    let packed = gzip(&b"words and words ".repeat(99));
    let paths = [
        write("a.jsonl", b"{\"text\": \"good\"}\n{\"text\": 7}\nno\n{\"text\": \"fine\"}"),
        write("b.gz", &packed[..packed.len() - 12]),
        write("c.parquet", b"PAR1 not at all PAR1"),
        write("d.txt", b"the end"),
    ];
    let special = SpecialTokens::default();
    let options = SourceOptions { skip_errors: true, ..records(1 << 20) };
    let source = Source::open(&paths, &Pattern::Gpt2, &special, &options);
    let chunks = read_all(&source.expect("files"));
    let texts: Vec<&[u8]> = chunks.iter().flat_map(|(chunk, text)| chunk.pieces(text)).collect();
    assert_eq!(texts, [b"good".as_slice(), b"fine", b"", b"the end"]);
    let skipped: Vec<&String> = chunks.iter().flat_map(|(chunk, _)| &chunk.skipped).collect();
    let expected = ["a.jsonl: line 2: ", "a.jsonl: line 3: ", "b.gz: ", "c.parquet: "];
    assert_eq!(skipped.len(), expected.len(), "{skipped:?}");
    for (message, expected) in skipped.into_iter().zip(expected) {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn says_which_line_is_not_a_record() {
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
