//! What is written comes back; what others publish is read; what is broken is refused in one line.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::text::special::SpecialTokens;
use crate::vocab::TokenId;

/// A vocabulary with merges over ASCII, CJK and single bytes, `special` at its end.
fn small(special: &[&str]) -> Vocab {
    let merges = [(104, 101), (32, 256), (0xE4, 0xB8), (258, 0xAD), (35, 35), (0xFF, 0xFE)];
    Vocab::from_merges(&merges, special).unwrap()
}

fn owned(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|&token| token.to_owned()).collect()
}

fn load(path: &Path) -> Result<TokenizerParts> {
    super::load(path, None, &Progress::new())
}

fn load_pair(vocab: &Path, merges: &Path, special: &[String]) -> Result<TokenizerParts> {
    super::load_pair(vocab, merges, special, &Progress::new())
}

fn save(folder: &Path, vocab: &Vocab, special: &[String], pattern: &Pattern) -> Result<()> {
    super::save(folder, vocab, special, pattern, &Extras::default())
}

fn tokens_of(vocab: &Vocab) -> Vec<(TokenId, Vec<u8>)> {
    vocab.tokens().map(|(id, token)| (id, token.to_vec())).collect()
}

fn assert_same(read: &TokenizerParts, vocab: &Vocab, special: &[String], pattern: &Pattern) {
    assert_eq!(tokens_of(&read.vocab), tokens_of(vocab));
    assert_eq!(read.vocab.merges(), vocab.merges());
    assert_eq!(read.special_tokens, special);
    assert_eq!(read.pattern.name(), pattern.name());
    assert_eq!(
        fingerprint(&read.vocab, &read.special_tokens, &read.pattern).unwrap(),
        fingerprint(vocab, special, pattern).unwrap()
    );
}

/// Writes `content` to `name` in a folder of its own and loads it.
fn load_text(name: &str, content: &str) -> Result<TokenizerParts> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let result = load(&path);
    if let Err(error) = &result {
        let message = error.to_string();
        assert!(message.starts_with(path.parent().unwrap().to_str().unwrap()), "{message}");
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
    result
}

fn load_json(tokenizer: &Value) -> Result<TokenizerParts> {
    load_text("tokenizer.json", &tokenizer.to_string())
}

fn refusal(tokenizer: &Value) -> String {
    load_json(tokenizer).unwrap_err().to_string()
}

/// A well-formed file to break.
fn valid() -> Value {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &small(&["<|a|>"]), &owned(&["<|a|>"]), &Pattern::Gpt2).unwrap();
    serde_json::from_slice(&fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap()
}

#[test]
fn every_pattern_comes_back_through_tokenizer_json() {
    // A token in another script, one with a space, one that reads like bytes in the alphabet.
    let special = owned(&["<|endoftext|>", "< eos >", "<中>", "<é>"]);
    let vocab = small(&["<|endoftext|>", "< eos >", "<中>", "<é>"]);
    for pattern in ["gpt2", "gpt4", "gpt4o", r"\w+|\W", r"(?=\p{Lu})"] {
        let pattern = Pattern::parse(pattern).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join("new/folder"), &vocab, &special, &pattern).unwrap();
        let directory = folder.path().join("new/folder");
        assert_same(&load(&directory).unwrap(), &vocab, &special, &pattern);
        assert_same(&load(&directory.join("tokenizer.json")).unwrap(), &vocab, &special, &pattern);
    }
}

#[test]
fn whole_words_first_comes_back() {
    let mut vocab = small(&[]);
    vocab.set_whole_words_first(true);
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &vocab, &[], &Pattern::Gpt4).unwrap();
    assert!(load(folder.path()).unwrap().vocab.whole_words_first());
}

