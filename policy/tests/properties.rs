//! What holds for every decision, on generated objects that include very odd ones.

#![allow(clippy::unwrap_used)]

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use proptest::{collection::btree_map, prelude::*};
use serde_json::{Map, Value, json};
use taskgate_api::{
    ClusterTaskPolicySpec, Mode, TaskPolicySpec, WorkItemStatus,
    kelos_fields::KelosFields,
    keys,
    task_policy::{FailurePolicy, MetadataPolicy, PropagationTarget, TemplateEngine},
};
use taskgate_policy::{
    AdmissionContext, Decision, ItemSnapshot, Kind, KueueInfo, Operation, Phase, Policy, PolicySet, Request,
    SpawnerInfo, Workspace, decide, govern, review_task_update, without_reserved_keys,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Any JSON, biased towards the keys that the code looks at.
fn odd_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(odd_key(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn odd_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("labels".to_owned()),
        Just("annotations".to_owned()),
        Just("metadata".to_owned()),
        Just("spec".to_owned()),
        Just("suspend".to_owned()),
        Just("finalizers".to_owned()),
        Just("ttlSecondsAfterFinished".to_owned()),
        Just("kueue.x-k8s.io/queue-name".to_owned()),
        Just("a/b~c".to_owned()),
        Just("resources".to_owned()),
        "\\PC{0,8}",
    ]
}

fn map() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => btree_map("[a-c]", "[x-z]", 0..3).prop_map(|map| json!(map)),
        1 => odd_value(),
    ]
}

