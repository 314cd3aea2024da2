//! Property tests: every request gets a defined answer.

use axum::{Router, body::Body};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::Value;
use taskgate_webhook::{ServerLimits, ServerMetrics, router, rules::ENDPOINTS};
use tower::ServiceExt as _;

mod support;
use support::{FixedCluster, job, review, task, task_review};

const POLICY: &str = "{queueName: agents, metadata: {labels: {team: a}}, failurePolicy: {maxRetriesPerItem: 3}}";

fn routes() -> Router {
    let cluster = FixedCluster {
        owner_task: Some(task("team")),
        ..FixedCluster::policy(POLICY).expect("a legal policy")
    };
    router(
        cluster.finish(),
        &ServerLimits::default(),
        ServerMetrics::register(&mut Registry::default()),
    )
}

/// The answer to `body` at `path`: a review with `uid`, or an error with a text.
fn answer(path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body));
        let answer = routes().oneshot(request.expect("a request")).await.expect("infallible");
        let status = answer.status();
        (
            status,
            answer.into_body().collect().await.expect("a body").to_bytes().to_vec(),
        )
    })
}

/// Every value of a document, by its path.
fn paths(value: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, child)| paths(child, &format!("{path}/{}", escape(key)), all)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, child)| paths(child, &format!("{path}/{index}"), all)),
        _ => {}
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(serde_json::json!({})),
        Just(serde_json::json!([])),
        Just(serde_json::json!([null, {"a": null}])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("x".repeat(10_000))),
    ]
}

fn reviews() -> Vec<Value> {
    let job_kind = serde_json::json!({"group": "batch", "version": "v1", "kind": "Job"});
    let policy_kind = serde_json::json!({"group": "taskgate.dev", "version": "v1alpha1", "kind": "TaskPolicy"});
    let policy = serde_json::json!({"metadata": {"name": "p", "namespace": "team"},
        "spec": {"selector": {"spawnerNames": ["a"]}, "metadata": {"labels": {"a": "b"}}, "queueName": "q"}});
    vec![
        task_review("team"),
        review(&job_kind, "team", &job("team")),
        review(&policy_kind, "team", &policy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(body in proptest::collection::vec(any::<u8>(), 0..2_000), endpoint in 0..ENDPOINTS.len()) {
        let (status, _) = answer(ENDPOINTS[endpoint].path, body);
        prop_assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_review_with_odd_values_gets_a_decision_or_is_refused(
        which in 0..3_usize,
        endpoint in 0..ENDPOINTS.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), odd_value()), 1..6),
    ) {
        let mut review = reviews().swap_remove(which);
        for (at, value) in changes {
            let mut all = Vec::new();
            paths(&review, "", &mut all);
            *review.pointer_mut(&all[at.index(all.len())]).expect("a path of the document") = value;
        }
        let (status, body) = answer(ENDPOINTS[endpoint].path, review.to_string().into_bytes());
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&body).expect("an answer is JSON");
            prop_assert_eq!(&answer["response"]["uid"], &review["request"]["uid"]);
            prop_assert!(answer["response"]["allowed"].is_boolean());
        } else {
            prop_assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn a_review_that_is_cut_or_garbled_is_refused_or_answered(
        which in 0..3_usize,
        cut in any::<proptest::sample::Index>(),
        garble in any::<Option<(proptest::sample::Index, u8)>>(),
    ) {
        let mut body = reviews().swap_remove(which).to_string().into_bytes();
        if let Some((at, byte)) = garble {
            let at = at.index(body.len());
            body[at] = byte;
        } else {
            body.truncate(cut.index(body.len()));
        }
        let (status, body) = answer(ENDPOINTS[which].path, body);
        prop_assert!(matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST), "{status} {}", String::from_utf8_lossy(&body));
    }
}
