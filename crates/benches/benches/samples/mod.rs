//! The texts that the scanners and encoding are measured on, of three kinds.
#![allow(dead_code)] // not every benchmark takes the samples themselves

const SIZE: usize = 4 << 20;

pub const SAMPLES: [(&str, &str); 3] = [
    (
        "prose",
        "\"I don't know,\" she said, and put the lamp down; it was past ten o'clock.\n\
         Nobody had come along the road since the 3rd of May, and the rain hadn't stopped.\n\n",
    ),
    (
        "cjk",
        "雨は三日も降り続いていた。彼女はランプを置いて「わからない」と言った。\n没有人知道。\n",
    ),
    ("code", "    if index >= 1024:\n        return self.table[index & 0xFF]  # wraps around\n\n"),
];

/// By name: the file that `CS336LM_BENCH_TEXT` names, or the samples again and again.
pub fn texts() -> Vec<(String, Vec<u8>)> {
    if let Some(path) = std::env::var_os("CS336LM_BENCH_TEXT") {
        let mut text = std::fs::read(&path).expect("CS336LM_BENCH_TEXT names a file");
        text.truncate(4 * SIZE);
        return vec![("file".to_owned(), text)];
    }
    let repeat = |(name, text): &(&str, &str)| {
        ((*name).to_owned(), text.repeat(SIZE / text.len()).into_bytes())
    };
    SAMPLES.iter().map(repeat).collect()
}
