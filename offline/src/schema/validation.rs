//! Validates a value against a structural schema: types, ranges, lengths, patterns, enums, required fields; then the CEL rules.
//!
//! For an update, each value is compared with the stored one. An item of a list without keys counts as new, as for the API server.

use serde_json::{Number, Value};

use super::{CompiledSchema, FieldError, join, schema_of};
use crate::expression::Variables;

/// A value that a schema describes.
pub(super) struct SchemaField<'v> {
    /// Its path in the object.
    pub(super) path: String,
    pub(super) schema: &'v Value,
    pub(super) value: &'v Value,
    /// The stored value; `None` for a new one.
    pub(super) old: Option<&'v Value>,
}

impl<'v> SchemaField<'v> {
    /// The direct children that the schema describes.
    fn children(&self) -> Vec<SchemaField<'v>> {
        match self.value {
            Value::Array(items) => {
                let children = items.iter().enumerate().map(|(index, item)| SchemaField {
                    path: format!("{}[{index}]", self.path),
                    schema: &self.schema["items"],
                    value: item,
                    old: self.old.and_then(|old| stored_item(self.schema, item, old)),
                });
                children.collect()
            }
            Value::Object(fields) => {
                let child = |(field, value): (&'v String, &'v Value)| {
                    Some(SchemaField {
                        path: join(&self.path, field),
                        schema: schema_of(self.schema, field)?,
                        value,
                        old: self.old.and_then(|old| old.get(field)),
                    })
                };
                fields.iter().filter_map(child).collect()
            }
            _ => Vec::new(),
        }
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
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_i64() && !value.is_string()).then_some("integer,string");
    }
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(is_whole),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then_some(wanted)
}

/// Whether a float is an integer to the API server: those above 2⁵³ are not exact.
fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0
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

/// A validation in progress.
pub(super) struct Validation<'s> {
    pub(super) compiled: &'s CompiledSchema,
    /// The errors that were found.
    pub(super) errors: Vec<FieldError>,
    /// Whether one of them makes the API server skip the CEL rules.
    pub(super) blocked: bool,
}

impl Validation<'_> {
    pub(super) fn error(&mut self, path: &str, message: String) {
        let field = path.to_owned();
        self.errors.push(FieldError { field, message });
    }

    /// Adds an invalid value.
    fn invalid(&mut self, path: &str, problem: &str) {
        self.error(path, format!("Invalid value: {problem}"));
    }

    /// Adds an error that ends the validation: a wrong type or enum value, a missing field, too long, too many.
    fn blocking(&mut self, path: &str, message: String) {
        self.blocked = true;
        self.error(path, message);
    }

    /// Adds the errors of `field`, except those of CEL rules. An unchanged value has none.
    pub(super) fn validate(&mut self, field: &SchemaField<'_>) {
        let &SchemaField {
            ref path,
            schema,
            value,
            old,
        } = field;
        if value.is_null() && schema["nullable"] == true || old == Some(value) {
            return;
        }
        if let Some(wanted) = wrong_type(schema, value) {
            let kind = type_of(value);
            let message = format!("Invalid value: {kind:?}: {path} in body must be of type {wanted}: {kind:?}");
            return self.blocking(path, message);
        }
        let supported = schema["enum"].as_array();
        if let Some(supported) = supported.filter(|supported| !supported.contains(value)) {
            let supported: Vec<_> = supported.iter().map(ToString::to_string).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
            self.blocking(path, message);
        }
        match value {
            Value::String(text) => self.validate_text(path, schema, text),
            Value::Number(number) => self.validate_number(path, schema, number),
            Value::Array(items) => self.validate_count(path, schema, items.len(), ("minItems", "maxItems")),
            Value::Object(fields) => {
                self.validate_count(path, schema, fields.len(), ("minProperties", "maxProperties"));
                let required = schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                for field in required.filter(|field| !fields.contains_key(*field)) {
                    self.blocking(&join(path, field), "Required value".to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        for child in field.children() {
            self.validate(&child);
        }
    }

    fn validate_text(&mut self, path: &str, schema: &Value, text: &str) {
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.blocking(path, format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            self.invalid(
                path,
                &format!("{text:?}: {path} in body should be at least {least} chars long"),
            );
        }
        let pattern = schema["pattern"]
            .as_str()
            .and_then(|pattern| self.compiled.pattern(pattern));
        if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
            self.invalid(path, &format!("{text:?}: {path} in body should match '{pattern}'"));
        }
    }

    fn validate_number(&mut self, path: &str, schema: &Value, number: &Number) {
        let Some(value) = number.as_f64() else { return };
        let mut invalid = |problem: String| self.invalid(path, &format!("{number}: {path} in body {problem}"));
        if let Some(most) = schema["maximum"].as_f64().filter(|most| value > *most) {
            invalid(format!("should be less than or equal to {most}"));
        }
        if let Some(least) = schema["minimum"].as_f64().filter(|least| value < *least) {
            invalid(format!("should be greater than or equal to {least}"));
        }
        let small = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
        if schema["format"] == "int32" && !small {
            // The API server names no field.
            let problem = format!("\"\": Checked value must be of type integer with format int32 in {path}");
            self.invalid("", &problem);
        }
    }

    fn validate_count(&mut self, path: &str, schema: &Value, count: usize, (min, max): (&str, &str)) {
        let number = u64::try_from(count).unwrap_or(u64::MAX);
        if let Some(least) = schema[min].as_u64().filter(|least| number < *least) {
            self.invalid(
                path,
                &format!("{count}: {path} in body should have at least {least} items"),
            );
        }
        if let Some(most) = schema[max].as_u64().filter(|most| number > *most) {
            self.blocking(path, format!("Too many: {count}: must have at most {most} items"));
        }
    }

    /// Adds the CEL rules that `field` or a value in it violates. Transition rules (`oldSelf`) do not apply to a new value, others not
    /// to an unchanged one.
    pub(super) fn validate_rules(&mut self, field: &SchemaField<'_>) {
        let &SchemaField {
            ref path,
            schema,
            value,
            old,
        } = field;
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let mut variables = None;
        for rule in rules {
            let applies = |source: &&str| match old {
                Some(old) => source.contains("oldSelf") || old != value,
                None => !source.contains("oldSelf"),
            };
            let source = rule["rule"].as_str().filter(applies);
            let Some((source, compiled)) = source.and_then(|source| Some((source, self.compiled.rule(source)?))) else {
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
            let path = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
            self.invalid(&path, &problem);
        }
        for child in field.children() {
            self.validate_rules(&child);
        }
    }
}
