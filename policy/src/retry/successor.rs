//! The successor of a failed object: built from its predecessor, under the current policy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use taskgate_api::{
    Lenient as _, Mode,
    foreman::{self, AGENT_NAME, ATTEMPT, CREATED_BY, ISSUE_ID, Workload},
    kelos::{self, SOURCE_NUMBER, Task},
    keys, kueue,
    metadata::Metadata,
    moved_field::{self, MOVED_FIELDS},
    retry_status::Transition,
    task_policy::{RetriedKind, RetryPolicy},
};

use super::{Retried, feedback};
use crate::{
    decision::{Detail, Effect, Finding, Governed, NotQueued},
    kubernetes::{Edit, merge},
    matching::{PolicyScope, PolicySet, QueueName, QueueRule, Section},
    metadata::{self, Planned, Stage, Values},
    template::{Rendering, TemplateInput},
};

/// The largest predecessor that a `WorkItem` takes, in bytes: it has the history as well, and an object may have 1.5 MiB.
pub const MAX_PREDECESSOR: usize = 768 * 1024;

/// Annotations that belong to one object alone. The bridge copied such along, and a later failure was pruned at once for it
/// (foreman §1.7).
const OF_ONE_OBJECT: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "kelos.dev/taskbudget-labels",
];
/// taskgate's own annotations that the successor keeps.
const LASTING: [&str; 3] = [keys::ITEM, keys::ITEM_KEY, keys::TAKEN_OVER];

/// The inputs of a successor besides its predecessor.
#[derive(Clone, Copy, Debug)]
pub struct Succession<'a> {
    /// The current policy.
    pub rule: &'a RetryPolicy,
    /// The successor's number.
    pub attempt: u32,
    /// The UID of the predecessor.
    pub of: &'a str,
    /// Why the predecessor failed.
    pub feedback: Option<&'a str>,
}

/// What of a failed object its successor is built from: name, spec, owners, and the labels and annotations that are not about
/// this very object. No status, nothing that the API server keeps, no finalizer: its owner adds it again, and
/// a copied one would block the successor for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predecessor {
    api_version: String,
    kind: String,
    metadata: Kept,
    spec: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<OwnerReference>,
}

impl Predecessor {
    /// What is kept of `object`.
    pub fn of(object: Retried<'_>) -> Self {
        let metadata = object.metadata();
        let value = object.object();
        let text = |field: &str| value.text(field).unwrap_or_default().to_owned();
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let owners = value.pointer("/metadata/ownerReferences");
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            metadata: Kept {
                name: metadata.name().unwrap_or_default().to_owned(),
                namespace: metadata.namespace().unwrap_or_default().to_owned(),
                labels: metadata
                    .labels()
                    .filter(|(key, _)| *key != keys::WORK_ITEM)
                    .map(owned)
                    .collect(),
                annotations: metadata
                    .annotations()
                    .filter(|(key, _)| lasts(key))
                    .map(owned)
                    .collect(),
                owner_references: owners
                    .and_then(|owners| Vec::deserialize(owners).ok())
                    .unwrap_or_default(),
            },
            spec: value
                .get("spec")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// What `transition`, stored in a `WorkItem` of `namespace`, keeps of its predecessor. Errors with why that cannot have been
    /// written there by taskgate.
    pub fn stored(transition: &Transition, namespace: &str) -> Result<Self, &'static str> {
        let stored = transition
            .predecessor
            .as_ref()
            .ok_or("nothing is kept of its predecessor")?;
        if stored.to_string().len() > MAX_PREDECESSOR {
            return Err("what is kept of its predecessor is too large");
        }
        let predecessor = Self::deserialize(stored).map_err(|_| "what is kept of its predecessor is no object")?;
        let old = &transition.old;
        let group = match old.kind {
            RetriedKind::Task => kelos::GROUP,
            RetriedKind::Workload => foreman::GROUP,
        };
        let version = predecessor.api_version.split_once('/');
        let same = predecessor.kind == old.kind.as_ref()
            && predecessor.metadata.name == old.name
            && predecessor.metadata.namespace == namespace
            && version.is_some_and(|(of, _)| of == group);
        if same {
            Ok(predecessor)
        } else {
            Err("what is kept of its predecessor is another object")
        }
    }

    /// The object as JSON.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn lasts(key: &str) -> bool {
    let moved = MOVED_FIELDS.iter().any(|field| field.annotation == key);
    let ours = key.starts_with(keys::PREFIX) && !LASTING.contains(&key) && !moved;
    !ours && !OF_ONE_OBJECT.contains(&key) && !key.contains("/terminal-since")
}

