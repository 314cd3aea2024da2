//! The filters that can make a text or a list, each with a bound; and nothing in place of Tera's functions.

#![allow(clippy::needless_pass_by_value, reason = "Tera hands arguments over by value")]

use std::{collections::BTreeSet, io::Write as _};

use tera::{Error, Kwargs, State, Tera, TeraResult, Value};

use super::tera::Bounded;

/// The longest text that a filter may make, in bytes.
const MAX_TEXT: usize = 4096;
/// The longest list that a filter may be given or make.
const MAX_ITEMS: usize = 100;
/// What every error about a value says that is not there.
pub(super) const ABSENT: &str = "undefined";
/// What every refusal of a size says.
pub(super) const TOO_LARGE: &str = "larger than a template may make it";

/// Replaces Tera's own, as far as they make something.
pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("upper", upper);
    tera.register_filter("lower", lower);
    tera.register_filter("capitalize", capitalize);
    tera.register_filter("title", title);
    tera.register_filter("replace", replace);
    tera.register_filter("truncate", truncate);
    tera.register_filter("str", text);
    tera.register_filter("join", join);
    tera.register_filter("split", split);
    tera.register_filter("sort", sort);
    tera.register_filter("unique", unique);
    tera.register_filter("starting_with", starting_with);
    for function in ["range", "throw"] {
        tera.register_function(function, no_function);
    }
}

fn no_function(_: Kwargs, _: &State) -> TeraResult<Value> {
    Err(Error::message("functions are not supported"))
}

fn too_large(what: &str) -> Error {
    Error::message(format!("{what}: the result is {TOO_LARGE}"))
}

/// `text`, as far as it is no longer than a filter may make it.
fn bounded(what: &str, text: String) -> TeraResult<String> {
    if text.len() > MAX_TEXT {
        return Err(too_large(what));
    }
    Ok(text)
}

fn upper(text: &str, _: Kwargs, _: &State) -> TeraResult<String> {
    bounded("upper", text.to_uppercase())
}

fn lower(text: &str, _: Kwargs, _: &State) -> TeraResult<String> {
    bounded("lower", text.to_lowercase())
}

fn capitalize(text: &str, _: Kwargs, _: &State) -> TeraResult<String> {
    let length = text.chars().next().map_or(0, char::len_utf8);
    let (first, rest) = text.split_at(length);
    bounded("capitalize", first.to_uppercase() + &rest.to_lowercase())
}

/// Each word with a capital; words end at spaces and punctuation, but not at `'`.
fn title(text: &str, _: Kwargs, _: &State) -> TeraResult<String> {
    let mut begins = true;
    let mut titled = String::new();
    for c in text.chars() {
        match c {
            '\'' => titled.push(c),
            _ if c.is_ascii_punctuation() || c.is_whitespace() => {
                titled.push(c);
                begins = true;
            }
            _ if begins => {
                titled.extend(c.to_uppercase());
                begins = false;
            }
            _ => titled.extend(c.to_lowercase()),
        }
    }
    bounded("title", titled)
}

fn replace(text: &str, arguments: Kwargs, _: &State) -> TeraResult<String> {
    let from = arguments.must_get::<&str>("from")?;
    let to = arguments.must_get::<&str>("to")?;
    let length = text.len() + text.matches(from).count().saturating_mul(to.len());
    if length > MAX_TEXT {
        return Err(too_large("replace"));
    }
    Ok(text.replace(from, to))
}

/// The first `length` characters, and `end` where there were more.
fn truncate(text: &str, arguments: Kwargs, _: &State) -> TeraResult<String> {
    let length = arguments.must_get::<usize>("length")?;
    let end = arguments.get::<&str>("end")?.unwrap_or("…");
    match text.char_indices().nth(length) {
        Some((cut, _)) => bounded("truncate", format!("{}{end}", &text[..cut])),
        None => Ok(text.to_owned()),
    }
}

fn text(value: Value, _: Kwargs, _: &State) -> TeraResult<String> {
    written("str", &value)
}

/// `value` as text. One that is not there has none, whatever stands beside it: Tera would write nothing.
fn written(what: &str, value: &Value) -> TeraResult<String> {
    let mut text = Bounded::new(MAX_TEXT);
    write!(text, "{value}").map_err(|_| too_large(what))?;
    // Only now is it known to be small.
    if lacks_something(value) {
        return Err(absent(what));
    }
    Ok(text.into_text())
}

fn absent(what: &str) -> Error {
    Error::message(format!("{what}: a value is {ABSENT}"))
}

/// Whether `value` is a field that is not there, or what a filter gives for an entry that a list does not have.
fn is_absent(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

fn lacks_something(value: &Value) -> bool {
    is_absent(value)
        || value.as_array().is_some_and(|items| items.iter().any(lacks_something))
        || value.as_map().is_some_and(|map| map.values().any(lacks_something))
}

fn join(items: &[Value], arguments: Kwargs, _: &State) -> TeraResult<String> {
    let separator = arguments.get::<&str>("sep")?.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in few("join", items)?.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&written("join", item)?);
        if joined.len() > MAX_TEXT {
            return Err(too_large("join"));
        }
    }
    Ok(joined)
}

fn split(text: &str, arguments: Kwargs, _: &State) -> TeraResult<Vec<String>> {
    let pattern = arguments.must_get::<&str>("pat")?;
    let parts: Vec<_> = text.split(pattern).take(MAX_ITEMS + 1).map(ToOwned::to_owned).collect();
    if parts.len() > MAX_ITEMS {
        return Err(too_large("split"));
    }
    Ok(parts)
}

/// `items`, where there are not too many.
fn few<'v>(what: &str, items: &'v [Value]) -> TeraResult<&'v [Value]> {
    if items.len() > MAX_ITEMS {
        return Err(Error::message(format!("{what}: the list is {TOO_LARGE}")));
    }
    Ok(items)
}

/// `items`, where comparing them with each other costs little.
fn comparable<'v>(what: &str, items: &'v [Value]) -> TeraResult<&'v [Value]> {
    if items.iter().any(is_absent) {
        return Err(absent(what));
    }
    let simple = |item: &Value| item.is_string() || item.is_number() || item.is_bool();
    if !items.iter().all(simple) {
        return Err(Error::message(format!(
            "{what}: the list has more than texts and numbers"
        )));
    }
    few(what, items)
}

fn sort(items: &[Value], _: Kwargs, _: &State) -> TeraResult<Vec<Value>> {
    let mut sorted = comparable("sort", items)?.to_vec();
    sorted.sort();
    Ok(sorted)
}

fn unique(items: &[Value], _: Kwargs, _: &State) -> TeraResult<Vec<Value>> {
    let mut seen = BTreeSet::new();
    let items = comparable("unique", items)?.iter();
    Ok(items.filter(|item| seen.insert(*item)).cloned().collect())
}

/// The texts of a list that begin with `pat`.
fn starting_with(items: &[Value], arguments: Kwargs, _: &State) -> TeraResult<Vec<Value>> {
    let pattern = arguments.must_get::<&str>("pat")?;
    let items = few("starting_with", items)?.iter();
    let begins = |item: &&Value| item.as_str().is_some_and(|text| text.starts_with(pattern));
    Ok(items.filter(begins).cloned().collect())
}
