//! Probes and metrics, on a port of their own: they answer when the admission port is full.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};

use crate::{
    readiness::{Readiness, render},
    scrapers::Scrapers,
};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Admin {
    readiness: Readiness,
    registry: Registry,
    scrapers: Option<Scrapers>,
}

/// `/livez`, `/readyz`, and `/metrics`: for `scrapers`, or for everybody where there are none to check.
pub(crate) fn router(readiness: Readiness, registry: Registry, scrapers: Option<Scrapers>) -> Router {
    Router::new()
        // Alive is who can answer this: if the server's own parts end, the process does.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Admin {
            readiness,
            registry,
            scrapers,
        }))
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (passed, text) = render(&admin.readiness.checks().await);
    let status = if passed {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text)
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if let Some(scrapers) = &admin.scrapers
        && let Err((status, text)) = scrapers.check(&headers).await
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