/// The successor of `predecessor`, as JSON.
pub fn successor(kind: RetriedKind, predecessor: &Predecessor, succession: &Succession<'_>) -> Value {
    let Succession { rule, attempt, of, .. } = *succession;
    let mut next = predecessor.clone();
    let old = predecessor.to_value();
    restore_moved_fields(&mut next, &old);
    hand_over(&mut next.metadata);
    if let Some(overrides) = &rule.overrides {
        let fields = match kind {
            RetriedKind::Workload => &overrides.workload,
            RetriedKind::Task => &overrides.task,
        };
        let mut spec = Value::Object(std::mem::take(&mut next.spec));
        json_patch::merge(&mut spec, &Value::Object(fields.clone()));
        if let Value::Object(spec) = spec {
            next.spec = spec;
        }
        // taskgate creates the successor, so admission leaves taskgate's own keys on it: none of them is a policy's.
        let theirs = |(key, _): &(&String, &String)| !key.starts_with(keys::PREFIX);
        let owned = |(key, value): (&String, &String)| (key.clone(), value.clone());
        next.metadata
            .labels
            .extend(overrides.labels.iter().filter(theirs).map(owned));
        next.metadata
            .annotations
            .extend(overrides.annotations.iter().filter(theirs).map(owned));
    }
    add_feedback(kind, &mut next, succession.feedback);
    let prefix = rule.annotation_prefix.as_str();
    let key = |name: &str| format!("{prefix}{name}");
    let object = next.to_value();
    let issue = issue_id(kind, &object, &key(ISSUE_ID));
    let before = Workload::of(&old).coder();
    let agent = agent_name(kind, &object, before, &key(AGENT_NAME));
    let annotations = &mut next.metadata.annotations;
    annotations.insert(keys::RETRY_OF.to_owned(), of.to_owned());
    annotations.insert(key(ATTEMPT), attempt.to_string());
    annotations.extend(issue.map(|issue| (key(ISSUE_ID), issue)));
    annotations.extend(agent.map(|agent| (key(AGENT_NAME), agent)));
    next.to_value()
}

/// What admission moved out of the spec of `old` goes back to where admission finds it again.
fn restore_moved_fields(next: &mut Predecessor, old: &Value) {
    for field in MOVED_FIELDS {
        next.metadata.annotations.remove(field.annotation);
        if let Some(value) = field.kept(old) {
            next.spec.insert(field.name.to_owned(), value);
        }
    }
}

/// Takes an object of the dispatch bridge over: the bridge selects by this label alone (foreman §1.6).
fn hand_over(metadata: &mut Kept) {
    let bridge = metadata
        .labels
        .get(CREATED_BY)
        .filter(|label| label.starts_with(foreman::BRIDGE));
    if let Some(bridge) = bridge.cloned() {
        metadata.annotations.insert(keys::TAKEN_OVER.to_owned(), bridge);
        metadata
            .labels
            .insert(CREATED_BY.to_owned(), keys::PART_OF_TASKGATE.to_owned());
    }
}

/// Puts the feedback where the next run reads it, in the place of any former one.
///
/// A Workload that names issues is read by Foreman together with its `intent`, one with steps by each step's
/// `promptPrefix`. Either keeps Foreman's own iterations and the text of the issue, which steps and prompts of our own would
/// not (foreman §1.8).
fn add_feedback(kind: RetriedKind, next: &mut Predecessor, text: Option<&str>) {
    let replace = |fields: &mut Map<String, Value>, name: &str| {
        let old = fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let new = feedback::insert(old, text);
        if new != old {
            fields.insert(name.to_owned(), new.into());
        }
    };
    if kind == RetriedKind::Task {
        return replace(&mut next.spec, "prompt");
    }
    let names_issues = Workload::of(&next.to_value()).issues().next().is_some();
    let steps = next.spec.get_mut("pipeline").and_then(Value::as_array_mut);
    let mut coders = steps
        .into_iter()
        .flatten()
        .filter(|step| step.get("kind").is_some_and(|kind| kind == "issue-fix"))
        .filter_map(|step| step.get_mut("payload")?.as_object_mut())
        .peekable();
    if coders.peek().is_some() {
        coders.for_each(|payload| replace(payload, "promptPrefix"));
    } else if names_issues {
        replace(&mut next.spec, "intent");
    } else if let Some(text) = text {
        next.metadata
            .annotations
            .insert(keys::RETRY_FEEDBACK.to_owned(), text.to_owned());
    }
}

