//! The stand-in's own HTTP surface, loopback only: `/metrics`, and what pushes work into it.

use crate::cache::Key;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::spawner::{Delivered, Delivery, Spawners};
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use jiff::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Clone)]
struct Served {
    spawners: Arc<Spawners>,
    metrics: Metrics,
}

/// Binds a loopback address and serves in `running`.
pub(crate) async fn bind(address: SocketAddr, router: Router, running: &mut JoinSet<()>) -> io::Result<SocketAddr> {
    if !address.ip().is_loopback() {
        let text = format!("{address} is no loopback address");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    running.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%bound, %error, "server ended");
        }
    });
    Ok(bound)
}

pub(crate) async fn start(
    address: SocketAddr,
    spawners: &Arc<Spawners>,
    metrics: &Metrics,
    running: &mut JoinSet<()>,
) -> io::Result<SocketAddr> {
    let served = Served {
        spawners: spawners.clone(),
        metrics: metrics.clone(),
    };
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/deliver/{namespace}/{spawner}", post(deliver))
        .route("/tick/{namespace}/{spawner}", post(tick))
        .with_state(served);
    bind(address, router, running).await
}

async fn scrape(State(served): State<Served>) -> Result<String, StatusCode> {
    let page = served.metrics.encode();
    page.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn deliver(
    State(served): State<Served>,
    Path((namespace, spawner)): Path<(String, String)>,
    Json(event): Json<Delivery>,
) -> (StatusCode, String) {
    let key = Key::new(namespace, spawner);
    match served.spawners.deliver(&key, &event).await {
        Ok(Delivered::Created(name)) => (StatusCode::OK, name),
        Ok(other) => (StatusCode::OK, format!("{other:?}")),
        Err(error) => failed(&error),
    }
}

async fn tick(
    State(served): State<Served>,
    Path((namespace, spawner)): Path<(String, String)>,
) -> (StatusCode, String) {
    let key = Key::new(namespace, spawner);
    match served.spawners.tick(&key, Timestamp::now()).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
