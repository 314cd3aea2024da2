//! Runs the stand-in as a process: for the tour, and for looking around.

use anyhow::Context;
use clap::Parser;
use foreman_standin::{Foreman, Options, Seed, client, install};
use kelos_standin::Scope;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A stand-in for Foreman.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Which API server; without it the usual places.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespaces to watch; without it all.
    #[arg(long)]
    namespace: Vec<String>,
    /// Install the CRDs first.
    #[arg(long)]
    install_crds: bool,
    /// How tasks end; without it they run until told.
    #[arg(long)]
    seed: Option<PathBuf>,
    /// Where `/healthz`, `/runs` and `/finish` are served.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let arguments = Arguments::parse();
    let client = client(config(arguments.kubeconfig.as_deref()).await?)?;
    if arguments.install_crds {
        install(&client).await?;
    }
    let scope = match arguments.namespace.as_slice() {
        [] => Scope::Cluster,
        names => Scope::Namespaces(names.to_vec()),
    };
    let mut options = Options::new(scope);
    if let Some(path) = &arguments.seed {
        options = options.seeded(read(path)?);
    }
    options.listen = arguments.listen;
    let mut foreman = Foreman::start(client, options).await?;
    tracing::info!("stand-in ready");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        () = foreman.failed() => anyhow::bail!("a loop of the stand-in has ended"),
    }
    foreman.stop().await;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Seed> {
    let reading = || format!("reading {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    Seed::read(&text).with_context(reading)
}

async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer().await.context("finding an API server");
    };
    let file = Kubeconfig::read_from(path)?;
    Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
}
