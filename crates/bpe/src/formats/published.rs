//! What is known of the `.tiktoken` files that OpenAI published, and stands in none of them: the
//! pattern, and the special tokens with their ids.
//!
//! Source: `tiktoken_ext/openai_public.py`, which belongs to tiktoken. Where two of its encodings
//! share a file (`p50k_base` and `p50k_edit`, `o200k_base` and `o200k_harmony`), the file has the
//! special tokens of both.

use crate::text::pattern::Pattern;
use crate::vocab::TokenId;

/// A file, by its name without `.tiktoken`.
pub struct Published {
    name: &'static str,
    pub pattern: Pattern,
    pub special: &'static [(&'static str, TokenId)],
}

const GPT2: &[(&str, TokenId)] = &[("<|endoftext|>", 50256)];
const P50K: &[(&str, TokenId)] = &[
    ("<|endoftext|>", 50256),
    ("<|fim_prefix|>", 50281),
    ("<|fim_middle|>", 50282),
    ("<|fim_suffix|>", 50283),
];
const CL100K: &[(&str, TokenId)] = &[
    ("<|endoftext|>", 100_257),
    ("<|fim_prefix|>", 100_258),
    ("<|fim_middle|>", 100_259),
    ("<|fim_suffix|>", 100_260),
    ("<|endofprompt|>", 100_276),
];
const O200K: &[(&str, TokenId)] = &[
    ("<|startoftext|>", 199_998),
    ("<|endoftext|>", 199_999),
    ("<|return|>", 200_002),
    ("<|constrain|>", 200_003),
    ("<|channel|>", 200_005),
    ("<|start|>", 200_006),
    ("<|end|>", 200_007),
    ("<|message|>", 200_008),
    ("<|call|>", 200_012),
    ("<|endofprompt|>", 200_018),
];

const FILES: [Published; 7] = [
    Published { name: "gpt2", pattern: Pattern::Gpt2, special: GPT2 },
    Published { name: "r50k_base", pattern: Pattern::Gpt2, special: GPT2 },
    Published { name: "p50k_base", pattern: Pattern::Gpt2, special: P50K },
    Published { name: "p50k_edit", pattern: Pattern::Gpt2, special: P50K },
    Published { name: "cl100k_base", pattern: Pattern::Gpt4, special: CL100K },
    Published { name: "o200k_base", pattern: Pattern::Gpt4o, special: O200K },
    Published { name: "o200k_harmony", pattern: Pattern::Gpt4o, special: O200K },
];

/// The published file of this name.
pub fn find(name: &str) -> Option<&'static Published> {
    static KNOWN: &[Published] = &FILES;
    KNOWN.iter().find(|file| file.name == name)
}
