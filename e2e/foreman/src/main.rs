//! Runs the stand-in as a process: for the tour, and for looking around.

use clap::Parser;
use foreman_standin::{Foreman, Options, client, install};
use kelos_standin::program;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    program::log();
    let arguments = Arguments::parse();
    let client = client(program::config(arguments.kubeconfig.as_deref()).await?)?;
    if arguments.install_crds {
        install(&client).await?;
    }
    let scope = program::scope(arguments.namespace);
    let mut options = Options::new(scope);
    if let Some(path) = &arguments.seed {
        options = options.seeded(program::seed(path)?);
    }
    options.listen = arguments.listen;
    let mut foreman = Foreman::start(client, options).await?;
    tracing::info!("stand-in ready");
    program::stopped(foreman.failed()).await?;
    foreman.stop().await;
    Ok(())
}
