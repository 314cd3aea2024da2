//! What a Tera template may consist of, so that its cost is bounded before it runs.
//!
//! Allowed are expressions, `if` and `for`, the latter neither nested nor in a list. Nothing binds a name but `for`, and what
//! it walks is never made by `~`: so no text can double itself again and again. What is left is weighed ([`weight`]).

use super::weight;

/// Tags that a template may have.
const TAGS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "break", "continue"];
/// Filters whose result is not much larger than what they are given, or that are bounded in `filters.rs`.
const FILTERS: [&str; 30] = [
    "abs",
    "capitalize",
    "default",
    "first",
    "float",
    "get",
    "int",
    "join",
    "keys",
    "last",
    "length",
    "lower",
    "nth",
    "pluralize",
    "replace",
    "reverse",
    "round",
    "safe",
    "sort",
    "split",
    "str",
    "title",
    "trim",
    "trim_end",
    "trim_start",
    "truncate",
    "unique",
    "upper",
    "values",
    "wordcount",
];
/// How many `~` a template may have.
const MAX_CONCATENATIONS: usize = 32;
/// The longest text that is written out, in bytes.
const MAX_QUOTED: usize = 4096;

/// A piece of what stands between delimiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'s> {
    Name(&'s str),
    /// A string, whatever it says.
    Quoted,
    Symbol(char),
}

/// Refuses by name what is not allowed in `source`, with line and column; what the rest of it weighs.
pub(super) fn check(source: &str) -> Result<u32, String> {
    let mut scan = Scan {
        source,
        loops: 0,
        concatenations: 0,
        weight: 0,
    };
    let mut at = 0;
    while let Some(begin) = next_delimiter(source, at) {
        at = match &source[begin..begin + 2] {
            "{#" => match source[begin..].find("#}") {
                Some(length) => begin + length + 2,
                // Tera says what is wrong with a comment that has no end.
                None => return Ok(scan.weight),
            },
            "{%" => scan.delimited(begin, true)?,
            _ => scan.delimited(begin, false)?,
        };
    }
    Ok(scan.weight)
}

fn next_delimiter(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    (from..bytes.len().saturating_sub(1)).find(|at| bytes[*at] == b'{' && matches!(bytes[at + 1], b'{' | b'%' | b'#'))
}

struct Scan<'s> {
    source: &'s str,
    loops: u32,
    concatenations: usize,
    /// Of what was seen by now.
    weight: u32,
}