#[test]
fn vocab_json_and_merges_txt_come_back() {
    let special = owned(&["<|endoftext|>", "< eos >", "<中>"]);
    let vocab = small(&["<|endoftext|>", "< eos >", "<中>"]);
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("vocab.json"), folder.path().join("merges.txt"));
    save(folder.path(), &vocab, &special, &Pattern::Gpt2).unwrap();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    for path in [&first, &second, &folder.path().to_path_buf()] {
        assert_same(&load(path).unwrap(), &vocab, &special, &Pattern::Gpt2);
    }

    // Without the line on top, under other names, with a merge of `#`.
    let merges = fs::read_to_string(&second).unwrap();
    let (header, merges) = merges.split_once('\n').unwrap();
    assert!(header.starts_with("#version") && merges.contains("\n# #\n"));
    let (first, second) = (folder.path().join("x-vocab.json"), folder.path().join("x-merges.txt"));
    fs::rename(folder.path().join("vocab.json"), &first).unwrap();
    fs::write(&second, merges.replace('\n', "\r\n")).unwrap();
    assert_same(&load(&second).unwrap(), &vocab, &special, &Pattern::Gpt2);
    assert_same(&load_pair(&first, &second, &[]).unwrap(), &vocab, &special, &Pattern::Gpt2);
}

#[test]
fn a_special_token_that_reads_like_bytes_is_one_if_the_caller_says_so() {
    let special = owned(&["<é>"]);
    let vocab = small(&["<é>"]);
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &vocab, &special, &Pattern::Gpt2).unwrap();
    let (first, second) = (folder.path().join("vocab.json"), folder.path().join("merges.txt"));
    assert_same(&load_pair(&first, &second, &special).unwrap(), &vocab, &special, &Pattern::Gpt2);
    let unsaid = load_pair(&first, &second, &[]).unwrap();
    assert_eq!(unsaid.vocab.token(262), Some(b"<\xE9>".as_slice()));
    // A byte and a merge stay what they are, whatever the caller calls special.
    let said = load_pair(&first, &second, &owned(&["é", "ÿþ"])).unwrap();
    assert_eq!(tokens_of(&said.vocab), tokens_of(&unsaid.vocab));
}

#[test]
fn a_special_token_that_the_files_could_not_tell_apart_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for token in ["é", "ÿþ"] {
        let error = save(folder.path(), &small(&[token]), &owned(&[token]), &Pattern::Gpt2);
        let message = error.unwrap_err().to_string();
        assert!(message.contains(token) && message.contains("written like token"), "{message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn tiktoken_files_hold_ranks() {
    let vocab = small(&[]);
    let encode = |bytes| base64::engine::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
    let lines: Vec<String> =
        vocab.tokens().map(|(id, token)| format!("{} {id}\n", encode(token))).collect();
    let read = load_text("gpt2.tiktoken", &lines.concat()).unwrap();
    assert_same(&read, &vocab, &[], &Pattern::Gpt2);
    // Any other name says nothing about the pattern.
    let message = load_text("any.tiktoken", &lines.concat()).unwrap_err().to_string();
    assert!(message.contains("--pattern"), "{message}");
    let read = load_text("cl100k_base.tiktoken", &lines.concat()).unwrap();
    assert_same(&read, &vocab, &[], &Pattern::Gpt4);

    for broken in ["YQ==", "YQ== x", "YQ==  1", "Y?== 1", "YQ== -1", "YQ== 5000000000"] {
        let text = format!("{}{broken}\n", lines.concat());
        let message = load_text("r50k_base.tiktoken", &text).unwrap_err().to_string();
        assert!(message.contains(&format!("line {}", lines.len() + 1)), "{message}");
    }
}

#[test]
fn reads_the_forms_that_others_write() {
    let mut file = valid();
    let expected = tokens_of(&load_json(&file).unwrap().vocab);

    // Merges as strings.
    file["model"]["merges"] = json!(["h e", "Ġ he", "ä ¸", "ä¸ Ń", "# #", "ÿ þ"]);
    let read = load_json(&file).unwrap();
    assert_eq!(read.vocab.merges(), small(&[]).merges());

    // An added token that is not in the model's vocabulary; one that is no "special" one.
    file["model"]["vocab"].as_object_mut().unwrap().remove("<|a|>");
    file["added_tokens"][0]["special"] = json!(false);
    let read = load_json(&file).unwrap();
    assert_eq!((tokens_of(&read.vocab), read.special_tokens), (expected, owned(&["<|a|>"])));

    // Fields left out, fields of a later version.
    for key in ["normalizer", "decoder", "post_processor", "version", "truncation", "padding"] {
        file.as_object_mut().unwrap().remove(key);
    }
    for key in ["type", "dropout", "unk_token", "byte_fallback", "ignore_merges", "fuse_unk"] {
        file["model"].as_object_mut().unwrap().remove(key);
    }
    file["later"] = json!({"a": [1]});
    load_json(&file).unwrap();

    // Splits.
    let split = |pattern: Value, behavior: &str, invert: bool| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})
    };
    let o200k = Pattern::Gpt4o;
    file["pre_tokenizer"] = split(json!({"Regex": o200k.regex()}), "Removed", true);
    assert_eq!(load_json(&file).unwrap().pattern.name(), "gpt4o");
    file["pre_tokenizer"] = split(json!({"String": "a+b"}), "Isolated", false);
    assert_eq!(load_json(&file).unwrap().pattern.name(), r"a\+b");
    file["pre_tokenizer"] = split(json!({"Regex": "a"}), "MergedWithNext", false);
    assert!(refusal(&file).contains("MergedWithNext"));
    file["pre_tokenizer"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
    assert_eq!(load_json(&file).unwrap().pattern.name(), "(?s).+");
}

