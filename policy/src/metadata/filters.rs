//! Tera's filters and functions that can make much out of little, with bounds.

#![allow(clippy::needless_pass_by_value, reason = "Tera hands arguments over by value")]

use std::io::Write as _;

use tera::{Error, Kwargs, State, Tera, TeraResult, Value};

use crate::bounded::Bounded;

/// The longest text that a filter may make, in bytes.
const MAX_TEXT: usize = 4096;
/// The longest list that a filter or function may make.
const MAX_ITEMS: usize = 100;
/// What every refusal here says.
pub(super) const TOO_LARGE: &str = "larger than a template may make it";

/// Replaces Tera's own by bounded ones.
pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("replace", replace);
    tera.register_filter("join", join);
    tera.register_filter("split", split);
    tera.register_filter("str", text);
    tera.register_function("range", range);
}

fn too_large(what: &str) -> Error {
    Error::message(format!("{what}: the result is {TOO_LARGE}"))
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

fn join(items: &[Value], arguments: Kwargs, _: &State) -> TeraResult<String> {
    let separator = arguments.get::<&str>("sep")?.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&item.to_string());
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

fn text(value: Value, _: Kwargs, _: &State) -> TeraResult<String> {
    let mut text = Bounded::new(MAX_TEXT);
    write!(text, "{value}").map_err(|_| too_large("str"))?;
    Ok(text.into_text())
}

fn range(arguments: Kwargs, _: &State) -> TeraResult<Vec<i64>> {
    let start = arguments.get::<i64>("start")?.unwrap_or(0);
    let end = arguments.must_get::<i64>("end")?;
    let step = arguments.get::<i64>("step_by")?.unwrap_or(1);
    let step = usize::try_from(step).ok().filter(|step| *step > 0);
    let step = step.ok_or_else(|| Error::message("range: step_by has to be positive"))?;
    let numbers: Vec<_> = (start..end).step_by(step).take(MAX_ITEMS + 1).collect();
    if numbers.len() > MAX_ITEMS {
        return Err(too_large("range"));
    }
    Ok(numbers)
}
