//! What is not text although it would be read as such: packed by a program that is not known here,
//! or in another encoding. Any bytes can be learned from, so it is recognized or learned as noise.

/// What the first bytes of a file say that it is.
const SIGNATURES: [(&[u8], &str); 11] = [
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
    // Without a mark at its start: one half of all units is zero, and the other is printed ASCII.
    let (units, _) = sample.as_chunks::<2>();
    let is_ascii = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    let all = |zero: usize| units.iter().all(|unit| unit[zero] == 0 && is_ascii(unit[1 - zero]));
    match units.len() >= 4 {
        true if all(1) => Some("UTF-16LE"),
        true if all(0) => Some("UTF-16BE"),
        _ => None,
    }
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
            assert!(
                of_content(&utf16("plain English\n", big)).unwrap().contains("iconv -f UTF-16")
            );
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
        for name in ["a.txt", "a.gz", "a.jsonl.zst", "xz", "star.tarry"] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }
}
