//! Recursive descent over an expression: each rule returns its text in the other dialect and what
//! it matches, as far as that is known.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::class::{self, Class};
use super::cursor::Dialect::{self, Fancy, Oniguruma};
use super::cursor::{Cursor, refuse};
use crate::error::Result;

/// A part of an expression in the other dialect.
#[derive(Debug)]
pub struct Part {
    pub text: String,
    /// No match is empty.
    pub consumes: bool,
    /// It can match nothing, wherever it stands.
    optional: bool,
    /// Characters that it can match by themselves, wherever they stand.
    single: ClassUnicode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Flags {
    ignore_case: bool,
    /// A dot matches a line's end.
    dot_all: bool,
    /// `^` and `$` match at lines' ends, as they always do to Oniguruma.
    multi_line: bool,
    /// White space and comments are not part of the expression.
    extended: bool,
}

pub struct Parser {
    cursor: Cursor,
    flags: Flags,
    depth: usize,
}

/// Deeper nesting than any expression needs.
const MAX_DEPTH: usize = 100;

/// ASCII letters that Oniguruma matches, ignoring case, with one character too (`ß`, `ﬁ`, ...).
const LIGATURES: [&str; 5] = ["ss", "ff", "fi", "fl", "st"];

impl Part {
    fn of(text: impl Into<String>, consumes: bool, optional: bool, single: ClassUnicode) -> Self {
        Self { text: text.into(), consumes, optional, single }
    }

    /// What matches between characters and depends on them.
    fn anchor(text: impl Into<String>) -> Self {
        Self::of(text, false, false, ClassUnicode::empty())
    }

    fn nothing() -> Self {
        Self::of("", false, true, ClassUnicode::empty())
    }

    /// Whether every single character is matched, wherever it stands.
    pub fn covers_all(&self) -> bool {
        let mut rest = self.single.clone();
        rest.negate();
        rest.ranges().is_empty()
    }

    fn then(mut self, next: Part) -> Self {
        let mut single = if next.optional { self.single } else { ClassUnicode::empty() };
        if self.optional {
            single.union(&next.single);
        }
        self.text.push_str(&next.text);
        Self {
            text: self.text,
            consumes: self.consumes || next.consumes,
            optional: self.optional && next.optional,
            single,
        }
    }

    fn or(mut self, next: Part) -> Self {
        self.text.push('|');
        self.text.push_str(&next.text);
        self.single.union(&next.single);
        Self {
            text: self.text,
            consumes: self.consumes && next.consumes,
            optional: self.optional || next.optional,
            single: self.single,
        }
    }

    fn within(mut self, open: &str) -> Self {
        self.text = format!("{open}{})", self.text);
        self
    }
}

impl Parser {
    pub fn new(regex: &str, from: Dialect) -> Self {
        let multi_line = from == Oniguruma;
        let flags = Flags { ignore_case: false, dot_all: false, multi_line, extended: false };
        Self { cursor: Cursor::new(regex, from), flags, depth: 0 }
    }

    pub fn whole(mut self) -> Result<Part> {
        let whole = self.alternation()?;
        match self.cursor.peek() {
            None => Ok(whole),
            Some(_) => refuse("a closing parenthesis without an opening one"),
        }
    }

