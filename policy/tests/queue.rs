//! Which queue a Job is given to, and what is said when there is none: through the decision, as admission asks it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::{TaskPolicySpec, kelos_fields::KelosFields};
use taskgate_policy::{
    AdmissionContext, Decision, ItemSnapshot, Kind, KueueInfo, Operation, Phase, Policy, PolicySet, Request, Workspace,
    decide, govern, without_reserved_keys,
};

const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const CLASS: &str = "kueue.x-k8s.io/priority-class";

fn task(metadata: &Value, spec: &Value) -> Value {
    let mut task = json!({"metadata": metadata, "spec": spec});
    task["metadata"]["name"] = json!("fixer-42");
    task
}

fn job() -> Value {
    json!({"metadata": {"name": "fixer-42"}, "spec": {"template": {"spec": {"containers": [{"name": "kelos-agent"}]}}}})
}

fn decision(spec: &Value, task: &Value, job: &Value, kueue: &KueueInfo) -> Decision {
    let spec: TaskPolicySpec = serde_json::from_value(spec.clone()).expect("a spec");
    let policies = PolicySet::new([Policy::namespaced("team", "agents", &spec).expect("a policy")]);
    let context = AdmissionContext {
        policies: &policies,
        namespace_labels: &BTreeMap::new(),
        owner_task: Some(task),
        spawner: None,
        workspace: &Workspace::Unknown,
        kueue,
        kelos_fields: &KelosFields::new(),
    };
    let object = without_reserved_keys(Kind::Job, job);
    let request = Request {
        phase: Phase::Mutating,
        kind: Kind::Job,
        operation: Operation::Create,
        namespace: "team",
        object: &object,
        sent: job,
        old: &Value::Null,
        user: "kelos",
        own: false,
        dry_run: false,
    };
    decide(
        &govern(&request, &context),
        ItemSnapshot::default(),
        Timestamp::UNIX_EPOCH,
    )
}

/// The Job as it is stored, and the warnings that its creator gets.
fn made(spec: &Value, task: &Value, kueue: &KueueInfo) -> (Value, Vec<String>) {
    let mut stored = job();
    let mutation = decision(spec, task, &stored, kueue);
    json_patch::patch(&mut stored, &mutation.patch).expect("the patch fits");
    let again = decision(spec, task, &stored, kueue);
    assert!(
        again.patch.0.is_empty(),
        "a second pass changes {stored}: {:?}",
        again.patch
    );
    // Another review sees the Job again when a later webhook changed it: the API server drops equal warnings.
    assert_eq!(again.warnings, mutation.warnings);
    (stored, mutation.warnings)
}

#[test]
fn the_task_decides_first_by_label_then_annotation_then_spec_and_the_policy_last() {
    let label = json!({"labels": {(QUEUE): "label"}, "annotations": {(QUEUE): "annotation", (CLASS): "mine"}});
    let annotation = json!({"annotations": {(QUEUE): "annotation"}});
    let policy = json!({"queueName": "{{ task.spec.model }}", "queuePriorityClass": "low"});
    // Whatever governs the Task, it may ask for a queue itself.
    let silent = json!({"failurePolicy": {"maxRetriesPerItem": 3}});
    for (spec, metadata, field, queue, class) in [
        (&policy, &label, "field", json!("label"), json!("mine")),
        (&policy, &annotation, "field", json!("annotation"), json!("low")),
        (&policy, &json!({}), "field", json!("field"), json!("low")),
        (&policy, &json!({}), "", json!("opus"), json!("low")),
        (&silent, &label, "", json!("label"), json!("mine")),
        (&silent, &json!({}), "", Value::Null, Value::Null),
        // A Helm value that was left empty.
        (
            &silent,
            &json!({"labels": {(QUEUE): "", (CLASS): ""}}),
            "",
            Value::Null,
            Value::Null,
        ),
        (
            &policy,
            &json!({"labels": {(QUEUE): "", (CLASS): ""}}),
            "",
            json!("opus"),
            json!("low"),
        ),
        (
            &policy,
            &json!({"annotations": {(QUEUE): " \n"}}),
            "field",
            json!("field"),
            json!("low"),
        ),
        (
            &policy,
            &json!({"labels": {(QUEUE): ""}, "annotations": {(QUEUE): "annotation"}}),
            "field",
            json!("annotation"),
            json!("low"),
        ),
        (
            &json!({"queueName": "a", "queueMode": "Off"}),
            &label,
            "",
            Value::Null,
            Value::Null,
        ),
    ] {
        let task = task(metadata, &json!({"model": "opus", "queueName": field}));
        let (job, _) = made(spec, &task, &KueueInfo::default());
        assert_eq!(
            (&job["metadata"]["labels"][QUEUE], &job["metadata"]["labels"][CLASS]),
            (&queue, &class),
            "{metadata}"
        );
        assert_eq!(job["spec"]["suspend"] == true, !queue.is_null(), "{job}");
    }
}

