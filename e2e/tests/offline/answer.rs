//! One answer in a form that both sides have: that of the API server, and that of `taskgate check`.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use http::{HeaderMap, StatusCode, header::WARNING};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use taskgate_api::keys;
use taskgate_e2e::AuditEvent;

/// The answer to one write.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// `allowed`, `denied by …`, `invalid`.
    pub(crate) verdict: String,
    pub(crate) code: u16,
    /// The message of a denial; of an invalid object the fields.
    pub(crate) why: BTreeSet<String>,
    pub(crate) warnings: BTreeSet<String>,
    /// The object as it would be stored, but for what the API server sets.
    pub(crate) object: Value,
    /// The mutating webhooks that were called, in order, each with its patch.
    pub(crate) calls: Vec<(String, Value)>,
}

impl Answer {
    /// The API server's answer, and the webhook calls in its audit log.
    pub(crate) fn of_server(
        status: StatusCode,
        headers: &HeaderMap,
        body: &Value,
        event: &AuditEvent,
    ) -> anyhow::Result<Self> {
        let warnings = headers
            .get_all(WARNING)
            .iter()
            .filter_map(|warning| warning.to_str().ok())
            .map(unquoted);
        let mut answer = Self {
            verdict: "allowed".to_owned(),
            code: 0,
            why: BTreeSet::new(),
            warnings: warnings.filter(|warning| warning.starts_with("taskgate: ")).collect(),
            object: Value::Null,
            calls: calls(event),
        };
        if status.is_success() {
            answer.object = essence(body);
            return Ok(answer);
        }
        let message = body["message"].as_str().unwrap_or_default();
        answer.code = status.as_u16();
        if let Some(denied) = message.strip_prefix("admission webhook \"") {
            let (webhook, message) = denied.split_once("\" denied the request: ").context("a denial")?;
            answer.verdict = format!("denied by {webhook}");
            answer.why = [message.to_owned()].into();
        } else if status == StatusCode::UNPROCESSABLE_ENTITY {
            "invalid".clone_into(&mut answer.verdict);
            let causes = body["details"]["causes"].as_array().into_iter().flatten();
            let fields = causes.filter_map(|cause| cause["field"].as_str());
            // That not all was checked is said of no field.
            answer.why = fields.map(|field| field.replace("<nil>", "")).collect();
        } else if let Some((_, unknown)) = message.split_once("strict decoding error: ") {
            "invalid".clone_into(&mut answer.verdict);
            answer.why = unknown.split(", ").map(ToOwned::to_owned).collect();
        } else if let (StatusCode::BAD_REQUEST, Some((_, json))) = (status, message.split_once(": json: ")) {
            "invalid".clone_into(&mut answer.verdict);
            answer.why = [format!("json: {json}")].into();
        } else {
            bail!("{status}: {body}");
        }
        Ok(answer)
    }

    /// The answer of `taskgate check -o json`.
    pub(crate) fn of_check(decision: &Value) -> anyhow::Result<Self> {
        let text = |field: &str| decision[field].as_str().unwrap_or_default();
        let list = |field: &str| decision[field].as_array().cloned().unwrap_or_default();
        let calls = list("calls").into_iter().filter(|call| call["sent"] == true);
        let mutating = |call: &Value| call["webhook"].as_str().is_some_and(|name| name.starts_with("mutate."));
        let mut answer = Self {
            verdict: text("verdict").to_owned(),
            code: u16::try_from(decision["code"].as_u64().unwrap_or_default())?,
            why: BTreeSet::new(),
            warnings: list("warnings")
                .iter()
                .filter_map(|warning| Some(warning.as_str()?.to_owned()))
                .collect(),
            object: Value::Null,
            calls: calls
                .filter(mutating)
                .map(|call| {
                    (
                        call["webhook"].as_str().unwrap_or_default().to_owned(),
                        call["patch"].clone(),
                    )
                })
                .collect(),
        };
        match text("verdict") {
            // To the API server that is the same: it was not refused.
            "allowed" | "not-sent" => {
                "allowed".clone_into(&mut answer.verdict);
                answer.object = essence(&decision["object"]);
            }
            "denied" => {
                answer.verdict = format!("denied by {}", text("refusedBy"));
                answer.why = [text("message").to_owned()].into();
            }
            "invalid" => {
                let flaws = list("flaws");
                let flaws = flaws.iter();
                // Before anything else the API server refuses what it cannot decode and unknown fields, and tells of nothing else.
                answer.why = if answer.code == 400 {
                    let messages: Vec<_> = flaws.filter_map(|flaw| flaw["message"].as_str()).collect();
                    let of = |kind: &str| {
                        let messages = messages.iter().filter(|message| message.starts_with(kind));
                        messages.map(|message| (*message).to_owned()).collect::<BTreeSet<_>>()
                    };
                    Some(of("json: "))
                        .filter(|undecodable| !undecodable.is_empty())
                        .unwrap_or_else(|| of("unknown field"))
                } else {
                    flaws
                        .filter_map(|flaw| Some(flaw["field"].as_str()?.to_owned()))
                        .collect()
                };
            }
            other => bail!("{other}: {decision}"),
        }
        Ok(answer)
    }

