//! The cost of a Task whose policy renders ten keys, by engine; literal values beside them as the floor.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::kelos_fields::KelosFields;
use taskgate_policy::{
    AdmissionContext, Kind, KueueInfo, Operation, Phase, Policy, PolicySet, Request, SpawnerInfo, Workspace,
    WorkspaceInfo, decide, govern,
};

/// Ten keys, as Tera, as GoTemplate, and as what they come to.
const KEYS: [[&str; 3]; 10] = [
    ["{{ item.kind }}", "{{.Kind}}", "Issue"],
    ["{{ item.number }}", "{{.Number}}", "42"],
    ["{{ item.url }}", "{{.URL}}", "https://github.com/acme/shop/issues/42"],
    [
        "{{ spawner.metadata.labels.team }}",
        "{{.spawner.metadata.labels.team}}",
        "blue",
    ],
    ["{{ spawner.metadata.name }}", "{{.spawner.metadata.name}}", "fixer"],
    [
        "{{ task.spec.model | upper }}",
        "{{printf \"%s\" .task.spec.model}}",
        "opus",
    ],
    ["{{ workspace.ref }}", "{{.workspace.ref}}", "main"],
    [
        "{% if item.number > 40 %}big{% else %}small{% endif %}",
        "{{if gt .Number 40}}big{{else}}small{{end}}",
        "big",
    ],
    [
        "{{ namespace.labels.tier | default(value=\"none\") }}",
        "{{or .namespace.labels.tier \"none\"}}",
        "none",
    ],
    ["{{ item.kind }}-{{ item.number }}", "{{.Kind}}-{{.Number}}", "Issue-42"],
];

fn policies(engine: &str, column: usize) -> PolicySet {
    let entries = KEYS.iter().enumerate();
    let annotations: BTreeMap<_, _> = entries
        .map(|(index, values)| (format!("key-{index}"), values[column]))
        .collect();
    let spec = json!({"metadata": {"engine": engine, "annotations": annotations}});
    let spec = serde_json::from_value(spec).expect("the spec is well-formed");
    PolicySet::new([Policy::namespaced("team-a", "agents", &spec).expect("the policy compiles")])
}

fn task() -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {
            "name": "fixer-42", "namespace": "team-a", "labels": {"kelos.dev/taskspawner": "fixer"},
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"},
        },
        "spec": {"type": "claude-code", "prompt": "x".repeat(4096), "model": "opus", "workspaceRef": {"name": "shop"}},
    })
}

fn render(criterion: &mut Criterion) {
    let object = task();
    let namespace_labels = BTreeMap::new();
    let spawner = SpawnerInfo {
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        ..SpawnerInfo::default()
    };
    let workspace = Workspace::Present(Arc::new(WorkspaceInfo {
        repo: "https://github.com/acme/shop.git".to_owned(),
        reference: Some("main".to_owned()),
    }));
    let mut group = criterion.benchmark_group("render");
    for (name, engine, column) in [
        ("Tera", "Tera", 0),
        ("GoTemplate", "GoTemplate", 1),
        ("literal", "Tera", 2),
    ] {
        let policies = policies(engine, column);
        let context = AdmissionContext {
            policies: &policies,
            namespace_labels: &namespace_labels,
            owner_task: None,
            spawner: Some(&spawner),
            workspace: &workspace,
            kueue: &KueueInfo::default(),
            kelos_fields: &KelosFields::new(),
        };
        let request = Request {
            phase: Phase::Mutating,
            kind: Kind::Task,
            operation: Operation::Create,
            namespace: "team-a",
            object: &object,
            sent: &object,
            old: &serde_json::Value::Null,
            user: "bench",
            own: false,
            dry_run: false,
        };
        let decision = decide(&govern(&request, &context), None, Timestamp::UNIX_EPOCH);
        assert!(decision.warnings.is_empty(), "{:?}", decision.warnings);
        group.bench_function(name, |bencher| {
            bencher.iter(|| decide(&govern(black_box(&request), &context), None, Timestamp::UNIX_EPOCH));
        });
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
