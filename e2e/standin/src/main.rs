//! Runs the stand-in as a process: for the tour, and for tests that restart it.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use kelos_standin::{Agents, Flavour, GitHub, Options, Parts, Scope, Seed, Standin, client, install};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A stand-in for Kelos, and for GitHub.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Which API server; without it the usual places.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Base URL of GitHub's API; without it that of the stub.
    #[arg(long, required_unless_present = "github_stub")]
    github_url: Option<String>,
    /// Where `/metrics`, `/deliver` and `/tick` are served.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// Namespaces to watch; without it all.
    #[arg(long)]
    namespace: Vec<String>,
    /// Run one of Kelos' two processes only.
    #[arg(long)]
    only: Option<Only>,
    /// Install the CRDs first.
    #[arg(long)]
    install_crds: bool,
    /// Spawners get no Deployment and no `CronJob`.
    #[arg(long)]
    no_runtimes: bool,
    /// Serve a stub of GitHub's API here.
    #[arg(long)]
    github_stub: Option<SocketAddr>,
    /// What is in that GitHub, and how agents end.
    #[arg(long)]
    seed: Option<PathBuf>,
    /// Play the kubelet for agent pods.
    #[arg(long)]
    agents: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    Controller,
    Spawner,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let arguments = Arguments::parse();
    let seed = match &arguments.seed {
        Some(path) => read(path)?,
        None => Seed::default(),
    };
    let github = match arguments.github_stub {
        Some(address) => {
            let github = GitHub::bind(address).await.context("serving the GitHub stub")?;
            github.plant(&seed);
            tracing::info!(url = github.url(), "GitHub stub ready");
            Some(github)
        }
        None => None,
    };
    let client = client(config(arguments.kubeconfig.as_deref()).await?)?;
    if arguments.install_crds {
        install(&client, Flavour::Head).await?;
    }
    let scope = match arguments.namespace.as_slice() {
        [] => Scope::Cluster,
        names => Scope::Namespaces(names.to_vec()),
    };
    let _agents = if arguments.agents {
        Some(Agents::seeded(client.clone(), &scope, &seed).await)
    } else {
        None
    };
    let stub = github.as_ref().map(GitHub::url);
    let url = arguments.github_url.or(stub).unwrap_or_default();
    let mut options = Options::new(scope, url);
    options.listen = arguments.metrics;
    options.runtimes = !arguments.no_runtimes;
    options.parts = match arguments.only {
        None => Parts::All,
        Some(Only::Controller) => Parts::Controller,
        Some(Only::Spawner) => Parts::Spawner,
    };
    let mut standin = Standin::start(client, options).await?;
    tracing::info!(address = ?standin.address(), "stand-in ready");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        () = standin.failed() => anyhow::bail!("a loop of the stand-in has ended"),
    }
    standin.stop().await;
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
