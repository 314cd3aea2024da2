//! The cost of one decision against the number of policies in the cluster. Goal: at most 20 µs at 1,000.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec, kelos_fields::KelosFields};
use taskgate_policy::{
    AdmissionContext, Kind, KueueInfo, Operation, Phase, Policy, PolicySet, Request, SpawnerInfo, Workspace, decide,
    govern,
};

/// Half of the policies are cluster-wide and have to be looked at one by one; of the rest a tenth is in the namespace of
/// the request. The one that governs it is the weakest, so every other one is rejected first.
fn policies(count: usize) -> PolicySet {
    PolicySet::new((0..count).map(|index| {
        let last = index == count - 1;
        let spec: TaskPolicySpec = serde_json::from_value(json!({
            "priority": if last { -1 } else { 0 },
            "selector": if last { json!({}) } else { json!({"spawnerNames": [format!("other-{index}")]}) },
            "failurePolicy": {"maxRetriesPerItem": 3},
            "queueName": "agents",
            "metadata": {"labels": {"team": "blue", "area": "backend"}, "annotations": {"note": "made by policy"}},
        }))
        .expect("the spec is well-formed");
        let name = format!("policy-{index}");
        if index % 2 == 0 || last {
            let namespace_selector = serde_json::from_value(json!({"matchLabels": {"agents": "yes"}})).ok();
            Policy::cluster(
                &name,
                &ClusterTaskPolicySpec {
                    namespace_selector,
                    enforced: false,
                    policy: spec,
                },
            )
        } else {
            Policy::namespaced(if index % 20 == 1 { "team-a" } else { "elsewhere" }, &name, &spec)
        }
        .expect("the policy compiles")
    }))
}

fn task() -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {
            "name": "fixer-42", "namespace": "team-a",
            "labels": {"kelos.dev/taskspawner": "fixer"},
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"},
        },
        "spec": {"type": "claude-code", "prompt": "x".repeat(4096), "workspaceRef": {"name": "repo"}},
    })
}

fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let object = task();
    let namespace_labels = BTreeMap::from([("agents".to_owned(), "yes".to_owned())]);
    let spawner = SpawnerInfo::default();
    let workspace = Workspace::Present(Arc::default());
    for count in [1, 100, 1_000] {
        let policies = policies(count);
        for phase in [Phase::Mutating, Phase::Validating] {
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
                phase,
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
            group.bench_with_input(
                BenchmarkId::new(format!("{phase:?}"), count),
                &request,
                |bencher, request| {
                    bencher.iter(|| decide(&govern(black_box(request), &context), None, Timestamp::UNIX_EPOCH));
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
