//! An admission review, from its bytes to the bytes of the answer, over the cluster state of `cluster.yaml`.
//!
//! The input is `{"target": path, "review": …}`, the form of the webhook's golden files; other input is sent unchanged, to a
//! path selected by its length.

#![no_main]

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use k8s_openapi::ByteString;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use taskgate_fuzz::{cpu_time, init, json, rules, template};
use taskgate_offline::{ClusterState, ClusterStateOptions, Documents};
use taskgate_webhook::{ServerLimits, ServerMetrics, router, rules::ENDPOINTS};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

/// The API server cuts warnings and audit annotations here.
const MAX_MESSAGE: usize = 256;
/// The most bytes that taskgate may add to an object.
const MAX_ANSWER: usize = 512 * 1024;

/// The CPU time of a review and its repetition.
const MAX_TIME: Duration = Duration::from_secs(1);

thread_local! {
    static SERVER: (Runtime, Router) = server();
}

fn server() -> (Runtime, Router) {
    let documents = Documents::of_text("cluster.yaml", include_str!("cluster.yaml"));
    assert!(documents.unreadable.is_empty(), "{:?}", documents.unreadable);
    let options = ClusterStateOptions {
        complete: true,
        own_user: Some("system:serviceaccount:taskgate-system:taskgate".to_owned()),
        ..ClusterStateOptions::default()
    };
    let cluster = ClusterState::of(
        documents.objects.iter().map(|document| &document.object),
        "team",
        options,
    );
    assert!(
        cluster.rejected_policies().is_empty(),
        "{:?}",
        cluster.rejected_policies()
    );
    let metrics = ServerMetrics::register(&mut Registry::default());
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, router(Arc::new(cluster), &ServerLimits::default(), metrics))
}

/// Posts `body` to `path`.
fn post(path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    SERVER.with(|(runtime, router)| {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body)).expect("a request");
        runtime.block_on(async {
            let (parts, body) = router.clone().oneshot(request).await.expect("infallible").into_parts();
            (parts.status, body.collect().await.expect("a body").to_bytes().to_vec())
        })
    })
}

/// Checks the answer to a review, and returns it.
fn check(status: StatusCode, answer: &[u8], sent: usize) -> Option<Value> {
    // A deadline may pass on a busy machine; CPU time is checked separately.
    let late = status == StatusCode::GATEWAY_TIMEOUT;
    assert!(
        status == StatusCode::OK || status.is_client_error() || late,
        "{status} {}",
        String::from_utf8_lossy(answer)
    );
    assert!(
        answer.len() <= sent * 2 + MAX_ANSWER,
        "{} bytes for {sent}",
        answer.len()
    );
    if status != StatusCode::OK {
        return None;
    }
    let answer: Value = serde_json::from_slice(answer).expect("an answer is JSON");
    let response = &answer["response"];
    assert!(
        response["allowed"].is_boolean() && response["uid"].is_string(),
        "{answer}"
    );
    let audit = response["auditAnnotations"].as_object().into_iter().flatten();
    let audit = audit.filter(|(key, _)| *key != "review").map(|(_, value)| value);
    let warnings = response["warnings"].as_array().into_iter().flatten();
    for text in audit.chain(warnings).chain([&response["status"]["message"]]) {
        let length = text.as_str().unwrap_or_default().chars().count();
        assert!(length <= MAX_MESSAGE, "{length} characters: {text}");
    }
    Some(answer["response"].clone())
}

/// `object` with the patch of `response`; `None` without a patch.
fn patched(object: &Value, response: &Value) -> Option<Value> {
    let ByteString(bytes) = serde_json::from_value(response.get("patch")?.clone()).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).expect("a JSON patch");
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).expect("the patch applies to the object that was sent");
    Some(object)
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate(data, size, max_size, seed, template::any)
});

fn run(data: &[u8]) {
    let document: Option<Value> = serde_json::from_slice(data).ok();
    let Some(mut review) = document.as_ref().and_then(|document| document.get("review")).cloned() else {
        let path = ENDPOINTS[data.len() % ENDPOINTS.len()].path;
        let (status, answer) = post(path, data.to_vec());
        check(status, &answer, data.len());
        return;
    };
    let target = document.as_ref().and_then(|document| document["target"].as_str());
    let endpoint = ENDPOINTS
        .iter()
        .find(|endpoint| Some(endpoint.path) == target)
        .unwrap_or(&ENDPOINTS[0]);
    let body = review.to_string().into_bytes();
    let sent = body.len();
    let (status, answer) = post(endpoint.path, body);
    let Some(response) = check(status, &answer, sent) else {
        return;
    };
    assert_eq!(response["uid"], review["request"]["uid"]);
    let object = review["request"]["object"].take();
    if !rules::is_sent(&object) {
        return;
    }
    let Some(after) = patched(&object, &response) else {
        return;
    };
    // A second pass over taskgate's own output changes nothing.
    if review["request"]["operation"] == json!("CREATE") {
        rules::assert_legal_metadata(&object, &after, 32 * 1024);
        review["request"]["object"] = after;
        let (_, answer) = post(endpoint.path, review.to_string().into_bytes());
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let again = &answer["response"];
        assert!(again["patch"].is_null(), "{response}\n{again}");
    }
}

fuzz_target!(init: init(), |data: &[u8]| {
    SERVER.with(|_| ());
    let began = cpu_time();
    run(data);
    let took = cpu_time().saturating_sub(began);
    assert!(took <= MAX_TIME, "took {took:?}");
});
