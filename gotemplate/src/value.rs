//! The values in a template: those of the data, and results of functions.
//!
//! Imports nothing of this crate. Called by `exec` and `fmt`.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

/// A value, as Go's `reflect.Value`.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    /// Missing: a key that a map does not have.
    Missing,
    /// Present, and `nil`.
    Nil,
    Bool(bool),
    Int(i64),
    /// A byte of a string, which `index` gives.
    Byte(u8),
    Float(f64),
    /// Go's strings are bytes.
    Text(Cow<'a, [u8]>),
    List(List<'a>),
    Map(&'a Map<String, Json>),
}

/// A list or a part of one. As in Go, a slice of a slice may reach beyond the end of the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    /// Up to the capacity.
    pub(crate) backing: &'a [Json],
    pub(crate) length: usize,
}

impl<'a> List<'a> {
    pub(crate) fn items(self) -> &'a [Json] {
        &self.backing[..self.length]
    }
}

impl<'a> Value<'a> {
    pub(crate) fn of(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(int) => Self::Int(int),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(Cow::Borrowed(text.as_bytes())),
            Json::Array(items) => Self::List(List {
                backing: items,
                length: items.len(),
            }),
            Json::Object(map) => Self::Map(map),
        }
    }

    /// The value without its interface: `nil` in an interface is a missing value.
    pub(crate) fn unwrapped(self) -> Self {
        match self {
            Self::Nil => Self::Missing,
            value => value,
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Missing | Self::Nil)
    }

    /// The value as an integer, if it is one.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Byte(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// Whether the value is true for `if`: not the zero value of its type.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Byte(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => list.length > 0,
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// The type as Go prints it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// The number of bytes that a copy of the value takes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Text(Cow::Owned(text)) => text.len(),
            _ => 0,
        }
    }
}

/// The entries of `map` in the order of Go.
pub(crate) fn sorted(map: &Map<String, Json>) -> Vec<(&String, &Json)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_bytes());
    entries
}