#[test]
fn refuses_by_name_what_it_cannot_honour() {
    let cases: [(&str, Value, &str); 16] = [
        ("/normalizer", json!({"type": "NFC"}), "NFC"),
        ("/pre_tokenizer", json!({"type": "Metaspace"}), "Metaspace"),
        ("/pre_tokenizer", Value::Null, "pre-tokenizer"),
        ("/pre_tokenizer/add_prefix_space", json!(true), "add_prefix_space"),
        ("/model/type", json!("WordPiece"), "WordPiece"),
        ("/model/dropout", json!(0.1), "dropout"),
        ("/model/continuing_subword_prefix", json!("##"), "continuing_subword_prefix"),
        ("/model/end_of_word_suffix", json!("</w>"), "end_of_word_suffix"),
        ("/model/byte_fallback", json!(true), "byte_fallback"),
        ("/added_tokens/0/lstrip", json!(true), "lstrip"),
        ("/added_tokens/0/rstrip", json!(true), "rstrip"),
        ("/added_tokens/0/single_word", json!(true), "single_word"),
        ("/model/vocab/Ġhe", json!(-1), "-1"),
        ("/model/vocab/Ġhe", json!(4_294_967_295_u32), "not supported"),
        ("/model/vocab/Ġhe", json!("x"), "string"),
        ("/model/vocab/Ġhe", json!(256), "256"),
    ];
    for (place, value, word) in cases {
        let mut file = valid();
        *file.pointer_mut(place).expect(place) = value;
        let message = refusal(&file);
        assert!(message.contains(word), "{place}: {message}");
    }
    let overlapping = |content: &str, normalized: bool| -> Value {
        json!({"id": 300, "content": content, "normalized": normalized})
    };
    let mut file = valid();
    file["added_tokens"] = json!([overlapping("<|a", true), overlapping("a|>", false)]);
    assert!(refusal(&file).contains("overlap"));
}

#[test]
fn refuses_broken_merges_and_vocabularies() {
    for (merges, word) in [
        (json!(["he"]), "one space"),
        (json!(["h e", "h zz"]), "merge 2"),
        (json!(["h e "]), "alphabet"),
        (json!([["h"]]), "two tokens"),
        (json!([["h", "e", "x"]]), "two tokens"),
        (json!([1]), "a merge"),
        (json!({}), "a list of merges"),
        (json!(["h e", "h e"]), "twice"),
    ] {
        let mut file = valid();
        file["model"]["merges"] = merges;
        let message = refusal(&file);
        assert!(message.contains(word), "{message}");
    }
    let mut file = valid();
    file["model"]["vocab"].as_object_mut().unwrap().remove("a");
    assert!(refusal(&file).contains("0x61"));
    file["model"]["vocab"] = json!([["a", 0.5]]);
    assert!(refusal(&file).contains("an object of tokens"));
}

