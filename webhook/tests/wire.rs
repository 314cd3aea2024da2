//! Bad input gets a defined answer in bounded time, over a real TLS socket.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};
use taskgate_webhook::ServerLimits;

mod support;
use support::{FixedCluster, request, task, task_review};

async fn server() -> anyhow::Result<support::RunningServer> {
    support::serve(
        FixedCluster::policy("{metadata: {labels: {team: a}}}")?,
        ServerLimits::default(),
    )
    .await
}

fn with(path: &str, value: Value) -> String {
    let mut review = task_review("team");
    if let Some(slot) = review.pointer_mut(path) {
        *slot = value;
    } else {
        let (parent, key) = path.rsplit_once('/').expect("a path below the root");
        review.pointer_mut(parent).expect("a parent")[key] = value;
    }
    review.to_string()
}

fn without(parent: &str, key: &str) -> String {
    let mut review = task_review("team");
    let fields = review.pointer_mut(parent).and_then(Value::as_object_mut);
    fields.expect("an object").remove(key);
    review.to_string()
}

fn nested(depth: usize) -> String {
    let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    task_review("team").to_string().replace("\"Fix it.\"", &deep)
}

#[tokio::test]
async fn a_body_that_is_not_a_review_gets_400_and_a_short_text() -> anyhow::Result<()> {
    let whole = task_review("team").to_string();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "not valid JSON"),
        ("not JSON", b"review!".to_vec(), "not valid JSON"),
        (
            "cut short",
            whole.as_bytes()[..whole.len() / 2].to_vec(),
            "not valid JSON",
        ),
        ("two reviews", format!("{whole}{whole}").into_bytes(), "not valid JSON"),
        (
            "not UTF-8",
            whole
                .replace("Fix", "\u{1}")
                .into_bytes()
                .into_iter()
                .map(|b| if b == 1 { 0xff } else { b })
                .collect(),
            "not valid JSON",
        ),
        ("nested 100,000 deep", nested(100_000).into_bytes(), "not valid JSON"),
        ("a list", b"[]".to_vec(), "not an AdmissionReview"),
        ("a number", b"7".to_vec(), "not an AdmissionReview"),
        ("null", b"null".to_vec(), "not an AdmissionReview"),
        (
            "another version",
            with("/apiVersion", json!("admission.k8s.io/v1beta1")).into_bytes(),
            "is not admission.k8s.io/v1",
        ),
        (
            "another kind",
            with("/kind", json!("Task")).into_bytes(),
            "is not admission.k8s.io/v1",
        ),
        ("no version", without("", "apiVersion").into_bytes(), "apiVersion"),
        ("no request", without("", "request").into_bytes(), "carries no request"),
        (
            "null request",
            with("/request", Value::Null).into_bytes(),
            "carries no request",
        ),
        ("no uid", without("/request", "uid").into_bytes(), "uid"),
        ("empty uid", with("/request/uid", json!("")).into_bytes(), "empty uid"),
        (
            "null uid",
            with("/request/uid", Value::Null).into_bytes(),
            "not an AdmissionReview",
        ),
        (
            "a uid that is no text",
            with("/request/uid", json!(7)).into_bytes(),
            "not an AdmissionReview",
        ),
        (
            "unknown operation",
            with("/request/operation", json!("DESTROY")).into_bytes(),
            "not an AdmissionReview",
        ),
        (
            "a kind that is no object",
            with("/request/kind", json!("Task")).into_bytes(),
            "not an AdmissionReview",
        ),
        (
            "a long kind",
            with("/kind", json!("x".repeat(100_000))).into_bytes(),
            "is not admission.k8s.io/v1",
        ),
    ];
    let server = server().await?;
    let mut connection = server.http1().await?;
    let cases = table.len();
    for (what, body, says) in table {
        let answer = connection.post("/mutate/tasks?timeout=2s", body).await?;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{what}: {text}");
        assert!(text.contains(says) && text.chars().count() < 400, "{what}: {text}");
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            "text/plain; charset=utf-8",
            "{what}"
        );
    }
    let counted = server.metric("taskgate_reviews_refused_total{cause=\"malformed\"}")?;
    assert!(
        (counted - f64::from(u32::try_from(cases)?)).abs() < 0.5,
        "{counted} of {cases}"
    );
    Ok(())
}

