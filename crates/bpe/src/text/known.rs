//! The patterns that have a scanner: their names, their regular expressions, and other spellings of
//! these.
//!
//! Published files spell one pattern in many ways, which differ in nothing that can be seen: a
//! possessive quantifier where nothing could be given back, `\s` for `\s+` where only one character
//! is left, `\s*[\r\n]` for `\s*[\r\n]+`, which both reach the last line end. So a spelling is told
//! part by part: every pattern is a list of parts, and every part has the forms listed here. That
//! all of them mean the same is tested by property, against the engine.
//!
//! Sources: tiktoken's `openai_public.py`; the `tokenizer.json` of Llama 3, Qwen 2 and 3.5, Mistral
//! Nemo, StarCoder; rustbpe and nanochat.

/// A pattern with a scanner.
pub struct Known {
    pub name: &'static str,
    /// The regular expression, in the syntax that fancy-regex and Oniguruma (Hugging Face) read
    /// alike: to the latter, `$` is the end of a line and `{1,3}+` is not a possessive quantifier.
    pub regex: &'static str,
    /// The parts, in order, joined by `|`; the forms of each.
    parts: &'static [&'static [&'static str]],
}

const CONTRACTION: &[&str] =
    &[r"'(?:[sdmt]|ll|ve|re)", r"'s|'t|'re|'ve|'m|'ll|'d", r"(?:'s|'t|'re|'ve|'m|'ll|'d)"];
const ANY_CASE: &[&str] = &[r"'(?i:[sdmt]|ll|ve|re)", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"];
const SPACED_LETTERS: &[&str] = &[r" ?\p{L}+", r" ?\p{L}++"];
const SPACED_NUMBERS: &[&str] = &[r" ?\p{N}+", r" ?\p{N}++"];
const SPACED_OTHERS: &[&str] = &[r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]++"];
const LETTERS: &[&str] = &[
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?\p{L}++",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+",
    r"[^\r\n\p{L}\p{N}]?+\p{L}++",
];
const LETTERS_AND_MARKS: &[&str] = &[r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"];
const THREE_DIGITS: &[&str] = &[r"\p{N}{1,3}", r"\p{N}{1,3}+"];
const TWO_DIGITS: &[&str] = &[r"\p{N}{1,2}", r"\p{N}{1,2}+"];
const ONE_DIGIT: &[&str] = &[r"\p{N}", r"\p{N}{1}"];
const OTHERS: &[&str] =
    &[r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*+"];
const OTHERS_WITHOUT_MARKS: &[&str] = &[r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"];
const OTHERS_WITH_SLASHES: &[&str] = &[r" ?[^\s\p{L}\p{N}]+[\r\n/]*"];
const LINE_ENDS: &[&str] = &[r"\s*[\r\n]+", r"\s*[\r\n]"];
const BLANKS: &[&str] = &[r"\s+(?!\S)|\s+", r"\s+(?!\S)|\s"];
/// White space is a pretoken if it ends the text, in either case.
const BLANKS_TO_THE_END: &[&str] =
    &[r"\s+(?!\S)|\s+", r"\s+(?!\S)|\s", r"\s++$|\s+(?!\S)|\s", r"\s++\z|\s+(?!\S)|\s"];
const END: &[&str] = &[r"\s++\z", r"\s++$"];

const UPPER_LOWER: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
);
const UPPER_LOWER_CONTRACTION: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
);

/// All of them, in the order of `pattern::KNOWN`.
pub static KNOWN: [Known; 9] = [
    Known {
        name: "gpt2",
        regex: concat!(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+",
            r"|\s+(?!\S)|\s+"
        ),
        parts: &[CONTRACTION, SPACED_LETTERS, SPACED_NUMBERS, SPACED_OTHERS, BLANKS_TO_THE_END],
    },
    Known {
        name: "gpt4",
        regex: concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        parts: &[ANY_CASE, LETTERS, THREE_DIGITS, OTHERS, END, LINE_ENDS, BLANKS],
    },
    Known {
        name: "gpt4o",
        regex: concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        parts: &[&[UPPER_LOWER_CONTRACTION], THREE_DIGITS, OTHERS_WITH_SLASHES, LINE_ENDS, BLANKS],
    },
    Known {
        name: "llama3",
        regex: concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        parts: &[ANY_CASE, LETTERS, THREE_DIGITS, OTHERS, LINE_ENDS, BLANKS],
    },
    Known {
        name: "qwen2",
        regex: concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        parts: &[ANY_CASE, LETTERS, ONE_DIGIT, OTHERS, LINE_ENDS, BLANKS],
    },
    Known {
        name: "qwen3.5",
        regex: concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        parts: &[ANY_CASE, LETTERS_AND_MARKS, ONE_DIGIT, OTHERS_WITHOUT_MARKS, LINE_ENDS, BLANKS],
    },
    Known {
        name: "nanochat",
        regex: concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        ),
        parts: &[ANY_CASE, LETTERS, TWO_DIGITS, OTHERS, LINE_ENDS, BLANKS],
    },
    Known {
        name: "tekken",
        regex: concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        parts: &[&[UPPER_LOWER], ONE_DIGIT, OTHERS_WITH_SLASHES, LINE_ENDS, BLANKS],
    },
    Known {
        name: "starcoder",
        regex: concat!(
            r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+",
            r"|\s+(?![^\s\p{N}])|\s+"
        ),
        parts: &[
            CONTRACTION,
            ONE_DIGIT,
            SPACED_LETTERS,
            SPACED_OTHERS,
            &[r"\s+(?![^\s\p{N}])|\s+", r"\s+(?![^\s\p{N}])|\s"],
        ],
    },
];

impl Known {
    /// Whether `regex` spells this pattern.
    fn is_spelled(&self, regex: &str) -> bool {
        let mut rest = regex;
        for (place, forms) in self.parts.iter().enumerate() {
            let is_last = place + 1 == self.parts.len();
            let after = |form: &&str| {
                let after = rest.strip_prefix(form)?;
                if is_last { after.is_empty().then_some(after) } else { after.strip_prefix('|') }
            };
            match forms.iter().find_map(after) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        true
    }
}

/// The place of the pattern of this name, or that the regular expression spells.
pub fn find(name_or_regex: &str) -> Option<usize> {
    let is_it = |known: &Known| known.name == name_or_regex || known.is_spelled(name_or_regex);
    KNOWN.iter().position(is_it)
}

/// Every pattern's name, as a list in words.
pub fn names() -> String {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The name of a known pattern, and one of its spellings.
    pub fn spelled() -> impl Strategy<Value = (&'static str, String)> {
        (0..KNOWN.len(), prop::collection::vec(any::<prop::sample::Index>(), 8)).prop_map(
            |(which, choices)| {
                let known = &KNOWN[which];
                let parts = known.parts.iter().zip(choices);
                let parts: Vec<_> = parts.map(|(forms, choice)| *choice.get(forms)).collect();
                (known.name, parts.join("|"))
            },
        )
    }

    #[test]
    fn published_spellings_are_known() {
        let spellings = [
            // tiktoken's r50k_base, the older and today's.
            (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", "gpt2"),
            (
                concat!(
                    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++",
                    r"|\s++$|\s+(?!\S)|\s"
                ),
                "gpt2",
            ),
            // tiktoken's cl100k_base.
            (
                concat!(
                    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+",
                    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
                ),
                "gpt4",
            ),
            // rustbpe, and the older cl100k_base.
            (
                concat!(
                    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}",
                    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
                ),
                "llama3",
            ),
        ];
        for (spelling, name) in spellings {
            assert_eq!(find(spelling).map(|place| KNOWN[place].name), Some(name), "{spelling}");
        }
        for unknown in ["", "gpt5", r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+"] {
            assert!(find(unknown).is_none(), "{unknown}");
        }
        for known in &KNOWN {
            assert_eq!(find(known.regex).map(|place| KNOWN[place].name), Some(known.name));
            assert!(find(&format!("{}|x", known.regex)).is_none());
        }
    }
}
