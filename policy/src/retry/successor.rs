//! The successor of a failed object: built from what its predecessor was, under the policy as it is now (A02, A26, A27).

use serde_json::{Map, Value, json};
use taskgate_api::{
    foreman::{AGENT_NAME, ATTEMPT, CREATED_BY, ISSUE_ID, Workload},
    kelos::SOURCE_NUMBER,
    keys,
    metadata::Metadata,
    task_policy::{RetriedKind, RetryPolicy},
};

use super::{Retried, feedback};

/// Annotations that belong to one object alone. The bridge copied such along, and a later failure was pruned at once for it
/// (foreman §1.7).
const OF_ONE_OBJECT: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "kelos.dev/taskbudget-labels",
];
/// What taskgate's own annotations say that holds for the successor too.
const LASTING: [&str; 4] = [keys::ITEM, keys::ITEM_KEY, keys::TTL, keys::TAKEN_OVER];

/// What a successor is besides its predecessor.
#[derive(Clone, Copy, Debug)]
pub struct Succession<'a> {
    /// The policy as it is now.
    pub rule: &'a RetryPolicy,
    /// The successor's number.
    pub attempt: u32,
    /// The UID of the predecessor.
    pub of: &'a str,
    /// Why the predecessor failed.
    pub feedback: Option<&'a str>,
}

/// What of `object` its successor is built from: name, spec, owners, and the labels and annotations that are not about this
/// very object. No status, nothing that the API server keeps, no finalizer: whoever needs one puts it on again, and one that
/// came along would keep the successor for ever (kelos §6.9).
pub fn remains(object: Retried<'_>) -> Value {
    let metadata = object.metadata();
    let value = object.object();
    let labels = metadata.labels().filter(|(key, _)| *key != keys::WORK_ITEM);
    let annotations = value.pointer("/metadata/annotations").and_then(Value::as_object);
    let annotations = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .filter(|(key, _)| lasts(key));
    let collect = |pairs: &mut dyn Iterator<Item = (&str, &str)>| -> Map<String, Value> {
        pairs.map(|(key, value)| (key.to_owned(), value.into())).collect()
    };
    let mut kept = json!({
        "name": metadata.name(),
        "namespace": metadata.namespace(),
        "labels": collect(&mut { labels }),
        "annotations": collect(&mut { annotations }),
    });
    if let Some(owners) = value.pointer("/metadata/ownerReferences") {
        kept["ownerReferences"] = owners.clone();
    }
    json!({
        "apiVersion": value.get("apiVersion"),
        "kind": value.get("kind"),
        "metadata": kept,
        "spec": value.get("spec"),
    })
}

fn lasts(key: &str) -> bool {
    let ours = key.starts_with(keys::PREFIX) && !LASTING.contains(&key);
    !ours && !OF_ONE_OBJECT.contains(&key) && !key.contains("/terminal-since")
}

/// The successor of the object that `remains` are of.
pub fn successor(kind: RetriedKind, remains: &Value, succession: &Succession<'_>) -> Value {
    let Succession { rule, attempt, of, .. } = *succession;
    let mut object = remains.clone();
    restore_ttl(&mut object);
    hand_over(&mut object);
    if let Some(overrides) = &rule.overrides {
        let fields = match kind {
            RetriedKind::Workload => &overrides.workload,
            RetriedKind::Task => &overrides.task,
        };
        json_patch::merge(&mut object["spec"], &Value::Object(fields.clone()));
        for (key, value) in &overrides.labels {
            object["metadata"]["labels"][key] = value.as_str().into();
        }
        for (key, value) in &overrides.annotations {
            object["metadata"]["annotations"][key] = value.as_str().into();
        }
    }
    tell(kind, &mut object, succession.feedback);
    let prefix = rule.annotation_prefix.as_str();
    let key = |name: &str| format!("{prefix}{name}");
    let issue = issue_id(kind, &object, &key(ISSUE_ID));
    let agent = agent_name(kind, &object, rule, &key(AGENT_NAME));
    let annotations = &mut object["metadata"]["annotations"];
    annotations[keys::RETRY_OF] = of.into();
    annotations[key(ATTEMPT)] = attempt.to_string().into();
    if let Some(issue) = issue {
        annotations[key(ISSUE_ID)] = issue.into();
    }
    if let Some(agent) = agent {
        annotations[key(AGENT_NAME)] = agent.into();
    }
    object
}

