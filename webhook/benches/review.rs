//! A whole review over TLS on a kept HTTP/1.1 connection, as the API server sends it: client and server share one
//! machine, so a part of the time is the client's.

#![allow(missing_docs, reason = "criterion's macros expand to undocumented functions")]

#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use support::{FixedCluster, job, review, task, task_review};
use taskgate_webhook::ServerLimits;

const POLICY: &str = "{queueName: agents, metadata: {labels: {team: a}}, failurePolicy: {maxRetriesPerItem: 3}}";

fn bodies() -> Vec<(&'static str, &'static str, Value)> {
    let mut large = task_review("team");
    large["request"]["object"]["spec"]["prompt"] = Value::String("x".repeat(64 * 1024));
    let kind = serde_json::json!({"group": "batch", "version": "v1", "kind": "Job"});
    vec![
        ("validate a Task", "/validate/tasks?timeout=5s", task_review("team")),
        ("mutate a Task", "/mutate/tasks?timeout=5s", task_review("team")),
        ("mutate a Task of 64 KiB", "/mutate/tasks?timeout=5s", large),
        (
            "mutate a Job",
            "/mutate/jobs?timeout=5s",
            review(&kind, "team", &job("team")),
        ),
    ]
}

fn reviews(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = FixedCluster {
        owner_task: Some(task("team")),
        ..FixedCluster::policy(POLICY).expect("a legal policy")
    };
    let (server, mut connection) = runtime.block_on(async {
        let server = support::serve(cluster, ServerLimits::default())
            .await
            .expect("a server");
        let connection = server.http1().await.expect("a connection");
        (server, connection)
    });
    let mut group = criterion.benchmark_group("review over TLS");
    for (name, target, body) in bodies() {
        let body = Bytes::from(body.to_string());
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let answer = runtime
                    .block_on(connection.post(target, body.clone()))
                    .expect("an answer");
                assert!(answer.status.is_success(), "{answer:?}");
            });
        });
    }
    group.finish();
    drop(server);
}

criterion_group!(benches, reviews);
criterion_main!(benches);
