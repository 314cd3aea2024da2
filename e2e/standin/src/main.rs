//! Runs the stand-in as a process: for the tour, and for tests that restart it.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use kelos_standin::{Agents, CrdCapability, GitHub, Options, Parts, Seed, Standin, client, install, program};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    program::log();
    let arguments = Arguments::parse();
    let seed = match &arguments.seed {
        Some(path) => program::seed(path)?,
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
    let client = client(program::config(arguments.kubeconfig.as_deref()).await?)?;
    if arguments.install_crds {
        install(&client, CrdCapability::Base).await?;
    }
    let scope = program::scope(arguments.namespace);
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
    program::stopped(standin.failed()).await?;
    standin.stop().await;
    Ok(())
}
