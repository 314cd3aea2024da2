//! Validates a value against a structural schema: types, ranges, lengths, patterns, enums, required fields; then the CEL rules.
//!
//! For an update, each value is compared with the stored one. An item of a list without keys counts as new, as for the API server.

use serde_json::{Number, Value};

use super::{CompiledSchema, FieldError, join};
use crate::expression::Variables;

/// Adds the errors of `value`, except those of CEL rules. An unchanged value has none.
pub(super) fn validate(
    path: &str,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    compiled: &CompiledSchema,
    errors: &mut Vec<FieldError>,
) {
    if value.is_null() && schema["nullable"] == Value::Bool(true) || old == Some(value) {
        return;
    }
    if let Some(wanted) = wrong_type(schema, value) {
        let kind = type_of(value);
        let message = format!("Invalid value: {kind:?}: {path} in body must be of type {wanted}: {kind:?}");
        errors.push(FieldError::blocking(path, message));
        return;
    }
    let supported = schema["enum"].as_array();
    if let Some(supported) = supported.filter(|supported| !supported.contains(value)) {
        let supported: Vec<_> = supported.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        errors.push(FieldError::blocking(path, message));
    }
    match value {
        Value::String(text) => validate_text(path, schema, text, compiled, errors),
        Value::Number(number) => validate_number(path, schema, number, errors),
        Value::Array(items) => validate_count(path, schema, items.len(), ("minItems", "maxItems"), errors),
        Value::Object(fields) => {
            validate_count(path, schema, fields.len(), ("minProperties", "maxProperties"), errors);
            let required = schema["required"].as_array().into_iter().flatten();
            for field in required
                .filter_map(Value::as_str)
                .filter(|field| !fields.contains_key(*field))
            {
                errors.push(FieldError::blocking(join(path, field), "Required value".to_owned()));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    visit_children(path, schema, value, old, &mut |path, schema, value, old| {
        validate(path, schema, value, old, compiled, errors);
    });
}

/// Called with a value: its path, its schema, the value, the stored value.
type VisitValue<'a> = dyn FnMut(&str, &Value, &Value, Option<&Value>) + 'a;

/// Calls `visit` for each direct child of `value` that the schema describes.
fn visit_children(path: &str, schema: &Value, value: &Value, old: Option<&Value>, visit: &mut VisitValue<'_>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| stored_item(schema, item, old));
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

/// The stored item in the list `old` that corresponds to `item`, by the keys of the list map.
fn stored_item<'a>(schema: &Value, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
    let mut items = old.as_array()?.iter();
    items.find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}

/// The type in the schema, if `value` has another.
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

fn validate_text(path: &str, schema: &Value, text: &str, compiled: &CompiledSchema, errors: &mut Vec<FieldError>) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        errors.push(FieldError::blocking(path, message));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let message = format!("Invalid value: {text:?}: {path} in body should be at least {least} chars long");
        errors.push(FieldError::invalid(path, message));
    }
    let pattern = schema["pattern"].as_str().and_then(|pattern| compiled.pattern(pattern));
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        let message = format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
        errors.push(FieldError::invalid(path, message));
    }
}

fn validate_number(path: &str, schema: &Value, number: &Number, errors: &mut Vec<FieldError>) {
    let Some(value) = number.as_f64() else { return };
    let mut invalid = |problem: String| {
        let message = format!("Invalid value: {number}: {path} in body {problem}");
        errors.push(FieldError::invalid(path, message));
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

fn validate_count(path: &str, schema: &Value, count: usize, bounds: (&str, &str), errors: &mut Vec<FieldError>) {
    let number = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = schema[bounds.0].as_u64().filter(|least| number < *least) {
        let message = format!("Invalid value: {count}: {path} in body should have at least {least} items");
        errors.push(FieldError::invalid(path, message));
    }
    if let Some(most) = schema[bounds.1].as_u64().filter(|most| number > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        errors.push(FieldError::blocking(path, message));
    }
}

/// Adds the CEL rules that `value` or a value in it violates. Transition rules (`oldSelf`) do not apply to a new value, others not
/// to an unchanged one.
pub(super) fn validate_rules(
    path: &str,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    compiled: &CompiledSchema,
    errors: &mut Vec<FieldError>,
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
        errors.push(FieldError::invalid(field, format!("Invalid value: {problem}")));
    }
    visit_children(path, schema, value, old, &mut |path, schema, value, old| {
        validate_rules(path, schema, value, old, compiled, errors);
    });
}
