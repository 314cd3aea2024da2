//! The functions that templates may call.

use std::borrow::Cow;

use crate::{
    compare,
    error::Fault,
    print::Printer,
    value::{List, Value},
};

/// A function by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    And,
    Or,
    Not,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Function {
    /// The function `name`. Errors with why there is none.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "len" => Self::Len,
            "index" => Self::Index,
            "slice" => Self::Slice,
            "print" => Self::Print,
            "printf" => Self::Printf,
            "println" => Self::Println,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "html" | "js" | "urlquery" => {
                return Err(format!(
                    "function {name:?} is not supported: nothing here is a web page"
                ));
            }
            "call" => return Err("function \"call\" is not supported: the data has no functions".into()),
            _ => return Err(format!("function {name:?} not defined")),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Len => "len",
            Self::Index => "index",
            Self::Slice => "slice",
            Self::Print => "print",
            Self::Printf => "printf",
            Self::Println => "println",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
        }
    }

    /// The least and the greatest number of arguments.
    pub(crate) fn arity(self) -> (usize, usize) {
        match self {
            Self::Not | Self::Len => (1, 1),
            Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge => (2, 2),
            Self::Print | Self::Println => (0, usize::MAX),
            Self::And | Self::Or | Self::Index | Self::Slice | Self::Printf | Self::Eq => (1, usize::MAX),
        }
    }

    /// Calls the function with as many arguments as [`Self::arity`] allows. `and` and `or` do not evaluate all of their
    /// arguments and are not called here but for the last one.
    pub(crate) fn call(self, mut arguments: Vec<Value<'_>>, printer: Printer) -> Result<Value<'_>, Fault> {
        if matches!(self, Self::Print | Self::Println | Self::Printf) {
            return self
                .print(&arguments, printer)
                .map(|text| Value::Text(Cow::Owned(text)));
        }
        let rest = arguments.split_off(1.min(arguments.len()));
        let first = arguments.pop().unwrap_or(Value::Missing).unwrapped();
        let second = rest.first().unwrap_or(&Value::Missing);
        Ok(match self {
            Self::Not => Value::Bool(!first.truth()),
            Self::Len => Value::Int(length(&first)?),
            Self::Index => index(first, &rest)?,
            Self::Slice => slice(first, &rest)?,
            Self::Eq => Value::Bool(compare::any_equal(&first, &rest)?),
            Self::Ne => Value::Bool(!compare::any_equal(&first, &rest)?),
            Self::Lt => Value::Bool(compare::less(&first, second)?),
            Self::Le => Value::Bool(compare::less_or_equal(&first, second)?),
            Self::Gt => Value::Bool(!compare::less_or_equal(&first, second)?),
            Self::Ge => Value::Bool(!compare::less(&first, second)?),
            Self::And | Self::Or | Self::Print | Self::Println | Self::Printf => first,
        })
    }

    fn print(self, arguments: &[Value<'_>], mut printer: Printer) -> Result<Vec<u8>, Fault> {
        match (self, arguments) {
            (Self::Printf, [Value::Text(format), arguments @ ..]) => printer.printf(format, arguments)?,
            (Self::Printf, [first, ..]) if first.is_nothing() => {
                return Err(Fault::missing("printf: the format is not there"));
            }
            (Self::Printf, _) => return Err(Fault::misuse("printf: the format is no string")),
            (Self::Println, arguments) => printer.println(arguments)?,
            (_, arguments) => printer.print(arguments)?,
        }
        Ok(printer.into_bytes())
    }
}

fn length(value: &Value<'_>) -> Result<i64, Fault> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.length,
        Value::Map(map) => map.len(),
        Value::Missing | Value::Nil => return Err(Fault::missing("len of what is not there")),
        other => return Err(Fault::misuse(format!("len of type {}", other.type_name()))),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

/// `item[index][index]…`
fn index<'a>(mut item: Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    if item.is_nothing() {
        return Err(Fault::missing("index of what is not there"));
    }
    for index in indexes {
        item = match &item {
            Value::Text(text) => {
                let at = position(index, text.len())?;
                let byte = text.get(at).ok_or_else(|| out_of_range(at))?;
                Value::Byte(*byte)
            }
            Value::List(list) => {
                let at = position(index, list.length)?;
                Value::of(list.items().get(at).ok_or_else(|| out_of_range(at))?)
            }
            Value::Map(map) => match index {
                Value::Text(key) => std::str::from_utf8(key)
                    .ok()
                    .and_then(|key| map.get(key))
                    .map_or(Value::Nil, Value::of),
                Value::Missing | Value::Nil => return Err(Fault::missing("index: the key is not there")),
                other => {
                    return Err(Fault::misuse(format!(
                        "a map has no keys of type {}",
                        other.type_name()
                    )));
                }
            },
            Value::Missing | Value::Nil => return Err(Fault::missing("index of what is not there")),
            other => return Err(Fault::misuse(format!("can't index item of type {}", other.type_name()))),
        };
    }
    Ok(item)
}

/// `item[i:j:k]`
fn slice<'a>(item: Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (length, capacity) = match &item {
        Value::Text(_) if indexes.len() == 3 => return Err(Fault::misuse("cannot 3-index slice a string")),
        Value::Text(text) => (text.len(), text.len()),
        Value::List(list) => (list.length, list.backing.len()),
        Value::Missing | Value::Nil => return Err(Fault::missing("slice of what is not there")),
        other => return Err(Fault::misuse(format!("can't slice item of type {}", other.type_name()))),
    };
    if indexes.len() > 3 {
        return Err(Fault::misuse(format!("too many slice indexes: {}", indexes.len())));
    }
    let mut bounds = [0, length, capacity];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, capacity)?;
    }
    let [from, to, end] = bounds;
    if from > to || to > end {
        return Err(Fault::misuse(format!("invalid slice index: {from} > {to}")));
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
fn position(index: &Value<'_>, end: usize) -> Result<usize, Fault> {
    let index = match index {
        Value::Int(index) => *index,
        Value::Byte(index) => i64::from(*index),
        Value::Missing | Value::Nil => return Err(Fault::missing("an index is not there")),
        other => return Err(Fault::misuse(format!("cannot index with type {}", other.type_name()))),
    };
    usize::try_from(index)
        .ok()
        .filter(|index| *index <= end)
        .ok_or_else(|| out_of_range(index))
}

/// What an index asks for is not there.
fn out_of_range(index: impl std::fmt::Display) -> Fault {
    Fault::missing(format!("index out of range: {index}"))
}