/// The issue of the predecessor's annotation; else the issue's number, by the object.
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

/// The agent of the successor: the identity that its creator states, such as the bridge's `foreman/coder`; else its coder. The name
/// of the coder `before` is no identity but what taskgate wrote.
fn agent_name(kind: RetriedKind, object: &Value, before: Option<&str>, key: &str) -> Option<String> {
    if kind == RetriedKind::Task {
        return None;
    }
    let coder = Workload::of(object).coder();
    let stated = Metadata::of(object).annotation(key);
    let identity = stated.filter(|stated| !stated.is_empty() && Some(*stated) != before);
    identity.or(coder).or(stated).map(ToOwned::to_owned)
}

/// Moves the TTL of a Task without a spawner to an annotation, so that it still exists when its retry is due. Where the failure
/// section is enforced, that section moves it.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Option<Finding<'a>> {
    let matched = governed.sections.retry?;
    let kept = governed.sections.failure.zip(governed.identity());
    let is_kept = kept.is_some_and(|(matched, _)| matched.mode == Mode::Enforce);
    if matched.mode != Mode::Enforce || is_kept || task.spawner().is_some() || !matched.rule.covers(RetriedKind::Task) {
        return None;
    }
    let object = governed.request.object;
    let ttl = moved_field::TTL.in_spec(object)?;
    let effect = Effect::Change(Edit::move_field(moved_field::TTL, object)?.into());
    Some(Finding::new(Section::Retry, &matched, Detail::TtlKept(ttl), effect))
}

/// Adds to `successor`, a Workload, which does not pass admission, what current policies set: labels and annotations that it does
/// not have, or that a policy overrides; the queue and the priority class, unless it names them itself.
///
/// Foreman copies neither to its Jobs (foreman §2.4); other controllers may.
pub fn apply_sections(
    policies: &PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    successor: &mut Value,
) {
    let input = TemplateInput {
        object: successor,
        namespace,
        namespace_labels,
        spawner: None,
        workspace: None,
        user: None,
        source_fields: None,
    };
    let scope = PolicyScope::of_input(policies, &input);
    let sections = scope.sections(successor);
    let mut values = Values::new(input, scope.managed());
    let mut planned = Planned::of(successor);
    let stage = Stage::Creation { source_readable: false };
    let found = metadata::findings(&sections.metadata, &mut values, &mut planned, stage);
    let mut edits: Vec<_> = found.iter().flat_map(Finding::planned).cloned().collect();
    if let Some(matched) = sections.queue.filter(|matched| matched.mode == Mode::Enforce) {
        edits.extend(enqueue(Metadata::of(successor), matched.rule, values.rendering()));
    }
    json_patch::merge(successor, &merge(&edits));
}

