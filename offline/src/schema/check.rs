//! A value against a structural schema: types, ranges, lengths, patterns, enums, required fields, CEL rules.

use serde_json::{Number, Value};

use super::{Compiled, Flaw, join};
use crate::expression::Variables;

/// Adds everything that is wrong with `value`.
pub(super) fn check(path: &str, schema: &Value, value: &Value, compiled: &Compiled, flaws: &mut Vec<Flaw>) {
    if value.is_null() && schema["nullable"] == Value::Bool(true) {
        return;
    }
    let mut flaw = |field: String, message: String| flaws.push(Flaw { field, message });
    if let Some(wanted) = wrong_type(schema, value) {
        let message = format!(
            "Invalid value: {}: {path} in body must be of type {wanted}: {}",
            quoted(value),
            type_of(value)
        );
        flaw(path.to_owned(), message);
        return;
    }
    if let Some(supported) = schema["enum"].as_array().filter(|supported| !supported.contains(value)) {
        let supported: Vec<_> = supported.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        flaw(path.to_owned(), message);
    }
    match value {
        Value::String(text) => check_text(path, schema, text, compiled, &mut flaw),
        Value::Number(number) => check_number(path, schema, number, &mut flaw),
        Value::Array(items) => {
            check_count(path, schema, items.len(), ("minItems", "maxItems"), &mut flaw);
            for (index, item) in items.iter().enumerate() {
                check(&format!("{path}[{index}]"), &schema["items"], item, compiled, flaws);
            }
        }
        Value::Object(fields) => {
            check_count(
                path,
                schema,
                fields.len(),
                ("minProperties", "maxProperties"),
                &mut flaw,
            );
            let required = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            for field in required.filter(|field| !fields.contains_key(*field)) {
                flaw(join(path, field), "Required value".to_owned());
            }
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            for (field, value) in fields {
                let below = properties.and_then(|properties| properties.get(field)).or(others);
                if let Some(below) = below {
                    check(&join(path, field), below, value, compiled, flaws);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_rules(path, schema, value, compiled, flaws);
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
        Value::Null => "\"null\"",
        Value::Bool(_) => "\"boolean\"",
        Value::Number(number) if number.is_f64() => "\"number\"",
        Value::Number(_) => "\"integer\"",
        Value::String(_) => "\"string\"",
        Value::Array(_) => "\"array\"",
        Value::Object(_) => "\"object\"",
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::Null => type_of(value).to_owned(),
        scalar => format!(
            "{:?}",
            scalar
                .as_str()
                .map_or_else(|| type_of(scalar).trim_matches('"').to_owned(), ToOwned::to_owned)
        ),
    }
}

fn check_text(path: &str, schema: &Value, text: &str, compiled: &Compiled, flaw: &mut impl FnMut(String, String)) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        flaw(path.to_owned(), format!("Too long: may not be more than {most} bytes"));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let message = format!("Invalid value: {text:?}: {path} in body should be at least {least} chars long");
        flaw(path.to_owned(), message);
    }
    let pattern = schema["pattern"].as_str().and_then(|pattern| compiled.pattern(pattern));
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        let message = format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
        flaw(path.to_owned(), message);
    }
}

fn check_number(path: &str, schema: &Value, number: &Number, flaw: &mut impl FnMut(String, String)) {
    let (Some(value), text) = (number.as_f64(), number.to_string()) else {
        return;
    };
    if let Some(most) = schema["maximum"].as_f64().filter(|most| value > *most) {
        let message = format!("Invalid value: {text}: {path} in body should be less than or equal to {most}");
        flaw(path.to_owned(), message);
    }
    if let Some(least) = schema["minimum"].as_f64().filter(|least| value < *least) {
        let message = format!("Invalid value: {text}: {path} in body should be greater than or equal to {least}");
        flaw(path.to_owned(), message);
    }
    let fits = match schema["format"].as_str() {
        Some("int32") => number.as_i64().is_none_or(|whole| i32::try_from(whole).is_ok()),
        _ => true,
    };
    if !fits {
        flaw(
            path.to_owned(),
            format!("Invalid value: {text}: {path} in body must be of type int32"),
        );
    }
}

fn check_count(path: &str, schema: &Value, count: usize, bounds: (&str, &str), flaw: &mut impl FnMut(String, String)) {
    let number = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = schema[bounds.0].as_u64().filter(|least| number < *least) {
        let message = format!("Invalid value: {count}: {path} in body should have at least {least} items");
        flaw(path.to_owned(), message);
    }
    if let Some(most) = schema[bounds.1].as_u64().filter(|most| number > *most) {
        flaw(
            path.to_owned(),
            format!("Too many: {count}: must have at most {most} items"),
        );
    }
}

/// Rules about what was before (`oldSelf`) say nothing about a new value.
fn check_rules(path: &str, schema: &Value, value: &Value, compiled: &Compiled, flaws: &mut Vec<Flaw>) {
    let Some(rules) = schema["x-kubernetes-validations"].as_array() else {
        return;
    };
    let variables = Variables::new([("self", value)]);
    for rule in rules {
        let Some(source) = rule["rule"].as_str().filter(|source| !source.contains("oldSelf")) else {
            continue;
        };
        let Some(compiled) = compiled.rule(source) else {
            continue;
        };
        let problem = match compiled.is_true(&variables) {
            Ok(true) => continue,
            Ok(false) => rule["message"]
                .as_str()
                .map_or_else(|| format!("failed rule: {source}"), ToOwned::to_owned),
            Err(error) => error.to_string(),
        };
        let field = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
        let message = format!("Invalid value: {problem}");
        flaws.push(Flaw { field, message });
    }
}