impl Scan<'_> {
    fn refuse<T>(&self, at: usize, message: &str) -> Result<T, String> {
        let before = &self.source[..at];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count() + 1;
        Err(format!("line {line}, column {column}: {message}"))
    }

    /// Checks a tag or an expression that begins at `begin`; where it ends.
    fn delimited(&mut self, begin: usize, tag: bool) -> Result<usize, String> {
        let mut at = begin + 2 + usize::from(self.source[begin + 2..].starts_with('-'));
        let end = if tag { "%}" } else { "}}" };
        let mut tokens = Vec::new();
        let mut keyword = None;
        loop {
            let rest = &self.source[at..];
            let space = rest.len() - rest.trim_start().len();
            at += space;
            let rest = &self.source[at..];
            if rest.starts_with(end) {
                self.weigh(begin, keyword, &tokens)?;
                return Ok(at + end.len());
            }
            let Some((token, length)) = token(rest) else {
                // No end, or a string without one: Tera says so better.
                return Ok(self.source.len());
            };
            let previous = tokens.last().copied();
            if tag && previous.is_none() {
                keyword = Some(self.tag(at, token)?);
            } else {
                self.inside(at, token, previous, keyword == Some("for"))?;
            }
            if token == Token::Quoted && length > MAX_QUOTED {
                return self.refuse(at, &format!("a text of more than {MAX_QUOTED} bytes"));
            }
            tokens.push(token);
            at += length;
        }
    }

    /// Adds what the `tokens` of a tag or an expression weigh.
    fn weigh(&mut self, begin: usize, keyword: Option<&str>, tokens: &[Token<'_>]) -> Result<(), String> {
        let is_for = keyword == Some("for");
        if is_for && !weight::walks_a_list(tokens) {
            return self.refuse(
                begin,
                "a loop walks a list or map that is known as one, range(…), […], or what split, sort, unique, keys or values give",
            );
        }
        let commas = tokens.iter().filter(|token| **token == Token::Symbol(','));
        if is_for && commas.count() >= weight::LOOP as usize {
            return self.refuse(begin, &format!("a loop over more than {} entries", weight::LOOP));
        }
        let times = if self.loops > u32::from(is_for) {
            weight::LOOP
        } else {
            1
        };
        self.weight = self.weight.saturating_add(weight::of(tokens).saturating_mul(times));
        if self.weight > weight::MAX_TEMPLATE {
            let max = weight::MAX_TEMPLATE;
            return self.refuse(
                begin,
                &format!("the template is too much work: it weighs more than {max} up to here"),
            );
        }
        Ok(())
    }

    fn tag<'t>(&mut self, at: usize, token: Token<'t>) -> Result<&'t str, String> {
        let Token::Name(name) = token else {
            return self.refuse(at, "a tag has to begin with a name");
        };
        if !TAGS.contains(&name) {
            return self.refuse(at, &format!("{{% {name} %}} is not supported; there are if and for"));
        }
        match name {
            "for" if self.loops > 0 => return self.refuse(at, "a loop in a loop is not supported"),
            "for" => self.loops += 1,
            "endfor" => self.loops = self.loops.saturating_sub(1),
            _ => {}
        }
        Ok(name)
    }

    fn inside(&mut self, at: usize, token: Token<'_>, previous: Option<Token<'_>>, in_for: bool) -> Result<(), String> {
        let after_dot = previous == Some(Token::Symbol('.'));
        match token {
            Token::Name(name) if previous == Some(Token::Symbol('|')) && !FILTERS.contains(&name) => {
                self.refuse(at, &format!("the filter {name} is not supported"))
            }
            Token::Name("for") if !after_dot => self.refuse(at, "a loop in an expression is not supported"),
            Token::Name("__tera_context") => self.refuse(at, "__tera_context is not supported"),
            Token::Symbol('.') if after_dot => self.refuse(at, "... is not supported"),
            Token::Symbol('~') if in_for => self.refuse(at, "~ is not supported in what a loop walks"),
            Token::Symbol('~') if self.concatenations == MAX_CONCATENATIONS => {
                self.refuse(at, &format!("more than {MAX_CONCATENATIONS} ~"))
            }
            Token::Symbol('~') => {
                self.concatenations += 1;
                Ok(())
            }
            Token::Symbol('{' | '<') if previous != Some(Token::Symbol('<')) && is_opening(&self.source[at..]) => {
                self.refuse(at, "maps and components are not supported")
            }
            _ => Ok(()),
        }
    }
}

/// Whether `rest` begins with what can only be a map or a component: a comparison has space or a value after `<`.
fn is_opening(rest: &str) -> bool {
    rest.starts_with('{')
        || rest
            .strip_prefix('<')
            .is_some_and(|rest| rest.starts_with(char::is_alphabetic))
}

/// The token at the beginning of `rest`, and its length; `None` at the end, also in the middle of a string.
pub(super) fn token(rest: &str) -> Option<(Token<'_>, usize)> {
    let first = rest.chars().next()?;
    if matches!(first, '"' | '\'' | '`') {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return Some((Token::Quoted, index + 1)),
                _ => {}
            }
        }
        return None;
    }
    let name = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    match name {
        0 => Some((Token::Symbol(first), first.len_utf8())),
        length => Some((Token::Name(&rest[..length]), length)),
    }
}
