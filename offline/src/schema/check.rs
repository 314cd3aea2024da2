//! A value against a structural schema: types, ranges, lengths, patterns, enums, required fields; then the CEL rules.
//!
//! Of an update the value that was there before goes along. What the API server cannot tell to be the same value, an item
//! of a list without keys, counts as new.

use serde_json::{Number, Value};

use super::{Compiled, Flaw, join};
use crate::expression::Variables;

/// Adds everything that is wrong with `value`, but for the CEL rules. Nothing is wrong with what is as it was.
pub(super) fn check(
    path: &str,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    compiled: &Compiled,
    flaws: &mut Vec<Flaw>,
) {
    if value.is_null() && schema["nullable"] == Value::Bool(true) || old == Some(value) {
        return;
    }
    if let Some(wanted) = wrong_type(schema, value) {
        let kind = type_of(value);
        let message = format!("Invalid value: {kind:?}: {path} in body must be of type {wanted}: {kind:?}");
        flaws.push(Flaw::blocking(path, message));
        return;
    }
    let supported = schema["enum"].as_array();
    if let Some(supported) = supported.filter(|supported| !supported.contains(value)) {
        let supported: Vec<_> = supported.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        flaws.push(Flaw::blocking(path, message));
    }
    match value {
        Value::String(text) => check_text(path, schema, text, compiled, flaws),
        Value::Number(number) => check_number(path, schema, number, flaws),
        Value::Array(items) => check_count(path, schema, items.len(), ("minItems", "maxItems"), flaws),
        Value::Object(fields) => {
            check_count(path, schema, fields.len(), ("minProperties", "maxProperties"), flaws);
            let required = schema["required"].as_array().into_iter().flatten();
            for field in required
                .filter_map(Value::as_str)
                .filter(|field| !fields.contains_key(*field))
            {
                flaws.push(Flaw::blocking(join(path, field), "Required value".to_owned()));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    below(path, schema, value, old, &mut |path, schema, value, old| {
        check(path, schema, value, old, compiled, flaws);
    });
}

/// Is told of a value: its path, its schema, itself, what it was before.
type Visit<'a> = dyn FnMut(&str, &Value, &Value, Option<&Value>) + 'a;

/// Calls `visit` for everything directly in `value` that the schema describes.
fn below(path: &str, schema: &Value, value: &Value, old: Option<&Value>, visit: &mut Visit<'_>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(schema, item, old));
                visit(&format!("{path}[{index}]"), &schema["items"], item, old);
            }
        }
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            for (field, value) in fields {
                let described = properties.and_then(|properties| properties.get(field)).or(others);
                if let Some(described) = described {
                    let old = old.and_then(|old| old.get(field));
                    visit(&join(path, field), described, value, old);
                }
            }
        }
        _ => {}
    }
}

/// What `item` was in the list `old`: items of a list that is a map are known by its keys.
fn counterpart<'a>(schema: &Value, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
    let mut items = old.as_array()?.iter();
    items.find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}

/// The type that the schema wants, if `value` has another.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return (!value.is_i64() && !value.is_string()).then_some("integer,string");
    }
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then_some(wanted)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_text(path: &str, schema: &Value, text: &str, compiled: &Compiled, flaws: &mut Vec<Flaw>) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        flaws.push(Flaw::blocking(path, message));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let message = format!("Invalid value: {text:?}: {path} in body should be at least {least} chars long");
        flaws.push(Flaw::invalid(path, message));
    }
    let pattern = schema["pattern"].as_str().and_then(|pattern| compiled.pattern(pattern));
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        let message = format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
        flaws.push(Flaw::invalid(path, message));
    }
}

fn check_number(path: &str, schema: &Value, number: &Number, flaws: &mut Vec<Flaw>) {
    let Some(value) = number.as_f64() else { return };
    let mut invalid = |problem: String| {
        let message = format!("Invalid value: {number}: {path} in body {problem}");
        flaws.push(Flaw::invalid(path, message));
    };
    if let Some(most) = schema["maximum"].as_f64().filter(|most| value > *most) {
        invalid(format!("should be less than or equal to {most}"));
    }
    if let Some(least) = schema["minimum"].as_f64().filter(|least| value < *least) {
        invalid(format!("should be greater than or equal to {least}"));
    }
    let small = number.as_i64().is_none_or(|whole| i32::try_from(whole).is_ok());
    if schema["format"] == "int32" && !small {
        invalid("must be of type int32".to_owned());
    }
}

fn check_count(path: &str, schema: &Value, count: usize, bounds: (&str, &str), flaws: &mut Vec<Flaw>) {
    let number = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = schema[bounds.0].as_u64().filter(|least| number < *least) {
        let message = format!("Invalid value: {count}: {path} in body should have at least {least} items");
        flaws.push(Flaw::invalid(path, message));
    }
    if let Some(most) = schema[bounds.1].as_u64().filter(|most| number > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        flaws.push(Flaw::blocking(path, message));
    }
}

/// Adds the CEL rules that `value`, or something in it, breaks. Rules about a change (`oldSelf`) say nothing about a new
/// value, and the others nothing about one that is as it was.
pub(super) fn check_rules(
    path: &str,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    compiled: &Compiled,
    flaws: &mut Vec<Flaw>,
) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let mut variables = None;
    for rule in rules {
        let applies = |source: &&str| match old {
            Some(old) => source.contains("oldSelf") || old != value,
            None => !source.contains("oldSelf"),
        };
        let source = rule["rule"].as_str().filter(applies);
        let Some((source, compiled)) = source.and_then(|source| Some((source, compiled.rule(source)?))) else {
            continue;
        };
        let variables = variables.get_or_insert_with(|| {
            let old = old.map(|old| ("oldSelf", old));
            Variables::new([("self", value)].into_iter().chain(old))
        });
        let problem = match compiled.is_true(variables) {
            Ok(true) => continue,
            Ok(false) => {
                let message = rule["message"].as_str();
                message.map_or_else(|| format!("failed rule: {source}"), ToOwned::to_owned)
            }
            Err(error) => error.to_string(),
        };
        let field = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
        flaws.push(Flaw::invalid(field, format!("Invalid value: {problem}")));
    }
    below(path, schema, value, old, &mut |path, schema, value, old| {
        check_rules(path, schema, value, old, compiled, flaws);
    });
}