fn enqueue(metadata: Metadata<'_>, rule: QueueRule<'_>, rendering: &mut Rendering<'_>) -> Vec<Edit> {
    let named = [
        (kueue::QUEUE_NAME, rule.queue),
        (kueue::PRIORITY_CLASS, rule.priority_class),
    ];
    let missing = named
        .into_iter()
        .filter(|(key, _)| kueue::requested(metadata, key).is_none());
    let edit = |(key, name): (&str, Option<&QueueName>)| match name?.render(rendering) {
        Ok(name) => Some(Edit::Label(key.to_owned(), name)),
        Err(error) => {
            let why = NotQueued::QueueNameInvalid.annotation(&format!("{key}: {error}"));
            Some(Edit::Annotation(keys::NOT_QUEUED.to_owned(), why))
        }
    };
    missing.filter_map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(extra: &Value) -> RetryPolicy {
        let mut rule = extra.clone();
        rule["maxAttempts"] = 3.into();
        serde_json::from_value(rule).unwrap()
    }

    fn make(kind: RetriedKind, old: &Value, rule: &RetryPolicy, feedback: Option<&str>) -> Value {
        let left = Predecessor::of(Retried::of(kind, old).unwrap());
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
    fn a_successor_has_the_spec_and_no_status_of_its_predecessor() {
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
    fn the_current_policy_wins_field_by_field() {
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
    fn the_agent_is_filled_in_and_an_identity_is_kept() {
        let strong = rule(&json!({"overrides": {"workload": {"coderAgentRef": {"name": "strong"}}}}));
        let plain = rule(&json!({}));
        for (stated, rule, expected) in [
            (json!("foreman/coder"), &plain, "foreman/coder"),
            (json!("foreman/coder"), &strong, "foreman/coder"),
            (json!(""), &plain, "coder"),
            (json!(""), &strong, "strong"),
            (json!(null), &plain, "coder"),
            (json!(null), &strong, "strong"),
            // As taskgate filled it in before.
            (json!("coder"), &strong, "strong"),
        ] {
            let object = workload(&json!({"metadata": {"annotations": {"foreman.llmkube.dev/agent-name": stated}}}));
            let new = make(RetriedKind::Workload, &object, rule, None);
            assert_eq!(
                new["metadata"]["annotations"]["foreman.llmkube.dev/agent-name"], expected,
                "{stated}"
            );
        }
        let without_coder = workload(&json!({"spec": {"coderAgentRef": null}}));
        let new = make(RetriedKind::Workload, &without_coder, &plain, None);
        assert_eq!(
            new["metadata"]["annotations"]["foreman.llmkube.dev/agent-name"],
            "foreman/coder"
        );
    }

    #[test]
    fn feedback_is_added_where_the_coder_reads_it() {
        let next = make(
            RetriedKind::Workload,
            &workload(&json!({})),
            &rule(&json!({})),
            Some("F"),
        );
        assert_eq!(next["spec"]["intent"], "fix it\n\nF");
        assert_eq!(next["spec"]["issues"], json!([7]));
        assert_eq!(next["spec"].get("pipeline"), None);
        let steps = json!({"spec": {"issues": null, "pipeline": [
            {"name": "code", "kind": "issue-fix", "payload": {"prompt": "p", "issue": 7}, "agentRef": {"name": "c"}},
            {"name": "verify", "kind": "verify", "payload": {}, "agentRef": {"name": "v"}}]}});
        let next = make(RetriedKind::Workload, &workload(&steps), &rule(&json!({})), Some("F"));
        assert_eq!(
            next["spec"]["pipeline"][0]["payload"],
            json!({"prompt": "p", "issue": 7, "promptPrefix": "F"})
        );
        assert_eq!(next["spec"]["pipeline"][1]["payload"], json!({}));
        assert_eq!(next["spec"]["intent"], "fix it");
        let neither = json!({"spec": {"issues": null}});
        let next = make(RetriedKind::Workload, &workload(&neither), &rule(&json!({})), Some("F"));
        assert_eq!(next["metadata"]["annotations"][keys::RETRY_FEEDBACK], "F");
        assert_eq!(next["spec"]["intent"], "fix it");
    }

    #[test]
    fn the_issue_is_kept() {
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
    fn any_predecessor_gives_a_successor() {
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

    fn transition(predecessor: &Value) -> Transition {
        serde_json::from_value(json!({
            "old": {"kind": "Task", "name": "t", "uid": "u"}, "from": 1, "to": 2, "step": "Deleted",
            "since": "2026-11-21T00:00:00Z", "predecessor": predecessor,
        }))
        .unwrap()
    }

    #[test]
    fn only_what_taskgate_can_have_stored_is_taken_for_a_predecessor() {
        let good = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "t", "namespace": "n"},
            "spec": {"prompt": "do it"}});
        assert!(Predecessor::stored(&transition(&good), "n").is_ok());
        assert!(Predecessor::stored(&transition(&good), "other").is_err());
        for wrong in [
            json!("x"),
            json!({"metadata": "x"}),
            json!({"metadata": {"name": 7}}),
            json!({"metadata": {"name": "other"}}),
            json!({"metadata": {"namespace": "other"}}),
            json!({"metadata": {"labels": {"a": 1}}}),
            json!({"metadata": {"labels": ["a"]}}),
            json!({"metadata": {"ownerReferences": "x"}}),
            json!({"metadata": {"finalizers": ["x"]}}),
            json!({"spec": "x"}),
            json!({"spec": null}),
            json!({"status": {}}),
            json!({"kind": "Workload"}),
            json!({"apiVersion": "v1"}),
            json!({"apiVersion": "batch/v1"}),
            json!({"spec": {"prompt": "x".repeat(MAX_PREDECESSOR)}}),
        ] {
            let mut object = good.clone();
            json_patch::merge(&mut object, &wrong);
            assert!(Predecessor::stored(&transition(&object), "n").is_err(), "{wrong}");
        }
        assert!(Predecessor::stored(&transition(&Value::Null), "n").is_err());
    }

    #[test]
    fn a_policy_puts_none_of_taskgates_own_keys_on_a_successor() {
        let task = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "t", "namespace": "n"}, "spec": {}});
        let overrides = rule(&json!({"overrides": {
            "labels": {"taskgate.dev/work-item": "x", "team": "red"}, "annotations": {"taskgate.dev/recorded": "x"}}}));
        let new = make(RetriedKind::Task, &task, &overrides, None);
        assert_eq!(new["metadata"]["labels"], json!({"team": "red"}));
        assert_eq!(new["metadata"]["annotations"].get(keys::RECORDED), None);
    }
}