#[tokio::test]
async fn odd_objects_in_a_readable_review_get_a_decision_under_their_uid() -> anyhow::Result<()> {
    let server = server().await?;
    let mut connection = server.http1().await?;
    let object = |path: &str, value: Value| with(&format!("/request/object{path}"), value);
    let table = [
        ("no object", without("/request", "object")),
        ("null object", object("", Value::Null)),
        ("a list as object", object("", json!([1, 2]))),
        ("null metadata", object("/metadata", Value::Null)),
        ("null labels", object("/metadata/labels", Value::Null)),
        ("labels that are a list", object("/metadata/labels", json!(["a"]))),
        (
            "labels that are numbers",
            object("/metadata/labels", json!({"kelos.dev/taskspawner": 3})),
        ),
        ("null owners", object("/metadata/ownerReferences", Value::Null)),
        ("null spec", object("/spec", Value::Null)),
        ("nested 100 deep", nested(100)),
        (
            "a namespace from nowhere",
            with("/request/namespace", json!("../../etc")),
        ),
        ("a request for deletion", with("/request/operation", json!("DELETE"))),
        ("a connection", with("/request/operation", json!("CONNECT"))),
        ("dryRun null", with("/request/dryRun", Value::Null)),
        ("an unknown field", with("/request/novelty", json!({"a": 1}))),
        ("an unknown version", with("/request/kind/version", json!("v9"))),
        ("an unknown group", with("/request/kind/group", json!("example.com"))),
    ];
    for path in [
        "/mutate/tasks",
        "/mutate/jobs",
        "/validate/tasks",
        "/validate/policies",
        "/validate/workitems",
    ] {
        for (what, body) in &table {
            let answer = connection.post(path, body.clone()).await?;
            assert_eq!(answer.status, 200, "{path} {what}: {answer:?}");
            let review = answer.json()?;
            assert_eq!(review["apiVersion"], "admission.k8s.io/v1", "{path} {what}");
            assert_eq!(review["kind"], "AdmissionReview", "{path} {what}");
            assert_eq!(
                review["response"]["uid"],
                task_review("team")["request"]["uid"],
                "{path} {what}"
            );
            assert!(review["response"]["allowed"].is_boolean(), "{path} {what}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_kind_of_another_endpoint_is_admitted_unchanged_with_a_note_in_the_audit_log() -> anyhow::Result<()> {
    let server = server().await?;
    for (path, body) in [
        ("/mutate/jobs", task_review("team").to_string()),
        ("/mutate/tasks", with("/request/kind/version", json!("v9"))),
        ("/validate/workitems", task_review("team").to_string()),
    ] {
        let review = server.post(path, body).await?.json()?;
        let response = &review["response"];
        assert_eq!(response["allowed"], true, "{path}");
        assert_eq!(response["patch"], Value::Null, "{path}");
        assert_eq!(response["auditAnnotations"]["verdict"], "unexpected-kind", "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn paths_methods_and_content_types_get_their_own_status() -> anyhow::Result<()> {
    let server = server().await?;
    let mut connection = server.http1().await?;
    let body = task_review("team").to_string();
    for path in [
        "/",
        "/mutate",
        "/mutate/tasks/",
        "/mutate/pods",
        "/readyz",
        "/metrics",
        "/mutate/tasks%2f",
    ] {
        assert_eq!(connection.post(path, body.clone()).await?.status, 404, "{path}");
    }
    let mut get = request("/mutate/tasks", Bytes::new())?;
    *get.method_mut() = Method::GET;
    assert_eq!(connection.send(get).await?.status, 405);

    let typed = |content_type: Option<&'static str>| -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = request("/mutate/tasks", body.clone())?;
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type.parse()?);
        }
        Ok(request)
    };
    for bad in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/yaml"),
        Some("application/jsonp"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let answer = server.http1().await?.send(typed(bad)?).await?;
        assert_eq!(answer.status, 415, "{bad:?}");
    }
    for good in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json ;x=y",
    ] {
        let answer = server.http1().await?.send(typed(Some(good))?).await?;
        assert_eq!(answer.status, 200, "{good}");
    }
    Ok(())
}

#[tokio::test]
async fn seven_mebibytes_are_read_and_more_than_eight_are_not() -> anyhow::Result<()> {
    let server = server().await?;
    let padded = |mebibytes: usize| {
        let mut review = task_review("team");
        review["request"]["oldObject"] = json!({"spec": {"prompt": "x".repeat(mebibytes << 20)}});
        review.to_string()
    };
    let mut connection = server.http1().await?;
    assert_eq!(connection.post("/mutate/tasks", padded(7)).await?.status, 200);
    for mebibytes in [8, 12] {
        let answer = server.post("/mutate/tasks", padded(mebibytes)).await?;
        assert_eq!(answer.status, 413, "{mebibytes} MiB");
        assert_eq!(answer.text(), "the body is larger than 8388608 bytes");
    }
    assert_eq!(connection.post("/mutate/tasks", padded(1)).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn unknown_fields_are_not_touched_by_the_patch() -> anyhow::Result<()> {
    let server = server().await?;
    let mut object = task("team");
    object["spec"]["futureField"] = json!({"nested": [1, 2.5, null, "x"]});
    let mut review = task_review("team");
    review["request"]["object"] = object;
    let answer = server.post("/mutate/tasks", review.to_string()).await?.json()?;
    let patch: k8s_openapi::ByteString = serde_json::from_value(answer["response"]["patch"].clone())?;
    let patch: Value = serde_json::from_slice(&patch.0)?;
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let paths: Vec<_> = patch
        .as_array()
        .into_iter()
        .flatten()
        .map(|op| op["path"].clone())
        .collect();
    assert!(
        paths
            .iter()
            .all(|path| path.as_str().is_some_and(|path| path.starts_with("/metadata/labels"))),
        "{patch}"
    );
    Ok(())
}