/// A Task or Job that is plausible at the places that matter and odd everywhere else.
fn object() -> impl Strategy<Value = Value> {
    let extra = || btree_map(odd_key(), odd_value(), 0..4);
    (map(), map(), extra(), extra(), extra()).prop_map(|(labels, annotations, metadata, spec, top)| {
        let mut metadata: Map<String, Value> = metadata.into_iter().collect();
        metadata.insert("labels".into(), labels);
        metadata.insert("annotations".into(), annotations);
        metadata.insert("name".into(), json!("fixer-42"));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.insert("kelos.dev/taskspawner".into(), json!("fixer"));
        }
        metadata.remove("deletionTimestamp");
        let mut object: Map<String, Value> = top.into_iter().collect();
        object.insert("metadata".into(), Value::Object(metadata));
        object.insert("spec".into(), Value::Object(spec.into_iter().collect()));
        Value::Object(object)
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![1 => Just(Mode::Off), 1 => Just(Mode::Observe), 1 => Just(Mode::Warn), 4 => Just(Mode::Enforce)]
}

/// A value in both languages: literal, or a template whose text may be missing, empty, illegal or hostile.
fn value() -> impl Strategy<Value = [String; 2]> {
    prop_oneof![
        2 => "[x-z]".prop_map(|text| [text.clone(), text]),
        1 => "[a-e]".prop_map(|key| [
            format!("{{{{ task.metadata.labels.{key} }}}}"),
            format!("{{{{.task.metadata.labels.{key}}}}}"),
        ]),
        1 => "[a-e]".prop_map(|key| [
            format!("{{{{ task.metadata.annotations.{key} | default(value=\"\") }}}}"),
            format!("{{{{with .task.metadata.annotations.{key}}}}}{{{{.}}}}{{{{end}}}}"),
        ]),
        1 => Just(["{{ task.spec.model }}/x".to_owned(), "{{.task.spec.model}}/x".to_owned()]),
        1 => Just(["{{ item.title }}".to_owned(), "{{.Title}}".to_owned()]),
    ]
}

fn spec() -> impl Strategy<Value = TaskPolicySpec> {
    let selector = prop_oneof![
        2 => Just(json!({})),
        1 => "[a-c]".prop_map(|key| json!({"taskSelector": {"matchExpressions": [{"key": key, "operator": "Exists"}]}})),
        1 => ("[a-c]", "[x-z]").prop_map(|(key, value)| json!({"taskSelector": {"matchLabels": {key: value}}})),
        1 => "[a-c]".prop_map(|key| json!({"taskSelector": {"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}})),
    ];
    let entries = || btree_map("[a-e]", value(), 0..4);
    let metadata = (
        proptest::option::of(mode()),
        entries(),
        entries(),
        any::<bool>(),
        any::<[bool; 2]>(),
        proptest::option::of("[x-z]"),
        proptest::sample::subsequence(vec![PropagationTarget::Job, PropagationTarget::Pod], 0..=2),
    );
    let metadata = metadata.prop_map(
        |(mode, labels, annotations, go, [override_existing, from_source], missing_value, propagate)| {
            let engine = if go {
                TemplateEngine::GoTemplate
            } else {
                TemplateEngine::Tera
            };
            let written = |entries: BTreeMap<String, [String; 2]>| {
                let entries = entries.into_iter();
                entries
                    .map(|(key, [tera, go_template])| (key, if go { go_template } else { tera }))
                    .collect()
            };
            MetadataPolicy {
                mode,
                engine: Some(engine),
                labels: written(labels),
                annotations: written(annotations),
                override_existing,
                from_source,
                missing_value,
                propagate: Some(propagate),
                ..MetadataPolicy::default()
            }
        },
    );
    let queue = proptest::option::of("[a-z]{1,8}");
    let failure = (
        proptest::option::of(mode()),
        0..3u32,
        proptest::option::of("\\{\\{ task\\.metadata\\.labels\\.[a-c] \\}\\}"),
    );
    let failure = failure.prop_map(|(mode, max_retries_per_item, item_key)| FailurePolicy {
        mode,
        max_retries_per_item,
        item_key,
        ..FailurePolicy::default()
    });
    (
        mode(),
        selector,
        -3..3i32,
        metadata,
        queue,
        proptest::option::of(failure),
    )
        .prop_map(
            |(mode, selector, priority, metadata, queue_name, failure_policy)| TaskPolicySpec {
                mode,
                priority,
                selector: serde_json::from_value(selector).unwrap(),
                metadata: Some(metadata),
                queue_name,
                failure_policy,
                ..TaskPolicySpec::default()
            },
        )
}

fn policies() -> impl Strategy<Value = PolicySet> {
    proptest::collection::vec((spec(), any::<bool>(), any::<bool>()), 0..6).prop_map(|specs| {
        PolicySet::new(specs.into_iter().enumerate().map(|(index, (spec, cluster, enforced))| {
            let name = format!("p{index}");
            if cluster {
                let spec = ClusterTaskPolicySpec {
                    namespace_selector: None,
                    enforced,
                    policy: spec,
                };
                Policy::cluster(&name, &spec).unwrap()
            } else {
                Policy::namespaced("team", &name, &spec).unwrap()
            }
        }))
    })
}

fn run(policies: &PolicySet, kind: Kind, phase: Phase, operation: Operation, object: &Value) -> Decision {
    let owner = json!({"metadata": {"name": "fixer-42", "labels": {"a": "x"}}});
    let labels = BTreeMap::new();
    let spawner = SpawnerInfo {
        has_issue_source: true,
        ..SpawnerInfo::default()
    };
    let context = AdmissionContext {
        policies,
        namespace_labels: &labels,
        owner_task: (kind == Kind::Job).then_some(&owner),
        spawner: Some(&spawner),
        workspace: &Workspace::Unknown,
        kueue: &KueueInfo::default(),
        kelos_fields: &KelosFields::new(),
    };
    let mutated = phase == Phase::Mutating && operation == Operation::Create;
    let seen = if mutated {
        without_reserved_keys(kind, object)
    } else {
        Cow::Borrowed(object)
    };
    let request = Request {
        phase,
        kind,
        operation,
        namespace: "team",
        object: &seen,
        sent: object,
        old: &Value::Null,
        user: "tester",
        own: false,
        dry_run: false,
    };
    decide(&govern(&request, &context), snapshot(&WorkItemStatus::default()), NOW)
}

/// Nothing remembered, one Task under way: a limit of one stops Jobs.
fn snapshot(status: &WorkItemStatus) -> ItemSnapshot<'_> {
    ItemSnapshot {
        status: Some(status),
        active: Some(1),
    }
}

/// Annotations that only taskgate sets, with forged values.
fn own_marks() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let keys = vec![
        keys::RECORDED,
        keys::ITEM_KEY,
        keys::SOURCE_HEAD,
        keys::RETRY_OF,
        "taskgate.dev/unknown",
    ];
    (proptest::sample::subsequence(keys, 0..=5), "[a-z]{0,6}/?")
        .prop_map(|(keys, value)| keys.into_iter().map(|key| (key, value.clone())).collect())
}

fn mark(object: &mut Value, marks: &[(&'static str, String)]) -> bool {
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else {
        return false;
    };
    for (key, value) in marks {
        annotations.insert((*key).to_owned(), json!(value));
    }
    !marks.is_empty()
}

/// What of taskgate's own is on `object`.
fn own_of(object: &Value) -> Vec<Value> {
    let own = |map: &str| {
        let entries = object
            .pointer(&format!("/metadata/{map}"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        Value::Object(
            entries
                .into_iter()
                .filter(|(key, _)| key.starts_with(keys::PREFIX))
                .collect(),
        )
    };
    vec![
        own("labels"),
        own("annotations"),
        object["metadata"]["finalizers"].clone(),
        object["spec"].clone(),
    ]
}

/// Removes what a decision may set from the maps of `metadata`.
fn untouched_maps(metadata: Option<&mut Value>) {
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        for map in ["labels", "annotations"] {
            let Some(value) = metadata.get_mut(map) else { continue };
            match value.as_object_mut() {
                Some(entries) => {
                    let ours = |key: &str| {
                        key.len() == 1 || key.starts_with("kueue.x-k8s.io/") || key.starts_with(keys::PREFIX)
                    };
                    entries.retain(|key, _| !ours(key));
                }
                None => *value = json!({}),
            }
            if value.as_object().is_some_and(Map::is_empty) {
                metadata.remove(map);
            }
        }
    }
}

/// `object` without the fields that a decision may touch.
fn untouched(mut object: Value) -> Value {
    untouched_maps(object.get_mut("metadata"));
    if let Some(template) = object.pointer_mut("/spec/template").and_then(Value::as_object_mut) {
        untouched_maps(template.get_mut("metadata"));
        if template.get("metadata").is_none_or(|metadata| !metadata.is_object()) {
            template.insert("metadata".into(), json!({}));
        }
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("suspend");
        spec.remove("ttlSecondsAfterFinished");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let finalizers = metadata.remove("finalizers");
        let kept: Vec<Value> = finalizers
            .and_then(|list| list.as_array().cloned())
            .into_iter()
            .flatten()
            .filter(|finalizer| finalizer != keys::ACCOUNTING)
            .collect();
        metadata.insert("finalizers".into(), kept.into());
    }
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_second_pass_is_an_empty_patch_and_nothing_else_was_touched(
        policies in policies(), object in object(), job in any::<bool>(),
    ) {
        let kind = if job { Kind::Job } else { Kind::Task };
        let first = run(&policies, kind, Phase::Mutating, Operation::Create, &object);
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &first.patch).expect("the patch applies to the object it was made for");
        prop_assert_eq!(untouched(patched.clone()), untouched(object.clone()));
        let second = run(&policies, kind, Phase::Mutating, Operation::Create, &patched);
        prop_assert!(second.patch.0.is_empty(), "first {:?}\nsecond {:?}", first.patch, second.patch);
        for operation in &first.patch.0 {
            let touches_ttl = operation.path().as_str() == "/spec/ttlSecondsAfterFinished";
            prop_assert!(touches_ttl != matches!(operation, json_patch::PatchOperation::Add(_)));
        }
    }

    #[test]
    fn what_only_taskgate_sets_is_what_it_sets(
        policies in policies(), mut object in object(), marks in own_marks(), job in any::<bool>(),
    ) {
        let kind = if job { Kind::Job } else { Kind::Task };
        let plain = run(&policies, kind, Phase::Mutating, Operation::Create, &object);
        let mut expected = object.clone();
        json_patch::patch(&mut expected, &plain.patch).unwrap();
        let marked = mark(&mut object, &marks);
        let first = run(&policies, kind, Phase::Mutating, Operation::Create, &object);
        json_patch::patch(&mut object, &first.patch).unwrap();
        prop_assert_eq!(own_of(&object), own_of(&expected), "{:?}", marks);
        let warned = first.warnings.iter().any(|warning| warning.contains("only taskgate sets these"));
        prop_assert_eq!(warned, marked);
        let second = run(&policies, kind, Phase::Mutating, Operation::Create, &object);
        prop_assert!(second.patch.0.is_empty(), "first {:?}\nsecond {:?}", first.patch, second.patch);
    }

    #[test]
    fn a_task_that_is_sent_again_keeps_its_spec_and_the_keys_of_taskgate(
        policies in policies(), mut object in object(), other in object(), ttl in 0..9,
    ) {
        object["spec"]["ttlSecondsAfterFinished"] = json!(ttl);
        let mut stored = object.clone();
        let created = run(&policies, Kind::Task, Phase::Mutating, Operation::Create, &object);
        json_patch::patch(&mut stored, &created.patch).unwrap();
        for sent in [&object, &other, &stored] {
            let mut after = sent.clone();
            let decision = review_task_update(&stored, sent);
            prop_assert!(decision.allowed());
            json_patch::patch(&mut after, &decision.patch).unwrap();
            prop_assert!(review_task_update(&stored, &after).patch.0.is_empty());
            for (map, keys) in [("labels", &keys::PROTECTED_LABELS[..]), ("annotations", &keys::PROTECTED_ANNOTATIONS[..])] {
                for key in keys.iter().filter(|key| stored["metadata"][map][**key].is_string()) {
                    prop_assert_eq!(&after["metadata"][map][*key], &stored["metadata"][map][*key]);
                }
            }
            if sent != &other {
                prop_assert_eq!(&after["spec"], &stored["spec"]);
            }
            prop_assert_eq!(untouched(after), untouched(sent.clone()));
        }
    }

    #[test]
    fn without_a_policy_nothing_happens(object in object(), job in any::<bool>()) {
        let kind = if job { Kind::Job } else { Kind::Task };
        for phase in [Phase::Mutating, Phase::Validating] {
            let decision = run(&PolicySet::default(), kind, phase, Operation::Create, &object);
            prop_assert_eq!(decision, Decision::default());
        }
    }

    #[test]
    fn only_a_create_of_a_living_object_is_governed(policies in policies(), object in object()) {
        for operation in [Operation::Update, Operation::Delete, Operation::Connect] {
            let decision = run(&policies, Kind::Task, Phase::Mutating, operation, &object);
            prop_assert_eq!(decision, Decision::default());
        }
        let mut dying = object;
        dying["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        for phase in [Phase::Mutating, Phase::Validating] {
            prop_assert_eq!(run(&policies, Kind::Task, phase, Operation::Create, &dying), Decision::default());
        }
    }

    #[test]
    fn any_json_at_all_gets_an_answer(policies in policies(), object in odd_value()) {
        for kind in [Kind::Task, Kind::Job, Kind::TaskSpawner, Kind::TaskPolicy, Kind::ClusterTaskPolicy, Kind::WorkItem, Kind::WorkItemStatus] {
            for phase in [Phase::Mutating, Phase::Validating] {
                let decision = run(&policies, kind, phase, Operation::Create, &object);
                for text in decision.warnings.iter().chain(decision.audit.values()) {
                    prop_assert!(text.chars().count() <= 256);
                }
            }
        }
    }

    #[test]
    fn only_enforce_changes_anything(policies in proptest::collection::vec(spec(), 1..5), object in object()) {
        let softened = PolicySet::new(policies.into_iter().enumerate().map(|(index, mut spec)| {
            spec.mode = if index % 2 == 0 { Mode::Observe } else { Mode::Warn };
            spec.metadata.as_mut().unwrap().mode = None;
            if let Some(failure) = &mut spec.failure_policy {
                failure.mode = None;
            }
            Policy::namespaced("team", &format!("p{index}"), &spec).unwrap()
        }));
        for kind in [Kind::Task, Kind::Job] {
            let decision = run(&softened, kind, Phase::Mutating, Operation::Create, &object);
            prop_assert!(decision.patch.0.is_empty() && decision.allowed());
        }
    }
}
