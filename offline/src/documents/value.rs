//! Reads one value as kubectl does, which turns YAML into JSON with Go's rules: a whole float is an integer, keys of every type become
//! text, and of several values under one key the last one counts.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Error, Options, budget::BudgetBreach};

use super::UnreadableDocument;

/// The deepest nesting, as `serde_json` limits it.
const MAX_DEPTH: usize = 64;

/// How many nodes aliases may add to those of the text.
const MAX_REPLAYED: usize = 1_000_000;

/// How many bytes aliases may add to those of the text.
const MAX_REPLAYED_BYTES: usize = 64 * 1024 * 1024;

/// Above this a whole number is written with an exponent by Go.
const MAX_WHOLE: f64 = 1e21;

/// A value, and the fields in it that are set more than once, such as `spec.type`.
#[derive(Debug, Default)]
pub(crate) struct ReadValue {
    pub(crate) value: Value,
    pub(super) duplicates: Vec<String>,
}

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seed = ValueSeed::default();
        let value = (&seed).deserialize(deserializer)?;
        let duplicates = seed.duplicates.into_inner();
        Ok(Self { value, duplicates })
    }
}

/// Reads `text`, a YAML document. The file of the error is empty.
pub(super) fn of_yaml(text: &str) -> Result<ReadValue, UnreadableDocument> {
    typed(text)
}

/// Reads the first JSON value of `text`, and the number of bytes up to its end.
pub(super) fn of_json(text: &str) -> Result<(ReadValue, usize), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = ReadValue::deserialize(&mut deserializer)?;
    Ok((read, deserializer.into_iter::<Value>().byte_offset()))
}

/// Reads `text`, a YAML document, as `T`. The file of the error is empty.
pub(crate) fn typed<T: DeserializeOwned>(text: &str) -> Result<T, UnreadableDocument> {
    serde_saphyr::from_str_with_options(text, options(text)).map_err(|error| yaml_error(&error))
}

/// As much as kubectl reads, for a document of any size: comments are not kept, so that no number of them is too many, and only what
/// aliases add is limited.
fn options(text: &str) -> Options {
    let nodes = text.len().saturating_add(MAX_REPLAYED);
    serde_saphyr::options! {
        with_snippet: false,
        legacy_octal_numbers: true,
        emit_comments: false,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: nodes,
            max_nodes: nodes,
            max_aliases: MAX_REPLAYED,
            max_anchors: MAX_REPLAYED,
            max_merge_keys: MAX_REPLAYED,
            max_total_scalar_bytes: text.len().saturating_add(MAX_REPLAYED_BYTES),
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
    }
}

fn yaml_error(error: &serde_saphyr::Error) -> UnreadableDocument {
    let at = error.location();
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    UnreadableDocument {
        file: String::new(),
        line: at.map(|at| number(at.line())),
        column: at.map(|at| number(at.column())),
        message: message(error),
    }
}

/// The message without the location. Those that speak of the parser are replaced.
fn message(error: &serde_saphyr::Error) -> String {
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => message(error),
        Error::MultipleDocuments { .. } => {
            "text after the end of the document; a line with --- begins the next one".to_owned()
        }
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => "a list is expected".to_owned(),
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => "a mapping is expected".to_owned(),
        Error::NonFiniteFloat { value, .. } => format!("{value} is no number of JSON"),
        Error::InvalidScalar { .. } => "the value does not have the type of its tag".to_owned(),
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => format!("nested more than {MAX_DEPTH} levels deep"),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => "its aliases make it too large".to_owned(),
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            text.split(" at line ").next().unwrap_or(text).trim().to_owned()
        }
    }
}

/// Where a value is, and which fields have been set more than once.
#[derive(Default)]
struct ValueSeed {
    path: RefCell<Vec<String>>,
    duplicates: RefCell<Vec<String>>,
}

impl ValueSeed {
    fn within<T>(&self, step: String, read: impl FnOnce() -> T) -> T {
        self.path.borrow_mut().push(step);
        let read = read();
        self.path.borrow_mut().pop();
        read
    }
}

impl<'de> DeserializeSeed<'de> for &ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        number(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is no number of JSON")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = self.within(format!("[{}]", items.len()), || access.next_element_seed(self))? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = access.next_key_seed(self)? {
            let key = match key {
                Value::String(key) => key,
                Value::Number(_) | Value::Bool(_) => key.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(A::Error::custom(format!("a key is text, not {key}")));
                }
            };
            let value = self.within(key.clone(), || access.next_value_seed(self))?;
            if fields.contains_key(&key) {
                let path = self.path.borrow();
                let path = path.iter().chain([&key]).map(String::as_str).collect::<Vec<_>>();
                self.duplicates.borrow_mut().push(path.join(".").replace(".[", "["));
            }
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

