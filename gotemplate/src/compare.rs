//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`.

use std::cmp::Ordering;

use crate::{error::Fault, value::Value};

/// `first == other` for any of `others`.
pub(crate) fn any_equal(first: &Value<'_>, others: &[Value<'_>]) -> Result<bool, Fault> {
    if others.is_empty() {
        return Err(Fault::misuse("missing argument for comparison"));
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nothing equals only nothing; lists and maps can be compared with nothing only.
#[allow(clippy::float_cmp, reason = "as Go does")]
fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fault> {
    Ok(match (a, b) {
        (Value::Missing | Value::Nil, b) => b.is_nothing(),
        (_, Value::Missing | Value::Nil) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        _ => ordering(a, b)? == Ordering::Equal,
    })
}

/// `a < b`
pub(crate) fn less(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fault> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        _ => Ok(ordering(a, b)? == Ordering::Less),
    }
}

/// `a <= b`: as Go does it, less or equal, which is not the same for what is not a number.
pub(crate) fn less_or_equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fault> {
    Ok(less(a, b)? || equal(a, b)?)
}

fn ordering(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Fault> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => return Ok(a.as_ref().cmp(b.as_ref())),
        (a, b) => {
            if let (Some(a), Some(b)) = (integer(a), integer(b)) {
                return Ok(a.cmp(&b));
            }
        }
    }
    if a.is_nothing() || b.is_nothing() {
        return Err(Fault::missing("there is nothing to compare"));
    }
    let (a, b) = (a.type_name(), b.type_name());
    Err(Fault::misuse(format!("cannot compare {a} and {b}")))
}

fn integer(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Byte(value) => Some(i64::from(*value)),
        _ => None,
    }
}