#[test]
fn without_a_legal_name_the_policy_decides_and_the_user_is_warned() {
    let odd = task(&json!({"annotations": {(QUEUE): "two words"}}), &json!({}));
    let none = task(&json!({}), &json!({}));
    let class = task(&json!({"labels": {(CLASS): "High"}}), &json!({}));
    for (task, spec, suspended, part) in [
        (&odd, json!({"queueName": "agents"}), true, "two words"),
        (
            &odd,
            json!({"queueName": "agents", "queueOnError": "Ignore"}),
            false,
            "two words",
        ),
        (&class, json!({"queueName": "agents"}), true, "priority class: \"High\""),
        (
            &odd,
            json!({"metadata": {"labels": {"team": "blue"}}}),
            false,
            "two words",
        ),
        (
            &none,
            json!({"queueName": "{{ task.metadata.annotations.queue }}"}),
            true,
            "queue name: ",
        ),
        (
            &none,
            json!({"queueName": "{{ task.spec.model }}", "queueOnError": "Ignore"}),
            false,
            "queue name: ",
        ),
    ] {
        let (job, warnings) = made(&spec, task, &KueueInfo::default());
        assert_eq!(job["spec"]["suspend"] == true, suspended, "{job}");
        assert!(job["metadata"]["labels"].is_null(), "{job}");
        let annotation = job["metadata"]["annotations"]["taskgate.dev/not-queued"]
            .as_str()
            .unwrap_or_default();
        assert!(
            annotation.starts_with("QueueNameInvalid: ") && annotation.contains(part),
            "{annotation}"
        );
        assert!(
            warnings.len() == 1 && warnings[0].contains("the Job is not queued: "),
            "{warnings:?}"
        );
    }
}

/// An empty label on the Job itself names no queue either: Kueue ignores such a Job.
#[test]
fn an_empty_label_on_the_job_is_replaced_by_the_queue_of_the_policy() {
    let task = task(&json!({}), &json!({}));
    for (spec, queue) in [
        (json!({"queueName": "agents"}), "agents"),
        (json!({"metadata": {"labels": {"team": "blue"}}}), ""),
    ] {
        let mut job = job();
        job["metadata"]["labels"] = json!({(QUEUE): "", (CLASS): ""});
        let decision = decision(&spec, &task, &job, &KueueInfo::default());
        json_patch::patch(&mut job, &decision.patch).expect("the patch fits");
        assert_eq!(job["metadata"]["labels"], json!({(QUEUE): queue, (CLASS): ""}));
        assert_eq!(job["spec"]["suspend"] == true, !queue.is_empty(), "{job}");
    }
}

/// Also what a policy put on the Task; and the language is that of the policy's metadata.
#[test]
fn a_queue_template_has_the_inputs_of_metadata_in_the_language_of_the_policy() {
    let labelled = json!({"labels": {"team": "blue", "kelos.dev/taskspawner": "fixer"},
        "annotations": {"kelos.dev/source-number": "42"}});
    let task = task(&labelled, &json!({"type": "codex", "worker": {"model": "opus"}}));
    let go = json!({"engine": "GoTemplate", "labels": {"team": "blue"}});
    for (spec, queue, class) in [
        (
            json!({"queueName": "{{ task.spec.model }}-{{ item.number }}"}),
            json!("opus-42"),
            Value::Null,
        ),
        (
            json!({"queueName": "{% if task.metadata.labels.team == \"blue\" %}sky{% else %}earth{% endif %}"}),
            json!("sky"),
            Value::Null,
        ),
        (
            json!({"metadata": go, "queueName": "{{.task.spec.model}}-{{.Number}}",
                "queuePriorityClass": "{{.task.metadata.labels.team}}-{{.namespace.name}}"}),
            json!("opus-42"),
            json!("blue-team"),
        ),
        (
            json!({"metadata": go, "queueName": "{{with .spawner.metadata.name}}{{.}}{{end}}"}),
            json!("fixer"),
            Value::Null,
        ),
    ] {
        let (job, _) = made(&spec, &task, &KueueInfo::default());
        let labels = &job["metadata"]["labels"];
        assert_eq!((&labels[QUEUE], &labels[CLASS]), (&queue, &class), "{spec}: {job}");
    }
}

