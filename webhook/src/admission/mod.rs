//! Admission reviews, from the HTTP request to the answer.
//!
//! One review passes through [`router`], `ReviewLimiter::run`, `BodyBudget::read` and `decode`, [`answer`], [`evaluate`] (which
//! calls `read_inputs`, the policy crate's `govern`, `load_item` and `decide`) and `encode`. Admission writes nothing.
//!
//! Imports `registration` (the endpoints), `listener` (the caller of a request, quotas), `config` and `metrics`; it
//! reads the cluster through [`ClusterContext`] only. Called by `server`, and by `taskgate-offline` without a server.

mod body;
mod evaluation;
mod inputs;
mod json_memory;
mod limiter;
mod refusal;
mod review;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::{StatusCode, header, request::Parts};
use taskgate_policy::{Decision, Kind, clip};
use tracing::{Instrument as _, Span, field, info, info_span};

use crate::{
    config::ServerLimits,
    listener::connection::Caller,
    metrics::{ReviewedOperation, ServerMetrics, kind_name},
    registration::rules::{ENDPOINTS, Endpoint},
};
use body::{BodyBudget, BufferedBody};
pub use evaluation::evaluate;
pub use inputs::{AccessDecision, ClusterContext, ClusterReadError, ItemState, NamespaceLabels, ReviewedTask};
use limiter::ReviewLimiter;
use refusal::ReviewRefusal;
pub use review::{DecodeError, ObjectKind, ReviewRequest};
use review::{encode, encode_unexpected_kind};

/// The longest name of an object, in characters.
const MAX_NAME: usize = 253;

/// Answers reviews.
#[derive(Debug)]
struct Reviewer<C> {
    cluster: Arc<C>,
    limiter: ReviewLimiter,
    budget: BodyBudget,
    metrics: ServerMetrics,
}

/// The router of the admission port: a route per entry of [`ENDPOINTS`], 404 for every other path.
pub fn router<C: ClusterContext>(cluster: Arc<C>, limits: &ServerLimits, metrics: ServerMetrics) -> Router {
    let reviewer = Arc::new(Reviewer {
        cluster,
        limiter: ReviewLimiter::new(limits, metrics.clone()),
        budget: BodyBudget::new(limits),
        metrics,
    });
    let mut router = Router::new();
    for endpoint in &ENDPOINTS {
        let handle = move |State(reviewer): State<Arc<Reviewer<C>>>, request: HttpRequest| async move {
            let (head, body) = request.into_parts();
            let caller = head.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::unknown);
            let reading = read(&reviewer, &caller, &head, body);
            let review = |body| answer(&reviewer, endpoint, body);
            let limiter = &reviewer.limiter;
            let run = limiter.run(endpoint.path, &head.uri, &caller, reading, review);
            // A refusal is logged within the span too: it names the object.
            run.instrument(review_span()).await
        };
        router = router.route(endpoint.path, post(handle));
    }
    router
        .fallback(async || (StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "only POST"))
        .with_state(reviewer)
}

/// Reads the body, if its content type is JSON.
async fn read<C>(
    reviewer: &Reviewer<C>,
    caller: &Caller,
    head: &Parts,
    body: Body,
) -> Result<BufferedBody, ReviewRefusal> {
    if !is_json(head) {
        return Err(ReviewRefusal::ContentType);
    }
    reviewer.budget.read(caller.peer, body).await
}

/// Answers one review: decode, evaluate, count, log, encode.
async fn answer<C: ClusterContext>(
    reviewer: &Reviewer<C>,
    endpoint: &Endpoint,
    body: BufferedBody,
) -> Result<Response, ReviewRefusal> {
    let (review, _reservation) = reviewer.budget.decode(body).await?;
    record_request(&review);
    let operation = ReviewedOperation {
        phase: endpoint.phase,
        operation: review.operation.as_str(),
        dry_run: review.dry_run == Some(true),
    };
    let Some(kind) = endpoint.kind_of(&review.kind.group, &review.kind.version, &review.kind.kind) else {
        reviewer.metrics.unexpected_kind(operation);
        return Ok(json(encode_unexpected_kind(&review.uid)));
    };
    let cluster = &*reviewer.cluster;
    if !cluster.is_ready() {
        return Err(ReviewRefusal::Starting);
    }
    let decision = evaluate(cluster, endpoint, kind, &review, cluster.now()).await?;
    reviewer.metrics.decided(kind, operation, &decision);
    record_decision(&review, kind, &decision);
    Ok(json(encode(&review.uid, &decision)))
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

/// The tracing span of a review. It carries no part of the object, which may contain prompts.
fn review_span() -> Span {
    info_span!(
        "review",
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

/// A name as it is logged, cut to the longest legal one: any caller may send a longer one.
fn logged(name: &str) -> String {
    clip(name, MAX_NAME)
}

/// Records the decision on the span, and logs a denial.
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
            denial = denial.message,
            dry_run = review.dry_run == Some(true),
            "denied"
        );
    }
}
