//! Classes of characters: `[...]`, `\w`, `\p{...}`, and characters by number.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange, HirKind};

use super::cursor::Dialect::{self, Fancy, Oniguruma};
use super::cursor::{Cursor, hex_number, refuse};
use crate::error::{Error, Result};

/// A class in the other dialect, spelled so that the crate regex-syntax reads it too.
pub struct Class {
    pub text: String,
    /// What it was, for messages.
    pub written: String,
}

impl Class {
    fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { written: text.clone(), text }
    }
}

/// What both dialects agree on as part of a word. A bare `\w` of Oniguruma has also the Latin-1
/// digits that are no decimal ones, and fancy-regex has the joiners.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
const LATIN_1_DIGITS: &str = "²³¹¼-¾";
const JOINERS: &str = r"\p{Join_Control}";

/// Names that POSIX gives to classes, as Oniguruma understands them in brackets.
const POSIX: [(&str, &str); 11] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("alpha", r"\p{Alphabetic}"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\p{Zs}\t"),
    ("cntrl", r"\p{Cc}"),
    ("digit", r"\p{Nd}"),
    ("lower", r"\p{Lowercase}"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\s"),
    ("upper", r"\p{Uppercase}"),
    ("xdigit", "0-9A-Fa-f"),
];
/// The same to fancy-regex, which knows only ASCII here.
const POSIX_ASCII: [(&str, &str); 13] = [
    ("alnum", "0-9A-Za-z"),
    ("alpha", "A-Za-z"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\t "),
    ("cntrl", r"\x00-\x1F\x7F"),
    ("digit", "0-9"),
    ("graph", "!-~"),
    ("lower", "a-z"),
    ("print", " -~"),
    ("punct", r"!-/:-@\[-`{-\~"),
    ("space", r"\t\n\v\f\r "),
    ("upper", "A-Z"),
    ("xdigit", "0-9A-Fa-f"),
];
/// Properties beside general categories and scripts that both dialects know.
const PROPERTIES: [&str; 9] = [
    "Alphabetic",
    "Lowercase",
    "Uppercase",
    "White_Space",
    "Join_Control",
    "Emoji",
    "Ideographic",
    "Math",
    "Any",
];

/// What a class matches.
pub fn parse(class: &str) -> Result<ClassUnicode> {
    let parsed = regex_syntax::parse(class)
        .map_err(|_| Error::invalid(format!("{class} is not a class of characters")))?;
    let none = || Error::invalid(format!("{class} is not a class of characters"));
    match parsed.kind() {
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => Ok(class.clone()),
        HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => {
            class.to_unicode_class().ok_or_else(none)
        }
        HirKind::Literal(literal) => {
            let mut chars = str::from_utf8(&literal.0).map_err(|_| none())?.chars();
            let single = chars.next().filter(|_| chars.next().is_none()).ok_or_else(none)?;
            Ok(ClassUnicode::new([ClassUnicodeRange::new(single, single)]))
        }
        _ => Err(none()),
    }
}

/// `\w` of a dialect, spelled out, as it is alone or between brackets.
pub fn word(dialect: Dialect, between_brackets: bool) -> String {
    let more = match dialect {
        Oniguruma if between_brackets => "",
        Oniguruma => LATIN_1_DIGITS,
        Fancy => JOINERS,
    };
    format!("[{WORD}{more}]")
}

/// A character outside brackets.
pub fn quoted(c: char) -> String {
    match c {
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
            format!("\\{c}")
        }
        _ => control(c).unwrap_or_else(|| c.to_string()),
    }
}

/// A character between brackets.
fn quoted_inside(c: char) -> String {
    match c {
        '\\' | '[' | ']' | '^' | '-' | '&' | '~' => format!("\\{c}"),
        _ => control(c).unwrap_or_else(|| c.to_string()),
    }
}

fn control(c: char) -> Option<String> {
    let escape = match c {
        '\t' => r"\t",
        '\n' => r"\n",
        '\r' => r"\r",
        '\x0B' => r"\v",
        '\x0C' => r"\f",
        _ => return None,
    };
    Some(escape.to_owned())
}

/// The class that `\letter` stands for, if it does.
pub fn shorthand(cursor: &mut Cursor, letter: char) -> Result<Option<Class>> {
    let class = match letter {
        'd' | 'D' | 's' | 'S' => Class::same(format!("\\{letter}")),
        'w' => Class { text: word(cursor.from, false), written: r"\w".to_owned() },
        'W' => {
            let text = word(cursor.from, false).replacen('[', "[^", 1);
            Class { text, written: r"\W".to_owned() }
        }
        'h' => Class::same("[0-9A-Fa-f]"),
        'H' => Class::same("[^0-9A-Fa-f]"),
        'p' | 'P' => property(cursor, letter)?,
        _ => return Ok(None),
    };
    Ok(Some(class))
}

/// `\p{name}`, `\P{name}`, `\p{^name}`; to fancy-regex also `\pL`.
fn property(cursor: &mut Cursor, letter: char) -> Result<Class> {
    let name = match (cursor.eat("{"), cursor.from) {
        (true, _) => cursor.until('}')?,
        (false, Fancy) => cursor.next()?.to_string(),
        (false, Oniguruma) => return refuse("\\p without braces"),
    };
    let written = format!("\\{letter}{{{name}}}");
    let (plain, negated) = match name.strip_prefix('^') {
        Some(plain) => (plain, letter == 'p'),
        None => (name.as_str(), letter == 'P'),
    };
    let is_known = |kind: &str| regex_syntax::parse(&format!(r"\p{{{kind}{plain}}}")).is_ok();
    let known = !plain.contains(['=', ':', '^', '!'])
        && (is_known("gc=") || is_known("sc=") || PROPERTIES.contains(&plain));
    if !known {
        let simple: String =
            plain.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let posix = POSIX.iter().find(|(name, _)| *name == simple && *name != "punct");
        return match posix.filter(|_| cursor.from == Oniguruma) {
            Some((_, members)) => {
                let text = format!("[{}{members}]", if negated { "^" } else { "" });
                Ok(Class { text, written })
            }
            None => refuse(&written),
        };
    }
    let letter = if negated { 'P' } else { 'p' };
    Ok(Class { text: format!("\\{letter}{{{plain}}}"), written })
}

/// The one character that `\letter` stands for, if it does.
pub fn escaped_char(cursor: &mut Cursor, letter: char) -> Result<Option<char>> {
    let code = match letter {
        't' => '\t' as u32,
        'n' => '\n' as u32,
        'r' => '\r' as u32,
        'f' => 0x0C,
        'v' => 0x0B,
        'a' => 0x07,
        'e' => 0x1B,
        'x' | 'u' if cursor.eat("{") => {
            if letter == 'u' && cursor.from == Oniguruma {
                return refuse("\\u{");
            }
            hex_number(&cursor.until('}')?)?
        }
        'x' => match cursor.hex(2)? {
            // To Oniguruma it is a byte, and only these are characters.
            code @ 0x80.. if cursor.from == Oniguruma => {
                return refuse(format!("\\x{code:02X}"));
            }
            code => code,
        },
        'u' => cursor.hex(4)?,
        '<' | '>' if cursor.from == Fancy => return Ok(None),
        c if c.is_ascii_alphanumeric() => return Ok(None),
        c => c as u32,
    };
    match char::from_u32(code) {
        Some(c) => Ok(Some(c)),
        None => Err(Error::invalid(format!("U+{code:04X} is not a character"))),
    }
}

/// What follows a `[`, up to its `]`.
pub fn bracketed(cursor: &mut Cursor) -> Result<Class> {
    let text = set(cursor, 0)?;
    Ok(Class::same(text))
}

fn set(cursor: &mut Cursor, depth: usize) -> Result<String> {
    if depth > 20 {
        return refuse("nesting as deep as this");
    }
    let mut text = "[".to_owned();
    if cursor.eat("^") {
        text.push('^');
    }
    if cursor.peek() == Some(']') {
        return refuse("] as the first character between brackets");
    }
    loop {
        if cursor.eat("]") {
            text.push(']');
            return Ok(text);
        }
        if cursor.eat("&&") {
            text.push_str("&&");
            continue;
        }
        if cursor.from == Fancy && (cursor.eat("--") || cursor.eat("~~")) {
            return refuse("-- or ~~ between brackets");
        }
        match member(cursor, depth)? {
            Member::Set(set) => {
                text.push_str(&set);
                if cursor.peek() == Some('-') && !hyphen_is_last(cursor) {
                    return refuse("a range that begins with a class");
                }
            }
            Member::Char(first) => {
                text.push_str(&quoted_inside(first));
                if cursor.peek() == Some('-') && !hyphen_is_last(cursor) {
                    cursor.next()?;
                    match member(cursor, depth)? {
                        Member::Char(last) if first <= last => {
                            text.push('-');
                            text.push_str(&quoted_inside(last));
                        }
                        _ => return refuse("a range that ends with a class"),
                    }
                    if cursor.peek() == Some('-') && !hyphen_is_last(cursor) {
                        return refuse("- after a range between brackets");
                    }
                }
            }
        }
    }
}

/// Whether the `-` that comes next is a character and not the middle of a range.
fn hyphen_is_last(cursor: &mut Cursor) -> bool {
    cursor.eat("-]") && {
        cursor.back(2);
        true
    }
}

enum Member {
    Char(char),
    Set(String),
}

fn member(cursor: &mut Cursor, depth: usize) -> Result<Member> {
    match cursor.next()? {
        '[' => match cursor.eat(":") {
            true => posix(cursor).map(Member::Set),
            false => set(cursor, depth + 1).map(Member::Set),
        },
        '\\' => {
            let letter = cursor.next()?;
            if letter == 'b' {
                return match cursor.from {
                    Oniguruma => Ok(Member::Char('\x08')),
                    Fancy => refuse("\\b between brackets"),
                };
            }
            if letter.eq_ignore_ascii_case(&'w') {
                let word = word(cursor.from, true);
                let negated = letter == 'W';
                return Ok(Member::Set(if negated { word.replacen('[', "[^", 1) } else { word }));
            }
            if let Some(class) = shorthand(cursor, letter)? {
                return Ok(Member::Set(class.text));
            }
            match escaped_char(cursor, letter)? {
                Some(c) => Ok(Member::Char(c)),
                None => refuse(format!("\\{letter} between brackets")),
            }
        }
        c => Ok(Member::Char(c)),
    }
}

/// `[:name:]` or `[:^name:]`, after its first colon.
fn posix(cursor: &mut Cursor) -> Result<String> {
    let negated = cursor.eat("^");
    let name = cursor.until(':')?;
    let table = if cursor.from == Oniguruma { &POSIX[..] } else { &POSIX_ASCII };
    let known = table.iter().find(|(known, _)| *known == name);
    let members = match known {
        Some((_, members)) => (*members).to_owned(),
        None if name == "word" && cursor.from == Oniguruma => WORD.to_owned(),
        None => return refuse(format!("[:{name}:]")),
    };
    if !cursor.eat("]") {
        return refuse(format!("[:{name}"));
    }
    Ok(format!("[{}{members}]", if negated { "^" } else { "" }))
}
