//! What the stand-ins do alike when they run as processes.

use crate::cache::Scope;
use anyhow::Context;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::de::DeserializeOwned;
use std::io::IsTerminal as _;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Logs to standard error, as `RUST_LOG` says.
pub fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// The seed in a YAML file.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn seed<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let reading = || format!("reading {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    serde_saphyr::from_str(&text).with_context(reading)
}

/// The API server of a kubeconfig; without one the usual places are looked at.
///
/// # Errors
/// When none is found there.
pub async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer().await.context("finding an API server");
    };
    let file = Kubeconfig::read_from(path)?;
    Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
}

/// These namespaces; without any all.
pub fn scope(namespaces: Vec<String>) -> Scope {
    if namespaces.is_empty() {
        Scope::Cluster
    } else {
        Scope::Namespaces(namespaces)
    }
}

/// Waits for SIGTERM or Ctrl-C.
///
/// # Errors
/// When `failed` ends before: a loop of the stand-in did.
pub async fn stopped(failed: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        () = failed => anyhow::bail!("a loop of the stand-in has ended"),
    }
}
