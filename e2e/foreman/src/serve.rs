//! The stand-in's own HTTP surface, loopback only: what happened, and how a run shall end.

use crate::agent::Agent;
use crate::journal::{Journal, Run};
use crate::outcome::Outcome;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use kelos_standin::Key;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Clone)]
struct Served {
    agent: Arc<Agent>,
    journal: Journal,
}

pub(crate) async fn start(
    address: SocketAddr,
    agent: Arc<Agent>,
    journal: Journal,
    running: &mut JoinSet<()>,
) -> io::Result<()> {
    if !address.ip().is_loopback() {
        let text = format!("{address} is no loopback address");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/runs", get(runs))
        .route("/finish/{namespace}/{task}", post(finish))
        .with_state(Served { agent, journal });
    running.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%address, %error, "server ended");
        }
    });
    Ok(())
}

async fn runs(State(served): State<Served>) -> Json<Vec<Run>> {
    Json(served.journal.runs())
}

async fn finish(
    State(served): State<Served>,
    Path((namespace, task)): Path<(String, String)>,
    Json(outcome): Json<Outcome>,
) -> (StatusCode, String) {
    match served.agent.finish(&Key::new(namespace, task), outcome).await {
        Ok(task) => (StatusCode::OK, task.phase().to_owned()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
