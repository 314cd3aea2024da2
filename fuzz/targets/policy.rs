//! An untrusted policy: compiled, and rendered over Tasks and Jobs.
//!
//! The input is a TaskPolicy, or its `spec` alone, as JSON or YAML. Its field `task`, if there is one, is the Task.

#![no_main]

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use jiff::Timestamp;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use taskgate_api::{TaskPolicySpec, kelos_fields::KelosField};
use taskgate_fuzz::{cpu_time, init, json, rules, template};
use taskgate_policy::{
    AdmissionContext, Kind, KueueInfo, Operation, Phase, Policy, PolicySet, Request, SpawnerInfo, Workspace, decide,
    govern,
    metadata::{TemplateInput, fill, preview},
    retry::apply_sections,
    without_reserved_keys,
};

/// The CPU time of compiling one policy and evaluating five requests, with debug assertions and coverage: far more than necessary, far
/// less than a lease.
const MAX_TIME: Duration = Duration::from_secs(1);
/// The longest annotation, in bytes.
const MAX_ANNOTATION: usize = 16 * 1024;

/// A Task of the largest size that templates read.
static TASK: LazyLock<Value> = LazyLock::new(|| {
    let long = "aA/ ß-".repeat(600);
    let annotations: Map<_, _> = (0..100)
        .map(|index| (format!("note-{index}"), long.clone().into()))
        .collect();
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {
            "name": "fixer-42", "namespace": "team", "uid": "task-uid", "annotations": annotations,
            "labels": {"kelos.dev/taskspawner": "fixer", "team": "blue", "lane": "a.b_c-d"},
        },
        "spec": {"type": "claude-code", "model": long, "branch": "fix/42", "ttlSecondsAfterFinished": 60,
            "workspaceRef": {"name": "shop"}, "dependsOn": vec!["fixer-41"; 100]},
    })
});

fn govern_and_decide(policies: &PolicySet, kind: Kind, phase: Phase, object: &Value, owner: &Value) -> Option<Value> {
    let labels = BTreeMap::from([("stage".to_owned(), "prod".to_owned())]);
    let spawner = SpawnerInfo {
        has_issue_source: true,
        labels: labels.clone(),
        ..SpawnerInfo::default()
    };
    let kelos_fields = KelosField::all();
    let facts = AdmissionContext {
        kelos_fields: &kelos_fields,
        policies,
        namespace_labels: &labels,
        owner_task: (kind == Kind::Job).then_some(owner),
        spawner: Some(&spawner),
        workspace: &Workspace::Unknown,
        kueue: &KueueInfo::default(),
    };
    let stated = without_reserved_keys(kind, object);
    let request = Request {
        phase,
        kind,
        operation: Operation::Create,
        namespace: "team",
        object: &stated,
        sent: object,
        old: &Value::Null,
        user: "ann",
        own: false,
        dry_run: false,
    };
    let governed = govern(&request, &facts);
    if let Some(item) = governed
        .identity()
        .filter(|item| item.spawner.as_ref().is_none_or(|name| name.len() <= 253))
    {
        rules::assert_admissible(item);
    }
    let decision = decide(&governed, None, Timestamp::UNIX_EPOCH);
    for text in decision.warnings.iter().chain(decision.audit.values()) {
        assert!(text.chars().count() <= 256, "{text}");
    }
    let mut after = object.clone();
    json_patch::patch(&mut after, &decision.patch).expect("the patch applies to the object that it was made for");
    rules::assert_legal_metadata(object, &after, MAX_ANNOTATION);
    (!decision.patch.0.is_empty()).then_some(after)
}

fn run(manifest: &Value) -> Corpus {
    let spec = manifest.get("spec").unwrap_or(manifest);
    let Ok(spec) = TaskPolicySpec::deserialize(spec) else {
        return Corpus::Reject;
    };
    let policy = match Policy::namespaced("team", "agents", &spec) {
        Ok(policy) => policy,
        Err(problems) => {
            assert!(!problems.is_empty());
            return Corpus::Keep;
        }
    };
    let policies = PolicySet::new([policy.clone()]);
    let task = manifest
        .get("task")
        .filter(|task| rules::is_sent(task))
        .unwrap_or(&TASK);
    let job = json!({"metadata": {"name": "fixer-42", "labels": {"kelos.dev/task": "fixer-42"}},
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
    for (kind, object) in [(Kind::Task, task), (Kind::Job, &job)] {
        govern_and_decide(&policies, kind, Phase::Validating, object, task);
        if let Some(after) = govern_and_decide(&policies, kind, Phase::Mutating, object, task) {
            let again = govern_and_decide(&policies, kind, Phase::Mutating, &after, task);
            assert_eq!(again, None, "a second pass changed {after}");
        }
    }
    let labels = BTreeMap::from([("stage".to_owned(), "prod".to_owned())]);
    let source_fields: Map<_, _> = [
        ("title", json!("a title")),
        ("labels", json!(["a", "b"])),
        ("author", json!("octocat")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    let scope = TemplateInput {
        object: task,
        namespace: "team",
        namespace_labels: &labels,
        spawner: None,
        workspace: None,
        user: Some("ann"),
        source_fields: Some(&source_fields),
    };
    for line in preview(&policy, &scope) {
        // An existing value of the Task stays.
        let own = line.note.contains("stays");
        let legal = line.value.as_deref().is_none_or(rules::is_label_value);
        assert!(own || legal || line.kind != "label", "{line:?}");
    }
    fill(&policies, &scope);
    let mut workload = json!({"metadata": {"name": "wl", "namespace": "team"}, "spec": {"intent": "fix it"}});
    let before = workload.clone();
    apply_sections(&policies, "team", &labels, &mut workload);
    rules::assert_legal_metadata(&before, &workload, MAX_ANNOTATION);
    Corpus::Keep
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate(data, size, max_size, seed, template::any)
});

fuzz_target!(init: init(), |data: &[u8]| -> Corpus {
    let Some(manifest) = json::parse(data) else { return Corpus::Reject };
    LazyLock::force(&TASK);
    let began = cpu_time();
    let kept = run(&manifest);
    let took = cpu_time().saturating_sub(began);
    assert!(took <= MAX_TIME, "took {took:?}");
    kept
});