/// The TTL that admission moved aside goes back to where admission finds it again.
fn restore_ttl(object: &mut Value) {
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    let kept = annotations.and_then(|annotations| annotations.remove(keys::TTL));
    let seconds = kept
        .as_ref()
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<u32>().ok());
    if let Some(seconds) = seconds {
        object["spec"]["ttlSecondsAfterFinished"] = seconds.into();
    }
}

/// Takes an object of the bridge out of the bridge's sight, which goes by this label alone (foreman §1.6).
fn hand_over(object: &mut Value) {
    let bridge = Retried::of(RetriedKind::Workload, object)
        .and_then(Retried::bridge)
        .map(ToOwned::to_owned);
    if let Some(bridge) = bridge {
        object["metadata"]["annotations"][keys::TAKEN_OVER] = bridge.into();
        object["metadata"]["labels"][CREATED_BY] = keys::PART_OF_TASKGATE.into();
    }
}

/// Puts the feedback where the next run reads it, in the place of any former one.
///
/// A Workload that names issues is read by Foreman together with its `intent`, one with steps by each step's
/// `promptPrefix`. Either keeps Foreman's own iterations and the text of the issue, which steps and prompts of our own would
/// not (foreman §1.8).
fn tell(kind: RetriedKind, object: &mut Value, text: Option<&str>) {
    let replace = |field: &mut Value| {
        let old = field.as_str().unwrap_or_default().to_owned();
        let new = feedback::put(&old, text);
        if new != old {
            *field = new.into();
        }
    };
    match kind {
        RetriedKind::Task => replace(&mut object["spec"]["prompt"]),
        RetriedKind::Workload => {
            let steps = object.pointer_mut("/spec/pipeline").and_then(Value::as_array_mut);
            let mut coders = steps
                .into_iter()
                .flatten()
                .filter(|step| step["kind"] == "issue-fix" && step["payload"].is_object())
                .peekable();
            if coders.peek().is_some() {
                coders.for_each(|step| replace(&mut step["payload"]["promptPrefix"]));
            } else if Workload::of(object).issues().next().is_some() {
                replace(&mut object["spec"]["intent"]);
            } else if let Some(text) = text {
                object["metadata"]["annotations"][keys::RETRY_FEEDBACK] = text.into();
            }
        }
    }
}

/// What tracks the issue, as it was; else the issue's number, wherever it still stands (A46 to A48).
fn issue_id(kind: RetriedKind, object: &Value, key: &str) -> Option<String> {
    let metadata = Metadata::of(object);
    if let Some(known) = metadata.annotation(key).filter(|known| !known.is_empty()) {
        return Some(known.to_owned());
    }
    if kind == RetriedKind::Task {
        return metadata.annotation(SOURCE_NUMBER).map(ToOwned::to_owned);
    }
    let workload = Workload::of(object);
    let of_step = |step: &Value| step.pointer("/payload/issue").and_then(Value::as_u64);
    let number = workload
        .issues()
        .next()
        .or_else(|| workload.pipeline().find_map(of_step))
        .or_else(|| number_at_end(metadata.name()?));
    number.filter(|number| *number > 0).map(|number| number.to_string())
}

/// The number that the bridge's names end with.
fn number_at_end(name: &str) -> Option<u64> {
    let (_, tail) = name.rsplit_once('-')?;
    let digits = !tail.is_empty() && tail.bytes().all(|c| c.is_ascii_digit());
    tail.parse().ok().filter(|_| digits)
}