#[test]
fn a_job_in_an_unmanaged_namespace_is_not_changed() {
    let kueue = KueueInfo {
        manages_namespace: Some(false),
        ..KueueInfo::default()
    };
    for spec in [
        json!({"queueName": "agents"}),
        json!({"queueName": "{{ task.spec.model }}"}),
    ] {
        let (job, warnings) = made(&spec, &task(&json!({}), &json!({})), &kueue);
        assert_eq!(
            (&job["spec"]["suspend"], &job["metadata"]["labels"]),
            (&Value::Null, &Value::Null)
        );
        assert!(
            warnings.len() == 1 && warnings[0].contains("does not manage namespace team"),
            "{warnings:?}"
        );
    }
}

#[test]
fn while_kueues_configuration_cannot_be_read_no_job_is_queued() {
    let kueue = KueueInfo {
        manages_namespace: Some(true),
        config_unreadable: true,
        installed: Some(true),
        ..KueueInfo::default()
    };
    let (job, warnings) = made(&json!({"queueName": "agents"}), &task(&json!({}), &json!({})), &kueue);
    assert_eq!(
        (&job["spec"]["suspend"], &job["metadata"]["labels"]),
        (&Value::Null, &Value::Null)
    );
    assert!(
        warnings.len() == 1 && warnings[0].contains("Kueue's configuration cannot be read"),
        "{warnings:?}"
    );
}

#[test]
fn a_policy_with_an_illegal_name_is_refused() {
    for (field, value) in [
        ("queueName", "two words".to_owned()),
        ("queueName", "Agents".to_owned()),
        ("queueName", "q".repeat(300)),
        ("queueName", "{{ nothing.at_all }}".to_owned()),
        ("queueName", "{{ user }}".to_owned()),
        ("queuePriorityClass", "{{ task.spec.model | nope }}".to_owned()),
        ("queuePriorityClass", "High".to_owned()),
    ] {
        let mut spec = json!({"queueName": "agents"});
        spec[field] = json!(value);
        let spec: TaskPolicySpec = serde_json::from_value(spec).unwrap();
        let problems = Policy::namespaced("team", "agents", &spec).unwrap_err();
        assert_eq!(problems[0].field, format!("spec.{field}"), "{value}");
    }
}

#[test]
fn a_warning_states_what_keeps_a_queued_job_waiting() {
    let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    let kueue = |queues: &[&str], classes: &[&str]| KueueInfo {
        manages_namespace: Some(true),
        config_unreadable: false,
        installed: Some(true),
        local_queues: names(queues),
        priority_classes: names(classes),
    };
    let absent = KueueInfo {
        installed: Some(false),
        ..KueueInfo::default()
    };
    let requests = "no resource requests in kelos-agent";
    for (kueue, mode, parts) in [
        (kueue(&["agents"], &["high"]), "Enforce", vec![requests]),
        (
            kueue(&[], &[]),
            "Enforce",
            vec!["there is no LocalQueue agents", requests],
        ),
        (
            kueue(&["agents"], &["low"]),
            "Enforce",
            vec!["there is no WorkloadPriorityClass high", requests],
        ),
        (absent.clone(), "Enforce", vec!["Kueue is not installed", requests]),
        (KueueInfo::default(), "Enforce", vec![requests]),
        (absent.clone(), "Warn", vec!["would suspend the Job"]),
        (absent, "Observe", vec![]),
    ] {
        let spec = json!({"mode": mode, "queueName": "agents", "queuePriorityClass": "high"});
        let (_, warnings) = made(&spec, &task(&json!({}), &json!({})), &kueue);
        let found = warnings.len() == parts.len() && warnings.iter().zip(&parts).all(|(a, b)| a.contains(b));
        assert!(found, "{kueue:?} {mode}: {warnings:?}");
    }
}
