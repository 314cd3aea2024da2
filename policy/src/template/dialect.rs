//! What a Tera template may consist of: expressions, filters, `if`, `elif` and `else`. Nothing binds a name and nothing
//! loops, so that a template runs each of its operations at most once.
//!
//! Tera gives away neither its tokens nor its syntax tree, and a second lexer may disagree with Tera's about where a comment or
//! a text ends. This check has no lexer: it looks at bytes, wherever they stand, also in comments, texts and `raw`. It
//! refuses too much rather than too little. That it refuses enough follows from how Tera reads a template:
//!
//! - Every tag begins with the bytes `{%`, then `-` or not, spaces, and a word. Behind every `{%` of the source, this word has to
//!   be one of [`TAGS`]. So there is no `set`, `for`, `block`, `filter`, `component`, `include`, `extends` or `raw`, whatever
//!   Tera takes for text.
//! - A list comprehension is `[`, an expression, and the four tokens `for x in` or six `for x, y in`, between which Tera skips
//!   nothing but spaces. A template with those bytes behind a `[` is refused.
//! - `~` joins two operands, of which the left one ends right before it, spaces aside. Such a `~` is refused: texts that are
//!   quoted in lists, joined, and quoted again would double each time. `[a, b] | join(sep="")` does the same, within bounds.
//! - A filter is `|`, spaces and a name. Each `|` with a name behind it has to name one of [`FILTERS`], and there are at most
//!   [`MAX_FILTERS`].
//! - Components would have to be defined, and Tera's two functions are replaced by ones that fail (`filters.rs`).
//!
//! What is left cannot lengthen a text: `+ - * / // % **` take numbers alone, slices only cut, lists and maps share their
//! entries and are written out only into a bounded output, and every filter that makes texts or lists is bounded
//! (`filters.rs`). With texts of at most 4 KiB in a [`Context`](super::Context), a render takes no more than a constant for each
//! byte of its source: that is its cost.

use super::{BASE_COST, MAX_SOURCE, at, too_long};

/// The words that a tag may begin with.
const TAGS: [&str; 4] = ["if", "elif", "else", "endif"];
/// The filters that there are.
pub(super) const FILTERS: &str = "\
    abs capitalize default first float get int join keys last length lower nth pluralize replace reverse \
    round safe sort split starting_with str title trim trim_end trim_start truncate unique upper values \
    wordcount";
/// How many filters a template may have.
const MAX_FILTERS: u32 = 16;
/// What a filter costs more than its length.
const FILTER_COST: u32 = 32;

/// Refuses by name what is not allowed in `source`, with line and column; what a render of the rest costs.
pub(super) fn check(source: &str) -> Result<u32, String> {
    if source.len() > MAX_SOURCE {
        return Err(too_long());
    }
    let bytes = source.as_bytes();
    let refuse = |position: usize, message: &str| Err(at(source, position, message));
    let mut filters = 0;
    let mut bracket = false;
    // Nothing is read as an expression before the first of these.
    let begin = ["{{", "{%"].iter().filter_map(|opening| source.find(opening)).min();
    for position in begin.unwrap_or(bytes.len())..bytes.len() {
        let rest = &bytes[position..];
        match rest[0] {
            b'{' if rest.get(1) == Some(&b'%') => {
                let body = tag_body(&rest[2..]);
                let tag = word(body);
                if !TAGS.contains(&tag) {
                    let tag = if tag.is_empty() { "" } else { &format!(" {tag} ") };
                    let message = format!("{{%{tag}%}} is not supported; there are if, elif and else");
                    return refuse(bytes.len() - body.len(), &message);
                }
            }
            b'[' => bracket = true,
            b'f' if bracket && !ends_word(&bytes[..position]) && is_comprehension(rest) => {
                return refuse(
                    position,
                    "for … in is not supported: there are no loops, only filters of lists",
                );
            }
            b'~' if ends_operand(&bytes[..position]) => {
                return refuse(
                    position,
                    "~ is not supported; write {{ a }}{{ b }} or [a, b] | join(sep=\"\")",
                );
            }
            b'|' => {
                filters += 1;
                let body = spaceless(&rest[1..]);
                let name = word(body);
                if !name.is_empty() && !FILTERS.split_whitespace().any(|filter| filter == name) {
                    let message = format!("the filter {name} is not supported; in texts, | is {{{{ \"|\" }}}}");
                    return refuse(bytes.len() - body.len(), &message);
                }
                if filters > MAX_FILTERS {
                    return refuse(position, &format!("more than {MAX_FILTERS} filters"));
                }
            }
            b'_' if rest.starts_with(b"__tera") => return refuse(position, "__tera… is not supported"),
            b'r' | b't' if matches!(word(rest), name @ ("range" | "throw") if is_call(rest, name)) => {
                return refuse(position, "functions are not supported");
            }
            _ => {}
        }
    }
    let length = u32::try_from(source.len()).unwrap_or(u32::MAX);
    Ok(BASE_COST + length + filters * FILTER_COST)
}

/// What follows `{%` and the `-` that may be there.
fn tag_body(bytes: &[u8]) -> &[u8] {
    spaceless(bytes.strip_prefix(b"-").unwrap_or(bytes))
}

/// `bytes` without what Tera skips between tokens.
fn spaceless(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

/// The name, as Tera reads one, at the beginning of `bytes`; empty if there is none.
fn word(bytes: &[u8]) -> &str {
    let length = match bytes.first() {
        Some(first) if is_letter(*first) => bytes.iter().take_while(|byte| is_of_word(**byte)).count(),
        _ => 0,
    };
    std::str::from_utf8(&bytes[..length]).unwrap_or_default()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `before` ends in the middle of a name. Behind a digit a name may begin: `1for` is two tokens.
fn ends_word(before: &[u8]) -> bool {
    before.last().is_some_and(|byte| is_letter(*byte))
}

/// Whether an operand may end where `before` does.
fn ends_operand(before: &[u8]) -> bool {
    let last = before.trim_ascii_end().last();
    last.is_some_and(|byte| is_of_word(*byte) || b")]}.\"'`".contains(byte))
}

/// Whether `bytes` begin with `for x in` or `for x, y in`.
fn is_comprehension(bytes: &[u8]) -> bool {
    if word(bytes) != "for" {
        return false;
    }
    let Some(rest) = after_name(spaceless(&bytes[3..])) else {
        return false;
    };
    let rest = match rest.strip_prefix(b",") {
        Some(rest) => after_name(spaceless(rest)),
        None => Some(rest),
    };
    rest.is_some_and(|rest| word(rest) == "in")
}

fn after_name(bytes: &[u8]) -> Option<&[u8]> {
    let name = word(bytes);
    (!name.is_empty()).then(|| spaceless(&bytes[name.len()..]))
}

fn is_call(bytes: &[u8], name: &str) -> bool {
    spaceless(&bytes[name.len()..]).first() == Some(&b'(')
}