/// The agent of the successor: the policy's where it names one, else what stood there, else the coder.
fn agent_name(kind: RetriedKind, object: &Value, rule: &RetryPolicy, key: &str) -> Option<String> {
    if kind == RetriedKind::Task {
        return None;
    }
    let coder = Workload::of(object).coder();
    let overridden = rule.overrides.as_ref().is_some_and(|overrides| {
        ["coderAgentRef", "pipeline"]
            .iter()
            .any(|field| overrides.workload.contains_key(*field))
    });
    let stated = Metadata::of(object).annotation(key).filter(|_| !overridden);
    stated.or(coder).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(extra: &Value) -> RetryPolicy {
        let mut rule = extra.clone();
        rule["maxAttempts"] = 3.into();
        serde_json::from_value(rule).unwrap()
    }

    fn make(kind: RetriedKind, old: &Value, rule: &RetryPolicy, feedback: Option<&str>) -> Value {
        let left = remains(Retried::of(kind, old).unwrap());
        let succession = Succession {
            rule,
            attempt: 2,
            of: "uid-1",
            feedback,
        };
        successor(kind, &left, &succession)
    }

    fn workload(extra: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload",
            "metadata": {
                "name": "wl-acme-app-7", "namespace": "llm", "uid": "uid-1", "resourceVersion": "9", "generation": 3,
                "creationTimestamp": "2026-11-21T00:00:00Z", "managedFields": [{}], "finalizers": ["x/y"],
                "labels": {"lane": "local", "team": "blue"},
                "annotations": {
                    "foreman.llmkube.dev/attempt": "1", "foreman.llmkube.dev/issue-id": "i-7",
                    "foreman.llmkube.dev/agent-name": "foreman/coder", "foreman.llmkube.dev/terminal-since-Failed": "t",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}", "taskgate.dev/recorded": "wi", "keep": "me",
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}],
            },
            "spec": {"intent": "fix it", "repo": "acme/app", "issues": [7], "coderAgentRef": {"name": "coder"},
                "verdictPolicy": {"selfGO": ["docs"]}},
            "status": {"phase": "Failed"},
        });
        json_patch::merge(&mut object, extra);
        object
    }

    #[test]
    fn a26_a_successor_has_what_was_asked_for_and_nothing_of_its_predecessors_life() {
        let new = make(RetriedKind::Workload, &workload(&json!({})), &rule(&json!({})), None);
        assert_eq!(
            new,
            json!({
                "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload",
                "metadata": {
                    "name": "wl-acme-app-7", "namespace": "llm", "labels": {"lane": "local", "team": "blue"},
                    "annotations": {
                        "foreman.llmkube.dev/attempt": "2", "foreman.llmkube.dev/issue-id": "i-7",
                        "foreman.llmkube.dev/agent-name": "foreman/coder", "keep": "me", "taskgate.dev/retry-of": "uid-1",
                    },
                    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}],
                },
                "spec": {"intent": "fix it", "repo": "acme/app", "issues": [7], "coderAgentRef": {"name": "coder"},
                    "verdictPolicy": {"selfGO": ["docs"]}},
            })
        );
    }

    #[test]
    fn a02_a29_a34_todays_policy_wins_field_by_field() {
        let rule = rule(&json!({
            "annotationPrefix": "acme.dev/",
            "overrides": {
                "workload": {"coderAgentRef": {"name": "strong"}, "gateProfile": {"language": "go"}, "verdictPolicy": null},
                "labels": {"team": "red"}, "annotations": {"why": "retry"},
            },
        }));
        let new = make(RetriedKind::Workload, &workload(&json!({})), &rule, None);
        assert_eq!(new["spec"]["coderAgentRef"]["name"], "strong");
        assert_eq!(new["spec"]["gateProfile"], json!({"language": "go"}));
        assert_eq!(new["spec"].get("verdictPolicy"), None);
        assert_eq!(new["metadata"]["labels"], json!({"lane": "local", "team": "red"}));
        let annotations = &new["metadata"]["annotations"];
        assert_eq!(annotations["acme.dev/attempt"], "2");
        assert_eq!(annotations["acme.dev/issue-id"], "7", "another prefix: from the spec");
        assert_eq!(annotations["acme.dev/agent-name"], "strong");
        assert_eq!(annotations["why"], "retry");
    }

    #[test]
    fn a42_a43_feedback_goes_where_the_coder_reads_it_and_the_path_stays() {
        let told = make(
            RetriedKind::Workload,
            &workload(&json!({})),
            &rule(&json!({})),
            Some("F"),
        );
        assert_eq!(told["spec"]["intent"], "fix it\n\nF");
        assert_eq!(told["spec"]["issues"], json!([7]));
        assert_eq!(told["spec"].get("pipeline"), None);
        let steps = json!({"spec": {"issues": null, "pipeline": [
            {"name": "code", "kind": "issue-fix", "payload": {"prompt": "p", "issue": 7}, "agentRef": {"name": "c"}},
            {"name": "verify", "kind": "verify", "payload": {}, "agentRef": {"name": "v"}}]}});
        let told = make(RetriedKind::Workload, &workload(&steps), &rule(&json!({})), Some("F"));
        assert_eq!(
            told["spec"]["pipeline"][0]["payload"],
            json!({"prompt": "p", "issue": 7, "promptPrefix": "F"})
        );
        assert_eq!(told["spec"]["pipeline"][1]["payload"], json!({}));
        assert_eq!(told["spec"]["intent"], "fix it");
        let neither = json!({"spec": {"issues": null}});
        let told = make(RetriedKind::Workload, &workload(&neither), &rule(&json!({})), Some("F"));
        assert_eq!(told["metadata"]["annotations"][keys::RETRY_FEEDBACK], "F");
        assert_eq!(told["spec"]["intent"], "fix it");
    }

    #[test]
    fn a46_a47_a48_the_issue_survives() {
        let bare = json!({"metadata": {"annotations": {"foreman.llmkube.dev/issue-id": null}}});
        let with = |extra: &Value| {
            let mut object = workload(&bare);
            json_patch::merge(&mut object, extra);
            let new = make(RetriedKind::Workload, &object, &rule(&json!({})), None);
            new["metadata"]["annotations"]["foreman.llmkube.dev/issue-id"].clone()
        };
        assert_eq!(with(&json!({})), "7");
        let step = json!({"spec": {"issues": null, "pipeline": [{"payload": {"issue": 9}}]}});
        assert_eq!(with(&step), "9");
        assert_eq!(with(&json!({"spec": {"issues": null}})), "7", "from the name");
        for name in ["wl-acme-app-²", "wl-acme-app-", "wl", "wl-0", "wl-x7"] {
            let named = json!({"metadata": {"name": name}, "spec": {"issues": null}});
            assert_eq!(with(&named), Value::Null, "{name}");
        }
    }

    #[test]
    fn an_object_of_the_bridge_leaves_its_sight() {
        let bridged = json!({"metadata": {"labels": {"created-by": "dispatch-bridge-prfix"}}});
        let new = make(RetriedKind::Workload, &workload(&bridged), &rule(&json!({})), None);
        assert_eq!(new["metadata"]["labels"]["created-by"], "taskgate");
        assert_eq!(
            new["metadata"]["annotations"][keys::TAKEN_OVER],
            "dispatch-bridge-prfix"
        );
        let again = make(RetriedKind::Workload, &new, &rule(&json!({})), None);
        assert_eq!(
            again["metadata"]["annotations"][keys::TAKEN_OVER],
            "dispatch-bridge-prfix"
        );
    }

    #[test]
    fn a_task_keeps_its_prompt_and_gets_its_ttl_back() {
        let task = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
            "metadata": {"name": "t", "namespace": "n", "uid": "uid-1", "finalizers": ["kelos.dev/finalizer"],
                "labels": {"taskgate.dev/work-item": "x"},
                "annotations": {"taskgate.dev/item": "epic", "taskgate.dev/ttl-seconds-after-finished": "60",
                    "taskgate.dev/recorded": "u", "taskgate.dev/cancelled-by": "x"}},
            "spec": {"type": "codex", "prompt": "do it"}, "status": {"phase": "Failed"},
        });
        let overrides = rule(&json!({"overrides": {"task": {"model": "bigger"}, "workload": {"repo": "x"}}}));
        let new = make(RetriedKind::Task, &task, &overrides, Some("F"));
        assert_eq!(
            new["spec"],
            json!({"type": "codex", "prompt": "do it\n\nF", "model": "bigger", "ttlSecondsAfterFinished": 60})
        );
        assert_eq!(
            new["metadata"],
            json!({"name": "t", "namespace": "n", "labels": {}, "annotations": {
                "taskgate.dev/item": "epic", "taskgate.dev/retry-of": "uid-1", "foreman.llmkube.dev/attempt": "2"}})
        );
    }

    #[test]
    fn whatever_stands_there_a_successor_comes_of_it() {
        for spec in [
            json!(null),
            json!({"pipeline": [null, 7, {"kind": "issue-fix", "payload": 3}]}),
            json!({"issues": {}}),
        ] {
            let odd = json!({"metadata": {"name": "w", "labels": null, "annotations": {"a": 1}}, "spec": spec});
            for kind in [RetriedKind::Workload, RetriedKind::Task] {
                let new = make(kind, &odd, &rule(&json!({})), Some("F"));
                assert_eq!(new["metadata"]["annotations"][keys::RETRY_OF], "uid-1", "{odd}");
            }
        }
    }
}
