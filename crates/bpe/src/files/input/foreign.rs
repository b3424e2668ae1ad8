//! What is not text although it would be read as such: packed by a program that is not known here,
//! or in another encoding. Any bytes can be learned from, so it is recognized or learned as noise.

/// What the first bytes of a file say that it is.
const SIGNATURES: [(&[u8], &str); 20] = [
    (
        b"\x1f\x8b\x08",
        "gzip: give it a name that ends in .gz, or pipe what gzip -dc makes of it to -",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "Zstandard: give it a name that ends in .zst, or pipe what zstd -dc makes of it to -",
    ),
    (b"BZh91AY&SY", "bzip2: unpack it first, or pipe what bzip2 -dc makes of it to -"),
    (b"\xfd7zXZ\x00", "xz: unpack it first, or pipe what xz -dc makes of it to -"),
    (b"LZIP\x01", "lzip: unpack it first, or pipe what lzip -dc makes of it to -"),
    (b"\x04\x22\x4d\x18", "LZ4: unpack it first, or pipe what lz4 -dc makes of it to -"),
    (b"PK\x03\x04", "a zip archive: unpack it first, and name the files in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first, and name the files in it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first, and name the files in it"),
    (b"%PDF-", "a PDF document: extract its text first, such as with pdftotext"),
    (b"SQLite format 3\x00", "an SQLite database: export its text first"),
    (b"PAR1", "a Parquet file: give it a name that ends in .parquet"),
    (b"ARROW1\x00\x00", "an Arrow file: write its texts as Parquet or as JSON lines first"),
    (b"\x93NUMPY", "an array of NumPy's, such as tokenize writes: name the text it was made of"),
    (b"\x89PNG\r\n", "a picture (PNG), not text"),
    (b"\xff\xd8\xff", "a picture (JPEG), not text"),
    (b"\x7fELF", "a program (ELF), not text"),
    (b"\x89HDF\r\n", "an HDF5 file: export its text first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Office document: save it as plain text first"),
    (b"GGUF", "a model's weights (GGUF), not text"),
];

/// Endings of names that no text has, with what they say.
const ENDINGS: [(&str, &str); 17] = [
    (".tar", TAR),
    (".tgz", TAR),
    (".tbz2", TAR),
    (".txz", TAR),
    (".tar.gz", TAR),
    (".tar.zst", TAR),
    (".tar.xz", TAR),
    (".tar.bz2", TAR),
    (".bz2", "bzip2: unpack it first, or pipe what bzip2 -dc makes of it to -"),
    (".xz", "xz: unpack it first, or pipe what xz -dc makes of it to -"),
    (".lzma", "xz: unpack it first, or pipe what xz -dc makes of it to -"),
    (".lz4", "LZ4: unpack it first, or pipe what lz4 -dc makes of it to -"),
    (".br", "Brotli: unpack it first, or pipe what brotli -dc makes of it to -"),
    (".zip", "a zip archive: unpack it first, and name the files in it"),
    (".7z", "a 7z archive: unpack it first, and name the files in it"),
    (".rar", "a RAR archive: unpack it first, and name the files in it"),
    (".z", "compress: unpack it first, or pipe what gzip -dc makes of it to -"),
];

const TAR: &str = "a tar archive: unpack it first, and name the files in it";

/// How much of a file's start is looked at.
pub const SAMPLE: usize = 512;

/// What a file of this name (in lower case) is, if it cannot be read.
pub fn of_name(name: &str) -> Option<String> {
    ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, what)| format!("is {what}"))
}

/// What a file is whose text begins with `sample`, if that is not text.
pub fn of_content(sample: &[u8]) -> Option<String> {
    if let Some((_, what)) = SIGNATURES.iter().find(|(begins, _)| sample.starts_with(begins)) {
        return Some(format!("is {what}"));
    }
    if sample.get(257..262) == Some(b"ustar") {
        return Some(format!("is {TAR}"));
    }
    wide_encoding(sample).map(|encoding| {
        format!(
            "is {encoding}, not UTF-8: convert it first, such as with iconv -f {encoding} -t UTF-8"
        )
    })
}

/// UTF-16 or UTF-32, which put a zero byte beside every letter of English, and beside the space
/// and the line's end of most languages; in UTF-8 there are none.
fn wide_encoding(sample: &[u8]) -> Option<&'static str> {
    if !sample.contains(&0) {
        return None;
    }
    match sample {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let (units, _) = sample.as_chunks::<2>();
    let reads = |from: fn([u8; 2]) -> u16| reads_as_utf16(units.iter().map(|&unit| from(unit)));
    match units.len() >= 4 {
        true if reads(u16::from_le_bytes) => Some("UTF-16LE"),
        true if reads(u16::from_be_bytes) => Some("UTF-16BE"),
        _ => None,
    }
}

/// Whether units without a mark at their start are text: no control characters, halves of
/// characters only in pairs, and of ASCII, which is rare where the bytes are something else, one in
/// eight (the spaces of most languages would do).
fn reads_as_utf16(units: impl Iterator<Item = u16>) -> bool {
    let (mut characters, mut ascii) = (0, 0);
    let mut decoded = char::decode_utf16(units).peekable();
    while let Some(character) = decoded.next() {
        match character {
            Ok('\t' | '\n' | '\r' | ' '..='~') => ascii += 1,
            Ok(character) if character.is_control() => return false,
            Ok('\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}') => return false,
            Ok(_) => {}
            // Of a pair the sample may hold the first half.
            Err(_) if decoded.peek().is_none() => {}
            Err(_) => return false,
        }
        characters += 1;
    }
    8 * ascii >= characters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn what_is_no_text_is_recognized() {
        for big in [false, true] {
            let what = of_content(&utf16("\u{feff}日本 語", big)).unwrap();
            assert!(what.contains("UTF-16"), "{what}");
            for text in ["plain English\n", "Größe über Wörter", "один два\n", "日本語の 文字"]
            {
                let what = of_content(&utf16(text, big)).unwrap();
                let encoding = if big { "UTF-16BE" } else { "UTF-16LE" };
                assert!(what.contains(&format!("iconv -f {encoding}")), "{text}: {what}");
            }
        }
        let mut tar = vec![b'a'; 400];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(of_content(&tar).unwrap().contains("tar archive"));
        assert!(of_content(b"PK\x03\x04...").unwrap().contains("unpack it first"));
        for name in ["a.txt.bz2", "a.tar.gz", "a.tgz", "a.jsonl.xz", "a.zip"] {
            assert!(of_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn any_other_bytes_are_text() {
        let every: Vec<u8> = (0..=255).collect();
        for bytes in [&every[..], b"\xff\xfe\x80\x80 a", b"", b"\0", b"a\0b\0", b"BZh is a word"] {
            assert_eq!(of_content(bytes), None, "{bytes:?}");
        }
        let ids: Vec<u8> = (0..200u16).flat_map(|id| (id * 37 % 500).to_le_bytes()).collect();
        assert_eq!(of_content(&ids), None);
        assert_eq!(of_content(b"columns,of,a,table\0\n1,2,3,4\n"), None);
        for name in ["a.txt", "a.gz", "a.jsonl.zst", "xz", "star.tarry"] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }
}
