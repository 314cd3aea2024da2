//! The admin port: probes and metrics. It answers also when the admission port is full.
//!
//! Imports `listener` (the lifecycle), `cache`, `cluster` (access reviews) and `rate_limiter`. Called by `server`.

mod metrics_auth;
mod readiness;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};

pub(crate) use metrics_auth::MetricsAuthorizer;
pub(crate) use readiness::{HandshakeProbe, Readiness};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Admin {
    readiness: Readiness,
    registry: Registry,
    authorizer: Option<MetricsAuthorizer>,
}

/// The router of the admin port: `/livez`, `/readyz`, and `/metrics`, which without `authorizer` anyone may read.
pub(crate) fn router(readiness: Readiness, registry: Registry, authorizer: Option<MetricsAuthorizer>) -> Router {
    Router::new()
        // To answer is to be alive: when a part of the server ends, the process ends.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Admin {
            readiness,
            registry,
            authorizer,
        }))
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (passed, text) = readiness::render(&admin.readiness.checks().await);
    let status = if passed {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text)
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if let Some(authorizer) = &admin.authorizer
        && let Err((status, text)) = authorizer.authorize(&headers).await
    {
        let challenge = (status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        return (status, challenge, text).into_response();
    }
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, METRICS_TYPE)], text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            "the metrics cannot be encoded\n".to_owned(),
        ),
    }
    .into_response()
}
