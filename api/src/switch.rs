//! The switch that disables taskgate: a `ConfigMap` in its namespace, and in each of its webhooks a match condition that no request
//! meets.
//!
//! The condition is set by server-side apply under a field manager of its own, and removed in the same way, so that no earlier state
//! has to be stored and no other manager's apply removes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// The `ConfigMap` in taskgate's namespace. While it is there, taskgate is disabled.
pub const CONFIG_MAP: &str = "taskgate-disabled";
/// The name of the match condition.
pub const CONDITION: &str = "taskgate.dev/disabled";
/// The field manager of both.
pub const MANAGER: &str = "taskgate-disable";
/// The expression of the match condition: no request meets it.
const EXPRESSION: &str = "false";

const REASON: &str = "reason";
const BY: &str = "by";
const SINCE: &str = "since";
const UNTIL: &str = "until";

/// The content of the `ConfigMap`. taskgate is disabled whatever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    /// Why.
    pub reason: Option<String>,
    /// Who did it.
    pub by: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When taskgate is to be enabled again; `None`: until a user enables it.
    pub until: Option<Timestamp>,
}

impl Disabled {
    /// Reads the data of the `ConfigMap`. An invalid time counts as absent, and is returned as a message.
    pub fn read(data: &BTreeMap<String, String>) -> (Self, Option<String>) {
        let text = |key: &str| data.get(key).filter(|text| !text.is_empty()).cloned();
        let mut problem = None;
        let mut time = |key: &str| {
            let text = text(key)?;
            let time = text.parse();
            if time.is_err() {
                problem = Some(format!("{key}: {text:?} is no time such as 2026-01-31T12:00:00Z"));
            }
            time.ok()
        };
        let (since, until) = (time(SINCE), time(UNTIL));
        let disabled = Self {
            reason: text(REASON),
            by: text(BY),
            since,
            until,
        };
        (disabled, problem)
    }

    /// The `ConfigMap` with this content, in `namespace`.
    pub fn config_map(&self, namespace: &str) -> Value {
        let time = |time: Option<Timestamp>| time.map(|time| time.strftime("%FT%TZ").to_string());
        let data: BTreeMap<_, _> = [
            (REASON, self.reason.clone()),
            (BY, self.by.clone()),
            (SINCE, time(self.since)),
            (UNTIL, time(self.until)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": CONFIG_MAP, "namespace": namespace,
                "labels": {crate::keys::PART_OF: crate::keys::PART_OF_TASKGATE},
            },
            "data": data,
        })
    }
}

/// The names of a configuration's webhooks, each with whether it is off.
pub fn webhooks(configuration: &Value) -> impl Iterator<Item = (&str, bool)> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    webhooks.filter_map(|webhook| {
        let conditions = webhook["matchConditions"].as_array();
        let off = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["name"] == CONDITION);
        Some((webhook["name"].as_str()?, off))
    })
}

/// The patch that turns the webhooks of these names off; without names: that turns all of them on again.
pub fn patch<'a>(kind: &str, name: &str, webhooks: impl IntoIterator<Item = &'a str>) -> Value {
    let webhooks: Vec<_> = webhooks
        .into_iter()
        .map(|webhook| json!({"name": webhook, "matchConditions": [{"name": CONDITION, "expression": EXPRESSION}]}))
        .collect();
    let mut patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
    });
    if !webhooks.is_empty() {
        patch["webhooks"] = webhooks.into();
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let disabled = Disabled {
            reason: Some("incident 7".to_owned()),
            by: Some("ann".to_owned()),
            since: "2026-01-31T12:00:00Z".parse().ok(),
            until: None,
        };
        let map = disabled.config_map("taskgate-system");
        let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap();
        assert_eq!(Disabled::read(&data), (disabled, None));
    }

    #[test]
    fn any_content_can_be_read() {
        assert_eq!(Disabled::read(&BTreeMap::new()), (Disabled::default(), None));
        let (disabled, problem) = Disabled::read(&BTreeMap::from([("until".to_owned(), "noon".to_owned())]));
        assert_eq!(disabled.until, None);
        assert!(problem.unwrap().contains("noon"));
    }

    #[test]
    fn a_webhook_is_off_by_our_condition_only() {
        let configuration = json!({"webhooks": [
            {"name": "a", "matchConditions": [{"name": "other", "expression": "false"}]},
            {"name": "b", "matchConditions": [{"name": CONDITION, "expression": "false"}]},
            {"name": "c"},
        ]});
        let found: Vec<_> = webhooks(&configuration).collect();
        assert_eq!(found, [("a", false), ("b", true), ("c", false)]);
        assert_eq!(patch("K", "n", [])["webhooks"], Value::Null);
    }
}