/// The number as Go writes it: a whole one as an integer.
fn number(value: f64) -> Option<Number> {
    if value.fract() == 0.0
        && value.abs() < MAX_WHOLE
        && let Ok(whole) = format!("{value}").parse::<Number>()
    {
        return Some(whole);
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Value {
        of_yaml(text).unwrap().value
    }

    /// kubectl 1.36 converts these to the same JSON.
    #[test]
    fn scalars_are_read_as_by_kubectl() {
        for (scalar, wanted) in [
            ("y", json!(true)),
            ("Yes", json!(true)),
            ("on", json!(true)),
            ("OFF", json!(false)),
            ("n", json!(false)),
            ("TRUE", json!(true)),
            ("~", json!(null)),
            ("Null", json!(null)),
            ("0812", json!(812)),
            ("08", json!(8)),
            ("0123", json!(83)),
            ("-017", json!(-15)),
            ("00", json!(0)),
            ("0x1F", json!(31)),
            ("-0x1F", json!(-31)),
            ("0b11", json!(3)),
            ("0o17", json!(15)),
            ("0b", json!("0b")),
            ("1_000", json!(1000)),
            (".5", json!(0.5)),
            ("1.", json!(1)),
            ("+7", json!(7)),
            ("-0", json!(0)),
            ("3.0", json!(3)),
            ("12e4", json!(120_000)),
            ("1E+2", json!(100)),
            ("1e-7", json!(1e-7)),
            ("6.02e23", json!(6.02e23)),
            ("12:30", json!("12:30")),
            ("2026-11-20", json!("2026-11-20")),
            ("1,000", json!("1,000")),
            ("1e5x", json!("1e5x")),
            ("=", json!("=")),
            ("\"3.0\"", json!("3.0")),
            ("!!str 7", json!("7")),
            ("!!int \"7\"", json!(7)),
        ] {
            assert_eq!(yaml(&format!("a: {scalar}"))["a"], wanted, "{scalar}");
        }
    }

    #[test]
    fn keys_of_every_type_are_text() {
        let read = yaml("{on: 1, 1: 2, 1.5: 3, 2026-01-01: 4, 0x10: 5, 010: 6}");
        assert_eq!(
            read,
            json!({"true": 1, "1": 2, "1.5": 3, "2026-01-01": 4, "16": 5, "8": 6})
        );
        assert!(of_yaml("{~: 1}").is_err() && of_yaml("{[a]: 1}").is_err());
    }

    #[test]
    fn the_last_of_several_values_counts() {
        for text in [
            "a: [{b: 1, b: 2}]\nc: 1\nc: 2\n",
            r#"{"a": [{"b": 1, "b": 2}], "c": 1, "c": 2}"#,
        ] {
            let read = of_yaml(text).unwrap();
            assert_eq!(read.value, json!({"a": [{"b": 2}], "c": 2}));
            assert_eq!(read.duplicates, ["a[0].b", "c"], "{text}");
        }
        assert_eq!(of_json(r#"{"a": 1, "a": 2} "#).unwrap().0.duplicates, ["a"]);
    }

    #[test]
    fn comments_aliases_and_size_have_no_limit_of_their_own() {
        let comments = "# note\n".repeat(1_000);
        assert_eq!(yaml(&format!("a:\n{comments}- b\n{comments}")), json!({"a": ["b"]}));
        let aliases = "- *a\n".repeat(1_000);
        assert_eq!(
            yaml(&format!("- &a {{b: 1}}\n{aliases}")).as_array().unwrap().len(),
            1_001
        );
        let many = "- a: 1\n".repeat(300_000);
        assert_eq!(yaml(&many).as_array().unwrap().len(), 300_000);
    }

    #[test]
    fn a_text_that_would_fill_the_memory_or_the_stack_is_an_error() {
        let level = |level: usize| {
            let below = format!("*a{level}, ").repeat(9);
            format!("a{0}: &a{0} [{below}]", level + 1)
        };
        let levels: Vec<_> = (0..12).map(level).collect();
        let bomb = format!("a0: &a0 [x]\n{}\n", levels.join("\n"));
        assert_eq!(of_yaml(&bomb).unwrap_err().message, "its aliases make it too large");
        let long = format!("- &a {}\n{}", "x".repeat(1 << 20), "- *a\n".repeat(100));
        assert!(of_yaml(&long).is_err());
        let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(of_yaml(&deep).is_err() && of_json(&deep[3..]).is_err());
        let deep: Vec<_> = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert_eq!(
            of_yaml(&deep.concat()).unwrap_err().message,
            "nested more than 64 levels deep"
        );
    }

    #[test]
    fn messages_are_about_the_text() {
        for (text, wanted) in [
            (
                "a: b\n...\nc: d",
                "text after the end of the document; a line with --- begins the next one",
            ),
            ("a: .inf", ".inf is no number of JSON"),
            ("a: !!int x", "the value does not have the type of its tag"),
            ("a: *x", "alias references unknown anchor"),
            ("a: {{ .Values.x }}", "a key is text, not {\".Values.x\":null}"),
        ] {
            assert_eq!(of_yaml(text).unwrap_err().message, wanted, "{text}");
        }
    }
}
