//! The calls of functions.

use std::{borrow::Cow, cmp::Ordering};

use crate::{
    error::EvalError,
    fmt::Printer,
    parse::ast::Function,
    value::{List, Value},
};

impl Function {
    /// Whether the function does not evaluate its arguments after `argument`.
    pub(crate) fn stops_at(self, argument: &Value<'_>) -> bool {
        match self {
            Self::And => !argument.truth(),
            Self::Or => argument.truth(),
            _ => false,
        }
    }

    /// Calls the function with as many arguments as [`Self::check_count`] allows.
    pub(crate) fn call(self, mut arguments: Vec<Value<'_>>, printer: Printer) -> Result<Value<'_>, EvalError> {
        match self {
            Self::Print | Self::Println | Self::Printf => return self.print(&arguments, printer),
            Self::And | Self::Or => return Ok(arguments.pop().unwrap_or(Value::Missing)),
            _ => {}
        }
        let rest = arguments.split_off(1.min(arguments.len()));
        let first = arguments.pop().unwrap_or(Value::Missing).unwrapped();
        let second = rest.first().unwrap_or(&Value::Missing);
        Ok(match self {
            Self::Not => Value::Bool(!first.truth()),
            Self::Len => Value::Int(length(&first)?),
            Self::Index => index(first, &rest)?,
            Self::Slice => slice(first, &rest)?,
            Self::Eq => Value::Bool(any_equal(&first, &rest)?),
            Self::Ne => Value::Bool(!any_equal(&first, &rest)?),
            Self::Lt => Value::Bool(less(&first, second)?),
            Self::Le => Value::Bool(less_or_equal(&first, second)?),
            Self::Gt => Value::Bool(!less_or_equal(&first, second)?),
            Self::Ge => Value::Bool(!less(&first, second)?),
            Self::And | Self::Or | Self::Print | Self::Println | Self::Printf => first,
        })
    }

    fn print<'a>(self, arguments: &[Value<'a>], mut printer: Printer) -> Result<Value<'a>, EvalError> {
        match (self, arguments) {
            (Self::Printf, [Value::Text(format), arguments @ ..]) => printer.printf(format, arguments)?,
            (Self::Printf, [first, ..]) if first.is_nothing() => {
                return Err(EvalError::missing("printf: the format is not there"));
            }
            (Self::Printf, _) => return Err(EvalError::misuse("printf: the format is no string")),
            (Self::Println, arguments) => printer.println(arguments)?,
            (_, arguments) => printer.print(arguments)?,
        }
        Ok(Value::Text(Cow::Owned(printer.into_bytes())))
    }
}

/// The error for a `value` of the wrong type; `missing` if there is none.
fn unsuitable(value: &Value<'_>, missing: &str, wrong_type: &str) -> EvalError {
    if value.is_nothing() {
        EvalError::missing(missing)
    } else {
        EvalError::misuse(format!("{wrong_type} {}", value.type_name()))
    }
}

fn length(value: &Value<'_>) -> Result<i64, EvalError> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.length,
        Value::Map(map) => map.len(),
        other => return Err(unsuitable(other, "len of what is not there", "len of type")),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

/// `item[index][index]…`
fn index<'a>(mut item: Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let missing = "index of what is not there";
    if item.is_nothing() {
        return Err(EvalError::missing(missing));
    }
    for index in indexes {
        item = match (&item, index) {
            (Value::Text(text), _) => {
                let at = position(index, text.len())?;
                Value::Byte(*text.get(at).ok_or_else(|| out_of_range(at))?)
            }
            (Value::List(list), _) => {
                let at = position(index, list.length)?;
                Value::of(list.items().get(at).ok_or_else(|| out_of_range(at))?)
            }
            (Value::Map(map), Value::Text(key)) => {
                let key = std::str::from_utf8(key).ok();
                key.and_then(|key| map.get(key)).map_or(Value::Nil, Value::of)
            }
            (Value::Map(_), other) => {
                return Err(unsuitable(
                    other,
                    "index: the key is not there",
                    "a map has no keys of type",
                ));
            }
            (other, _) => return Err(unsuitable(other, missing, "can't index item of type")),
        };
    }
    Ok(item)
}

/// `item[i:j:k]`
fn slice<'a>(item: Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (length, capacity) = match &item {
        Value::Text(_) if indexes.len() == 3 => return Err(EvalError::misuse("cannot 3-index slice a string")),
        Value::Text(text) => (text.len(), text.len()),
        Value::List(list) => (list.length, list.backing.len()),
        other => {
            return Err(unsuitable(
                other,
                "slice of what is not there",
                "can't slice item of type",
            ));
        }
    };
    if indexes.len() > 3 {
        return Err(EvalError::misuse(format!("too many slice indexes: {}", indexes.len())));
    }
    let mut bounds = [0, length, capacity];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, capacity)?;
    }
    let [from, to, end] = bounds;
    if from > to || to > end {
        return Err(EvalError::misuse(format!("invalid slice index: {from} > {to}")));
    }
    Ok(match item {
        Value::Text(Cow::Borrowed(text)) => Value::Text(Cow::Borrowed(&text[from..to])),
        Value::Text(Cow::Owned(text)) => Value::Text(Cow::Owned(text[from..to].to_vec())),
        Value::List(list) => Value::List(List {
            backing: &list.backing[from..end],
            length: to - from,
        }),
        other => other,
    })
}

/// `index` as a position that is at most `end`.
fn position(index: &Value<'_>, end: usize) -> Result<usize, EvalError> {
    let wrong = || unsuitable(index, "an index is not there", "cannot index with type");
    let index = index.integer().ok_or_else(wrong)?;
    usize::try_from(index)
        .ok()
        .filter(|index| *index <= end)
        .ok_or_else(|| out_of_range(index))
}

/// The error of an index outside its list or text.
fn out_of_range(index: impl std::fmt::Display) -> EvalError {
    EvalError::missing(format!("index out of range: {index}"))
}

/// `first == other` for any of `others`.
fn any_equal(first: &Value<'_>, others: &[Value<'_>]) -> Result<bool, EvalError> {
    if others.is_empty() {
        return Err(EvalError::misuse("missing argument for comparison"));
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A missing value equals only a missing value; lists and maps can be compared only with missing values.
#[allow(clippy::float_cmp, reason = "as Go does")]
fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (Value::Missing | Value::Nil, b) => b.is_nothing(),
        (_, Value::Missing | Value::Nil) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        _ => ordering(a, b)? == Ordering::Equal,
    })
}

/// `a < b`
fn less(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        _ => Ok(ordering(a, b)? == Ordering::Less),
    }
}

/// `a <= b`: as Go does it, less or equal, which is not the same for what is not a number.
fn less_or_equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    Ok(less(a, b)? || equal(a, b)?)
}

fn ordering(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    if let (Value::Text(a), Value::Text(b)) = (a, b) {
        return Ok(a.cmp(b));
    }
    if let (Some(a), Some(b)) = (a.integer(), b.integer()) {
        return Ok(a.cmp(&b));
    }
    if a.is_nothing() || b.is_nothing() {
        return Err(EvalError::missing("there is nothing to compare"));
    }
    let (a, b) = (a.type_name(), b.type_name());
    Err(EvalError::misuse(format!("cannot compare {a} and {b}")))
}
