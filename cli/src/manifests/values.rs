//! The values of the chart, from their schema: `values.yaml` with the defaults, and the chart's `README.md`. The schema is the only
//! place where a value, its limits, its default and its description are written.

use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{HEADER, reference};

const SCHEMA: &str = include_str!("../../../manifests/chart/values.schema.json");
/// The width of comments, in columns.
const WIDTH: usize = 118;

/// The part of a JSON schema that describes one value.
#[derive(Debug, Deserialize)]
struct ValueSchema {
    #[serde(default)]
    description: String,
    /// Absent: the value is not in `values.yaml`.
    default: Option<Value>,
    #[serde(rename = "enum", default)]
    options: Vec<String>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    #[serde(default)]
    properties: Properties,
}

/// The values of an object in the order of the schema, which a map of JSON does not keep.
#[derive(Debug, Default)]
struct Properties(Vec<(String, ValueSchema)>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Properties;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the properties of an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Properties(properties))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn schema() -> Result<Properties> {
    let schema: ValueSchema = serde_json::from_str(SCHEMA).context("values.schema.json")?;
    Ok(schema.properties)
}

/// `values.yaml`.
pub(super) fn yaml() -> Result<String> {
    let mut text = format!("{HEADER}# Helm rejects values that values.schema.json does not have.\n");
    write_values(&mut text, &schema()?, 0);
    Ok(text)
}

fn write_values(text: &mut String, values: &Properties, depth: usize) {
    for (name, schema) in &values.0 {
        let is_section = schema.properties.0.iter().any(|(_, value)| value.default.is_some());
        if schema.default.is_none() && !is_section {
            continue;
        }
        if depth == 0 {
            text.push('\n');
        }
        let indent = "  ".repeat(depth);
        for line in wrapped(&schema.description, WIDTH - indent.len()) {
            let _ = writeln!(text, "{indent}# {line}");
        }
        if is_section {
            let _ = writeln!(text, "{indent}{name}:");
            write_values(text, &schema.properties, depth + 1);
        } else {
            write_default(text, name, schema.default.as_ref().unwrap_or(&Value::Null), depth);
        }
    }
}

fn write_default(text: &mut String, name: &str, default: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match default {
        Value::Object(fields) if !fields.is_empty() => {
            let _ = writeln!(text, "{indent}{name}:");
            for (name, value) in fields {
                write_default(text, name, value, depth + 1);
            }
        }
        // JSON is YAML.
        other => drop(writeln!(text, "{indent}{name}: {other}")),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `README.md` of the chart.
pub(super) fn readme() -> Result<String> {
    let mut text = format!(
        "{}# taskgate\n\nAdmission webhook and controller for clusters that run coding agents: a circuit breaker per work item, \
         cancellation,\nqueueing, bounded retry and metadata for Kelos and Foreman.\n\n\
         ```sh\nhelm install taskgate manifests/chart --namespace taskgate-system --create-namespace --wait\n\
         helm test taskgate --namespace taskgate-system\n```\n\n\
         Until you create a policy, taskgate changes nothing. `helm test` runs `taskgate doctor` in the cluster.\n\n\
         Kubernetes {} and later. The chart renders the same bytes every time and reads nothing from the cluster.\n\n\
         ## Values\n\n| Value | Default | |\n|---|---|---|\n",
        reference::HEADER,
        "1.30",
    );
    write_rows(&mut text, "", &schema()?);
    Ok(text)
}

fn write_rows(text: &mut String, path: &str, values: &Properties) {
    for (name, schema) in &values.0 {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if let Some(default) = &schema.default {
            let description = schema.description.replace('|', "\\|");
            let _ = writeln!(text, "| `{path}` | `{default}` | {description}{} |", limits(schema));
        } else {
            write_rows(text, &path, &schema.properties);
        }
    }
}

/// The limits of a value as a sentence, where they tell more than its description.
fn limits(schema: &ValueSchema) -> String {
    let options: Vec<_> = schema.options.iter().map(|option| format!("`{option}`")).collect();
    match (schema.minimum, schema.maximum) {
        (Some(minimum), Some(maximum)) => format!(" {minimum} to {maximum}."),
        _ if options.is_empty() => String::new(),
        _ => format!(" One of {}.", options.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn defaults(values: &Properties) -> Value {
        let fields = values.0.iter().filter_map(|(name, schema)| {
            let nested = || Some(defaults(&schema.properties)).filter(|nested| *nested != Value::Object(Map::new()));
            Some((name.clone(), schema.default.clone().or_else(nested)?))
        });
        Value::Object(fields.collect())
    }

    #[test]
    fn the_values_are_the_defaults_of_the_schema() {
        let parsed: Value = serde_saphyr::from_str(&yaml().expect("values")).expect("YAML");
        assert_eq!(parsed, defaults(&schema().expect("a schema")));
    }

    #[test]
    fn every_value_has_a_description_that_ends_as_a_sentence() {
        fn check(path: &str, values: &Properties) {
            for (name, schema) in &values.0 {
                let path = format!("{path}.{name}");
                assert!(schema.description.ends_with('.'), "{path}: {:?}", schema.description);
                check(&path, &schema.properties);
            }
        }
        check("", &schema().expect("a schema"));
    }
}