#[cfg(test)]
mod sections_tests {
    use super::*;
    use crate::fixtures;
    use serde_json::json;

    fn decorated(specs: &[Value], metadata: &Value) -> Value {
        let policies = fixtures::policies(specs.iter().cloned());
        let mut successor = json!({"metadata": {"name": "wl", "namespace": "team"}, "spec": {"intent": "fix it"}});
        json_patch::merge(&mut successor["metadata"], metadata);
        let labels = BTreeMap::from([("stage".to_owned(), "prod".to_owned())]);
        apply_sections(&policies, "team", &labels, &mut successor);
        assert_eq!(successor["spec"], json!({"intent": "fix it"}));
        successor["metadata"].clone()
    }

    #[test]
    fn a_successor_gets_the_labels_and_the_queue_of_current_policies() {
        let spec = json!({
            "queueName": "q-{{ namespace.labels.stage }}", "queuePriorityClass": "high",
            "metadata": {
                "labels": {"stage": "{{ namespace.labels.stage }}", "lane": "frontier"},
                "annotations": {"who": "{{ task.metadata.name }}"},
            },
        });
        let found = decorated(std::slice::from_ref(&spec), &json!({"labels": {"lane": "local"}}));
        assert_eq!(
            found["labels"],
            json!({"lane": "local", "stage": "prod", "kueue.x-k8s.io/queue-name": "q-prod",
                "kueue.x-k8s.io/priority-class": "high"})
        );
        assert_eq!(found["annotations"], json!({"who": "wl"}));
        let own = json!({"labels": {"kueue.x-k8s.io/queue-name": "own", "kueue.x-k8s.io/priority-class": "low"}});
        let found = decorated(std::slice::from_ref(&spec), &own);
        assert_eq!(found["labels"]["kueue.x-k8s.io/queue-name"], "own");
        assert_eq!(found["labels"]["kueue.x-k8s.io/priority-class"], "low");
        let empty = json!({"labels": {"kueue.x-k8s.io/queue-name": "", "kueue.x-k8s.io/priority-class": ""}});
        let found = decorated(&[spec], &empty);
        assert_eq!(found["labels"]["kueue.x-k8s.io/queue-name"], "q-prod");
        assert_eq!(found["labels"]["kueue.x-k8s.io/priority-class"], "high");
    }

    #[test]
    fn a_policy_that_does_not_match_or_is_not_enforced_does_nothing() {
        for spec in [
            json!({"mode": "Observe", "queueName": "q", "metadata": {"labels": {"a": "b"}}}),
            json!({"queueMode": "Warn", "queueName": "q", "metadata": {"mode": "Off", "labels": {"a": "b"}}}),
            json!({"selector": {"spawnerNames": ["fixer"]}, "queueName": "q", "metadata": {"labels": {"a": "b"}}}),
            json!({"retry": {"maxAttempts": 3}}),
        ] {
            let found = decorated(std::slice::from_ref(&spec), &json!({}));
            assert_eq!(found, json!({"name": "wl", "namespace": "team"}), "{spec}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_rendered_is_left_out_and_recorded() {
        let spec =
            json!({"queueName": "{{ task.metadata.labels.queue }}", "metadata": {"labels": {"a": "{{ item.title }}"}}});
        let found = decorated(&[spec], &json!({}));
        assert_eq!(found.get("labels"), None);
        let notes = found["annotations"].as_object().unwrap();
        assert!(
            notes[keys::NOT_QUEUED]
                .as_str()
                .unwrap()
                .starts_with("QueueNameInvalid: kueue.x-k8s.io/queue-name: ")
        );
        assert!(notes[keys::SKIPPED].as_str().unwrap().starts_with("a: "));
    }
}
