//! From the wire to the answer. One review is followed through [`answer`] here, `decode`, [`judge`] (which gathers the facts
//! and asks the decision core's `govern` and `decide`), and [`encode`].

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::{StatusCode, header, request::Parts};
use jiff::Timestamp;
use taskgate_policy::{Decision, Kind, clip};
use tracing::{Instrument as _, Span, field, info, info_span};

use crate::{
    body::{BodyBudget, Buffered},
    config::Limits,
    connection::Caller,
    facts::Surroundings,
    guard::Guard,
    judge::judge,
    metrics::{Metrics, kind_name},
    refusal::Refusal,
    review::{ReviewRequest, encode, encode_unexpected},
    rules::{ENDPOINTS, Endpoint},
};

/// The longest name of an object.
const MAX_COORDINATE: usize = 253;

/// Answers reviews, given what surrounds them.
#[derive(Debug)]
pub(crate) struct Reviewer<S> {
    surroundings: Arc<S>,
    guard: Guard,
    budget: BodyBudget,
    metrics: Metrics,
}

/// The router of the admission port: a route per entry of [`ENDPOINTS`], 404 for every other path.
pub fn router<S: Surroundings>(surroundings: Arc<S>, limits: &Limits, metrics: Metrics) -> Router {
    let reviewer = Arc::new(Reviewer {
        surroundings,
        guard: Guard::new(limits, metrics.clone()),
        budget: BodyBudget::new(limits),
        metrics,
    });
    let mut router = Router::new();
    for endpoint in &ENDPOINTS {
        let handle = move |State(reviewer): State<Arc<Reviewer<S>>>, request: HttpRequest| async move {
            let (head, body) = request.into_parts();
            let caller = head.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::unknown);
            let reading = read(&reviewer, &caller, &head, body);
            let review = |body| answer(&reviewer, endpoint, &head, body).instrument(review_span());
            let guard = &reviewer.guard;
            guard.run(endpoint.path, &head.uri, &caller, reading, review).await
        };
        router = router.route(endpoint.path, post(handle));
    }
    router
        .fallback(async || (StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "only POST"))
        .with_state(reviewer)
}

/// Reads the body, if it is declared as a review.
async fn read<S>(reviewer: &Reviewer<S>, caller: &Caller, head: &Parts, body: Body) -> Result<Buffered, Refusal> {
    if !is_json(head) {
        return Err(Refusal::ContentType);
    }
    reviewer.budget.read(caller.peer, body).await
}

/// Answers one review: decode, gather, govern, decide, encode.
async fn answer<S: Surroundings>(
    reviewer: &Reviewer<S>,
    endpoint: &Endpoint,
    head: &Parts,
    body: Buffered,
) -> Result<Response, Refusal> {
    if let Some(parent) = head.headers.get("traceparent").and_then(|value| value.to_str().ok()) {
        Span::current().record("traceparent", parent);
    }
    let (review, _held) = reviewer.budget.decode(body).await?;
    record_request(&review);
    let dry_run = review.dry_run == Some(true);
    let Some(kind) = endpoint.kind_of(&review.kind.group, &review.kind.version, &review.kind.kind) else {
        reviewer.metrics.unexpected(endpoint.phase, review.operation, dry_run);
        return Ok(json(encode_unexpected(&review.uid)));
    };
    let surroundings = &*reviewer.surroundings;
    if !surroundings.is_ready() {
        return Err(Refusal::Starting);
    }
    let decision = judge(surroundings, endpoint, kind, &review, Timestamp::now()).await?;
    Ok(conclude(reviewer, endpoint, kind, &review, &decision))
}

/// Counts, logs and writes down the decision.
fn conclude<S>(
    reviewer: &Reviewer<S>,
    endpoint: &Endpoint,
    kind: Kind,
    review: &ReviewRequest,
    decision: &Decision,
) -> Response {
    let dry_run = review.dry_run == Some(true);
    reviewer
        .metrics
        .review(kind, endpoint.phase, review.operation, dry_run, decision);
    record_decision(review, kind, decision);
    json(encode(&review.uid, decision))
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn is_json(head: &Parts) -> bool {
    head.headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The span of a review. Coordinates only: an object holds prompts.
fn review_span() -> Span {
    info_span!(
        "review",
        traceparent = field::Empty,
        uid = field::Empty,
        kind = field::Empty,
        operation = field::Empty,
        namespace = field::Empty,
        name = field::Empty,
        allowed = field::Empty,
        patched = field::Empty,
    )
}

fn record_request(review: &ReviewRequest) {
    Span::current()
        .record("uid", logged(&review.uid))
        .record("kind", logged(&review.kind.kind))
        .record("operation", review.operation.as_str())
        .record("namespace", logged(&review.namespace))
        .record("name", logged(&review.name));
}

/// A coordinate as it is logged: no longer than it can be. Anybody may send a longer one.
fn logged(coordinate: &str) -> String {
    clip(coordinate, MAX_COORDINATE)
}

/// One line per denial, none per allow.
fn record_decision(review: &ReviewRequest, kind: Kind, decision: &Decision) {
    Span::current()
        .record("allowed", decision.allowed())
        .record("patched", !decision.patch.0.is_empty());
    if let Some(denial) = &decision.denial {
        info!(
            uid = logged(&review.uid),
            kind = kind_name(kind),
            namespace = logged(&review.namespace),
            name = logged(&review.name),
            code = denial.code,
            told = denial.message,
            dry_run = review.dry_run == Some(true),
            "denied"
        );
    }
}