#[test]
fn refuses_truncated_files_and_the_wrong_ones() {
    let text = valid().to_string();
    for len in (0..text.len()).step_by(97).filter(|&len| text.is_char_boundary(len)) {
        load_text("tokenizer.json", &text[..len]).unwrap_err();
    }
    load_text("notes.md", "text").unwrap_err();
    load_text("vocab.json", "{}").unwrap_err();
    let missing = load(Path::new("/no/such/tokenizer")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let empty = load(folder.path()).unwrap_err().to_string();
    assert!(empty.contains("tokenizer.json"), "{empty}");
    fs::write(folder.path().join("tokenizer.json"), b"{\"a\xFF").unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().contains("byte 3"));
}

#[test]
fn the_fingerprint_sees_every_part() {
    let print = |vocab: &Vocab, special: &[&str], pattern: &str| {
        fingerprint(vocab, &owned(special), &Pattern::parse(pattern).unwrap()).unwrap()
    };
    let base = small(&["<a>", "<b>"]);
    let same = print(&base, &["<a>", "<b>"], "gpt2");
    assert_eq!(same.len(), 64);
    assert_eq!(same, print(&base.clone(), &["<b>", "<a>"], Pattern::Gpt2.regex()));
    let mut whole = base.clone();
    whole.set_whole_words_first(true);
    let merges: Vec<_> = base.merge_bytes().take(5).collect();
    let fewer = Vocab::new(base.tokens(), merges).unwrap();
    for other in [
        print(&base, &["<a>"], "gpt2"),
        print(&base, &["<a>", "<b>"], "gpt4"),
        print(&small(&["<b>", "<a>"]), &["<a>", "<b>"], "gpt2"),
        print(&whole, &["<a>", "<b>"], "gpt2"),
        print(&fewer, &["<a>", "<b>"], "gpt2"),
    ] {
        assert_ne!(same, other);
    }
}

proptest! {
    /// Any vocabulary with any special tokens (of ASCII, or in no alphabet) comes back from each
    /// kind of file.
    #[test]
    fn any_tokenizer_comes_back(
        picks in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40,
        ),
        special in prop::collection::btree_set("<[a-z中 |]{0,6}>", 0..4),
    ) {
        let mut merges: Vec<(TokenId, TokenId)> = Vec::new();
        let mut known: std::collections::HashSet<Vec<u8>> =
            (0..=255).map(|byte| vec![byte]).collect();
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for (left, right) in picks {
            let (left, right) = (left.index(tokens.len()), right.index(tokens.len()));
            let joined = [&tokens[left][..], &tokens[right]].concat();
            if known.insert(joined.clone()) {
                tokens.push(joined);
                merges.push((left as TokenId, right as TokenId));
            }
        }
        let special: Vec<String> = special.into_iter().collect();
        prop_assume!(special.iter().all(|token| !known.contains(token.as_bytes())));
        let vocab = Vocab::from_merges(&merges, &special).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &vocab, &special, &Pattern::Gpt2).unwrap();
        assert_same(&load(folder.path()).unwrap(), &vocab, &special, &Pattern::Gpt2);
        let pair = load(&folder.path().join("vocab.json")).unwrap();
        assert_same(&pair, &vocab, &special, &Pattern::Gpt2);
    }

    /// Whatever a file holds, loading it ends in a tokenizer or in a line that names the file.
    #[test]
    fn no_file_makes_it_panic(
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(
            vec!["", "\"", "[", "{", "}", "1", "null", "\\u0000", "é", ","],
        ),
        len in 0usize..40,
    ) {
        let text = valid().to_string();
        let mut start = at.index(text.len());
        let mut end = text.len().min(start + len);
        while !text.is_char_boundary(start) { start -= 1; }
        while !text.is_char_boundary(end) { end += 1; }
        let text = [&text[..start], with, &text[end..]].concat();
        let _ = load_text("tokenizer.json", &text);
        let _ = load_text("vocab.json", &text);
        let _ = load_text("r50k_base.tiktoken", &text);
    }
}

#[test]
fn special_tokens_of_the_files_are_valid() {
    let read = load_json(&valid()).unwrap();
    SpecialTokens::new(&read.special_tokens).unwrap();
}