    /// `a|b|c`, up to the end of the group.
    fn alternation(&mut self) -> Result<Part> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return refuse("nesting as deep as this");
        }
        let before = self.flags;
        let mut whole = self.sequence()?;
        while self.cursor.eat("|") {
            // Flags that were set in a branch hold in the next ones.
            let branch = self.sequence()?;
            whole = whole.or(self.with_case_of(before, branch));
        }
        self.depth -= 1;
        Ok(whole)
    }

    /// `branch`, read under the flags of now, within a group that has those of `outside`.
    fn with_case_of(&self, outside: Flags, branch: Part) -> Part {
        match (outside.ignore_case, self.flags.ignore_case) {
            (false, true) => branch.within("(?i:"),
            (true, false) => branch.within("(?-i:"),
            _ => branch,
        }
    }

    /// One branch.
    fn sequence(&mut self) -> Result<Part> {
        let mut whole = Part::nothing();
        let mut last = None;
        while !matches!(self.cursor.peek(), None | Some('|' | ')')) {
            if self.skip_ignored()? {
                continue;
            }
            let outside = self.flags;
            if self.flags_alone()? {
                // In Ruby's syntax they hold to the end of the group, alternatives included.
                return Ok(whole.then(self.rest_under_flags(outside)?));
            }
            let literal = self.cursor.peek();
            let start = self.cursor.at;
            let atom = self.atom()?;
            let literal = literal.filter(|_| self.cursor.at == start + 1 && atom.consumes);
            let repeated = self.quantified(atom, literal)?;
            self.check_ligature(last, literal)?;
            last = literal;
            whole = whole.then(repeated);
        }
        Ok(whole)
    }

    /// What follows `(?i)`. In Ruby's syntax it holds to the end of the group, alternatives
    /// included, as if a group began here.
    fn rest_under_flags(&mut self, outside: Flags) -> Result<Part> {
        if self.cursor.from == Fancy {
            let rest = self.sequence()?;
            return Ok(self.with_case_of(outside, rest));
        }
        let inside = self.flags;
        let rest = self.alternation()?;
        let rest = match inside.ignore_case == outside.ignore_case {
            true => rest.within("(?:"),
            false => self.with_case_of(outside, rest),
        };
        self.flags = outside;
        Ok(rest)
    }

    fn check_ligature(&self, last: Option<char>, literal: Option<char>) -> Result<()> {
        if let (Some(a), Some(b)) = (last, literal)
            && self.flags.ignore_case
        {
            let pair: String = [a.to_ascii_lowercase(), b.to_ascii_lowercase()].iter().collect();
            if LIGATURES.contains(&pair.as_str()) {
                return refuse(format!("{pair:?} where case is ignored"));
            }
        }
        Ok(())
    }

    /// A comment, or white space where it does not count.
    fn skip_ignored(&mut self) -> Result<bool> {
        if self.cursor.eat("(?#") {
            self.cursor.until(')')?;
            return Ok(true);
        }
        match self.cursor.peek() {
            Some(c) if self.flags.extended && c.is_whitespace() => self.cursor.at += 1,
            Some('#') if self.flags.extended => {
                while self.cursor.peek().is_some_and(|c| c != '\n') {
                    self.cursor.at += 1;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `(?i)`: sets the flags.
    fn flags_alone(&mut self) -> Result<bool> {
        let start = self.cursor.at;
        if self.cursor.eat("(?") {
            while self.cursor.peek().is_some_and(|c| c.is_ascii_alphabetic() || c == '-') {
                self.cursor.at += 1;
            }
            if self.cursor.at > start + 2 && self.cursor.eat(")") {
                let letters: String =
                    self.cursor.chars[start + 2..self.cursor.at - 1].iter().collect();
                self.set_flags(&letters)?;
                return Ok(true);
            }
        }
        self.cursor.at = start;
        Ok(false)
    }

    fn set_flags(&mut self, letters: &str) -> Result<()> {
        let mut on = true;
        for letter in letters.chars() {
            match (letter, self.cursor.from) {
                ('-', _) => on = false,
                ('i', _) => self.flags.ignore_case = on,
                ('x', _) => self.flags.extended = on,
                ('m', Oniguruma) | ('s', Fancy) => self.flags.dot_all = on,
                ('m', Fancy) => self.flags.multi_line = on,
                _ => return refuse(format!("the flag (?{letter})")),
            }
        }
        Ok(())
    }

    fn atom(&mut self) -> Result<Part> {
        match self.cursor.next()? {
            '(' => self.group(),
            '[' => {
                let class = class::bracketed(&mut self.cursor)?;
                self.class(class)
            }
            '\\' => self.escape(),
            '.' => self.dot(),
            '^' => Ok(Part::anchor(self.line_start())),
            '$' => Ok(Part::anchor(self.line_end())),
            c @ ('*' | '+' | '?') => refuse(format!("{c} with nothing before it")),
            c => self.literal(c),
        }
    }

    fn line_start(&self) -> &'static str {
        match (self.cursor.from, self.flags.multi_line) {
            // After the last line's end there is no line to Oniguruma.
            (Oniguruma, _) => r"(?:\A|(?<=\n)(?!\z))",
            (Fancy, true) => r"(?:\A|(?<=\n))",
            (Fancy, false) => r"\A",
        }
    }

    fn line_end(&self) -> &'static str {
        if self.flags.multi_line { r"(?=\n|\z)" } else { r"\z" }
    }

    fn dot(&self) -> Result<Part> {
        let class = class::parse(if self.flags.dot_all { "(?s:.)" } else { "." })?;
        let text = match (self.flags.dot_all, self.cursor.from) {
            (false, _) => ".",
            (true, Oniguruma) => "(?s:.)",
            (true, Fancy) => "(?m:.)",
        };
        Ok(Part::of(text, true, false, class))
    }

    fn literal(&self, c: char) -> Result<Part> {
        let mut single = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        if self.flags.ignore_case {
            single.case_fold_simple();
            let cased = single.ranges().len() > 1 || matches!(c, '\u{2B0}'..='\u{36F}');
            if !c.is_ascii() && cased {
                return refuse(format!("{c:?} where case is ignored"));
            }
        }
        Ok(Part::of(class::quoted(c), true, false, single))
    }

    fn class(&self, class: Class) -> Result<Part> {
        let mut single = class::parse(&class.text)?;
        if self.flags.ignore_case {
            let mut folded = single.clone();
            folded.case_fold_simple();
            let ascii = single.ranges().iter().all(|range| range.end().is_ascii());
            let mut letters = class::parse(r"\p{L}")?;
            letters.intersect(&single);
            if !ascii && (folded != single || !letters.ranges().is_empty()) {
                return refuse(format!("{} where case is ignored", class.written));
            }
            single = folded;
        }
        Ok(Part::of(class.text, true, false, single))
    }

    fn escape(&mut self) -> Result<Part> {
        let letter = self.cursor.next()?;
        if let Some(class) = class::shorthand(&mut self.cursor, letter)? {
            return self.class(class);
        }
        if let Some(c) = class::escaped_char(&mut self.cursor, letter)? {
            return self.literal(c);
        }
        let word = class::word(self.cursor.from, false);
        let anchor = match letter {
            'A' => r"\A".to_owned(),
            'z' => r"\z".to_owned(),
            'Z' if self.cursor.from == Oniguruma => r"(?=\n?\z)".to_owned(),
            'b' if self.cursor.peek() != Some('{') => {
                format!("(?:(?<={word})(?!{word})|(?<!{word})(?={word}))")
            }
            'B' if self.cursor.peek() != Some('{') => {
                format!("(?:(?<={word})(?={word})|(?<!{word})(?!{word}))")
            }
            _ => return refuse(format!("\\{letter}")),
        };
        Ok(Part::anchor(anchor))
    }

    fn group(&mut self) -> Result<Part> {
        let before = self.flags;
        let (open, kind) = self.opening()?;
        let inner = self.alternation()?;
        self.flags = before;
        if !self.cursor.eat(")") {
            return refuse("a group without an end");
        }
        let inner = inner.within(open);
        Ok(match kind {
            Kind::Plain => inner,
            Kind::Around => Part::anchor(inner.text),
            // It may have taken more than what follows leaves it.
            Kind::Atomic => Part { optional: false, single: ClassUnicode::empty(), ..inner },
        })
    }

    fn opening(&mut self) -> Result<(&'static str, Kind)> {
        if self.cursor.peek() == Some('*') {
            return refuse("(*");
        }
        if !self.cursor.eat("?") {
            return Ok(("(", Kind::Plain));
        }
        for (open, kind) in [
            ("(?:", Kind::Plain),
            ("(?=", Kind::Around),
            ("(?!", Kind::Around),
            ("(?<=", Kind::Around),
            ("(?<!", Kind::Around),
            ("(?>", Kind::Atomic),
        ] {
            if self.cursor.eat(&open[2..]) {
                return Ok((open, kind));
            }
        }
        if self.cursor.eat("<") || (self.cursor.from == Fancy && self.cursor.eat("P<")) {
            self.cursor.until('>')?;
            return Ok(("(", Kind::Plain));
        }
        let start = self.cursor.at;
        while self.cursor.peek().is_some_and(|c| c.is_ascii_alphabetic() || c == '-') {
            self.cursor.at += 1;
        }
        let letters: String = self.cursor.chars[start..self.cursor.at].iter().collect();
        if letters.is_empty() || !self.cursor.eat(":") {
            let more: String = self.cursor.chars[start..].iter().take(2).collect();
            return refuse(format!("(?{more}"));
        }
        let outside = self.flags;
        self.set_flags(&letters)?;
        let open = match (outside.ignore_case, self.flags.ignore_case) {
            (false, true) => "(?i:",
            (true, false) => "(?-i:",
            _ => "(?:",
        };
        Ok((open, Kind::Plain))
    }

    /// `atom` with all quantifiers after it.
    fn quantified(&mut self, mut atom: Part, literal: Option<char>) -> Result<Part> {
        let mut times = 0;
        loop {
            while self.flags.extended && self.skip_ignored()? {}
            let Some((least, most)) = self.interval()? else { return Ok(atom) };
            let anchor = !atom.consumes && !atom.optional && times == 0;
            if anchor {
                return refuse("a quantifier on what matches no character");
            }
            if self.flags.ignore_case && matches!(literal, Some('s' | 'S' | 'f' | 'F')) && most != 1
            {
                return refuse("a repeated s or f where case is ignored");
            }
            if times > 0 {
                atom = atom.within("(?:");
            }
            atom = self.repeat(atom, least, most)?;
            times += 1;
        }
    }

    fn repeat(&mut self, atom: Part, least: u32, most: u32) -> Result<Part> {
        let braces = self.cursor.chars[self.cursor.at - 1] == '}';
        let text = match (least, most) {
            (0, 1) if !braces => format!("{}?", atom.text),
            (0, u32::MAX) if !braces => format!("{}*", atom.text),
            (1, u32::MAX) if !braces => format!("{}+", atom.text),
            (least, most) if least == most => format!("{}{{{least}}}", atom.text),
            (least, u32::MAX) => format!("{}{{{least},}}", atom.text),
            (least, most) => format!("{}{{{least},{most}}}", atom.text),
        };
        let single = match (least <= 1 || atom.optional) && most > 0 {
            true => atom.single.clone(),
            false => ClassUnicode::empty(),
        };
        let optional = least == 0 || atom.optional;
        let mut whole = Part::of(text, least > 0 && atom.consumes, optional, single);
        if self.cursor.peek() == Some('?') {
            // To Ruby `{2}?` is "twice or not at all", to others it is lazy, which changes nothing.
            let fixed = braces && least == most;
            if !(fixed && self.cursor.from == Oniguruma) {
                self.cursor.at += 1;
                whole.text.push_str(if fixed { "" } else { "?" });
            }
        } else if self.cursor.peek() == Some('+') && !(braces && self.cursor.from == Oniguruma) {
            self.cursor.at += 1;
            match braces {
                true => whole = whole.within("(?>"),
                false => whole.text.push('+'),
            }
            // It takes what it can, even what follows it would need.
            whole.optional = false;
        }
        Ok(whole)
    }

    /// How often, if a quantifier follows.
    fn interval(&mut self) -> Result<Option<(u32, u32)>> {
        let start = self.cursor.at;
        match self.cursor.peek() {
            Some('?') => self.cursor.at += 1,
            Some('*') => self.cursor.at += 1,
            Some('+') => self.cursor.at += 1,
            Some('{') => return self.braces(),
            _ => return Ok(None),
        }
        Ok(Some(match self.cursor.chars[start] {
            '?' => (0, 1),
            '*' => (0, u32::MAX),
            _ => (1, u32::MAX),
        }))
    }

    /// `{n}`, `{n,}`, `{,m}`, `{n,m}`; anything else in braces is literal.
    fn braces(&mut self) -> Result<Option<(u32, u32)>> {
        let start = self.cursor.at;
        self.cursor.at += 1;
        let least = self.number()?;
        let (least, most) = match (least, self.cursor.eat(",")) {
            (Some(least), false) => (least, least),
            (least, true) => match (least, self.number()?) {
                (None, None) => return self.no_interval(start),
                (least, most) => (least.unwrap_or(0), most.unwrap_or(u32::MAX)),
            },
            (None, false) => return self.no_interval(start),
        };
        if !self.cursor.eat("}") {
            return self.no_interval(start);
        }
        if least > most {
            return refuse(format!("{{{least},{most}}}"));
        }
        Ok(Some((least, most)))
    }

    fn no_interval(&mut self, start: usize) -> Result<Option<(u32, u32)>> {
        self.cursor.at = start;
        Ok(None)
    }

    fn number(&mut self) -> Result<Option<u32>> {
        let start = self.cursor.at;
        while self.cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.cursor.at += 1;
        }
        let digits: String = self.cursor.chars[start..self.cursor.at].iter().collect();
        match digits.as_str() {
            "" => Ok(None),
            _ => match digits.parse() {
                Ok(number) if number <= 1000 => Ok(Some(number)),
                _ => refuse(format!("a quantifier of {digits}")),
            },
        }
    }
}

enum Kind {
    Plain,
    /// Look-ahead and look-behind.
    Around,
    Atomic,
}