    /// With the times that a request for a cancellation is stamped with as distances: they depend on the time of
    /// the decision, which differs.
    pub(crate) fn timeless(mut self) -> Self {
        let stamped = |key| self.calls.iter().find_map(|(_, patch)| annotation(patch, key));
        let times = stamped(keys::CANCEL_REQUESTED).zip(stamped(keys::CANCEL_DEADLINE));
        let read = |text: &str| Some((text.to_owned(), text.parse::<Timestamp>().ok()?));
        let times = times.and_then(|(requested, deadline)| read(requested).zip(read(deadline)));
        let Some(((requested, began), (deadline, due))) = times else {
            return self;
        };
        let grace = format!("{} after that", due.duration_since(began));
        let patches = self.calls.iter_mut().map(|(_, patch)| patch);
        for value in patches.chain([&mut self.object]) {
            if requested != deadline {
                replace(value, &deadline, &grace);
            }
            replace(value, &requested, "when it was judged");
        }
        self
    }
}

/// The value that `patch` gives the annotation `key`.
fn annotation<'a>(patch: &'a Value, key: &str) -> Option<&'a str> {
    let own = format!("/metadata/annotations/{}", key.replace('/', "~1"));
    let operations = patch.as_array()?.iter();
    let mut values = operations.filter_map(|operation| match operation["path"].as_str()? {
        "/metadata/annotations" => operation["value"][key].as_str(),
        place => operation["value"].as_str().filter(|_| place == own),
    });
    values.next()
}

/// Puts `new` in the place of each text `old` in `value`.
fn replace(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::String(text) if text == old => new.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, old, new)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, old, new)),
        _ => {}
    }
}

/// The text of a warning header: `299 - "text"`.
fn unquoted(warning: &str) -> String {
    let text = warning.split_once('"').map_or(warning, |(_, text)| text);
    text.trim_end_matches('"').replace("\\\"", "\"").replace("\\\\", "\\")
}

fn calls(event: &AuditEvent) -> Vec<(String, Value)> {
    let calls = event.webhooks();
    let mut left: Vec<_> = calls
        .iter()
        .map(|call| call.webhook.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|webhook| {
            let patches = event.patches_of(&webhook);
            (webhook, patches.into_iter())
        })
        .collect();
    let mut patch = |webhook: &str| {
        let found = left.iter_mut().find(|(name, _)| name == webhook);
        found.and_then(|(_, patches)| patches.next()).unwrap_or_default()
    };
    let calls = calls.iter().filter(|call| call.webhook.ends_with(".taskgate.dev"));
    calls
        .map(|call| {
            let patch = if call.mutated {
                without_field_managers(patch(&call.webhook))
            } else {
                Value::Null
            };
            (call.webhook.clone(), patch)
        })
        .collect()
}

/// `patch` without the changes of what field managers own: only the API server notes those.
fn without_field_managers(mut patch: Value) -> Value {
    if let Some(operations) = patch.as_array_mut() {
        let of_managers = |path: &Value| {
            path.as_str()
                .is_some_and(|path| path.starts_with("/metadata/managedFields"))
        };
        operations.retain(|operation| !of_managers(&operation["path"]));
    }
    patch
}

/// The fields that admission may change: of a Job, whose others the API server fills in, labels, annotations and suspension.
fn essence(object: &Value) -> Value {
    let pick = |value: &Value, fields: &[&str]| {
        let mut picked = Map::new();
        for field in fields {
            let there = value
                .get(field)
                .filter(|value| !value.as_object().is_some_and(Map::is_empty));
            if let Some(there) = there {
                picked.insert((*field).to_owned(), there.clone());
            }
        }
        Value::Object(picked)
    };
    let mut metadata = pick(
        &object["metadata"],
        &["labels", "annotations", "finalizers", "ownerReferences"],
    );
    if object["metadata"]["generateName"].is_null() {
        metadata["name"] = object["metadata"]["name"].clone();
    }
    if object["kind"] != "Job" {
        return json!({"metadata": metadata, "spec": object["spec"]});
    }
    let mut template = pick(&object["spec"]["template"]["metadata"], &["labels", "annotations"]);
    if let Some(labels) = template.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|label, _| {
            let set_by_the_api_server = ["controller-uid", "job-name"];
            !set_by_the_api_server.contains(&label.trim_start_matches("batch.kubernetes.io/"))
        });
    }
    let suspend = object["spec"]["suspend"].as_bool().unwrap_or_default();
    json!({"metadata": metadata, "suspend": suspend, "template": template})
}
