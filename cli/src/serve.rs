//! `taskgate serve`: connects the parts. Every part is one line of the table in [`run`]; none of their logic is here.

use std::{num::NonZeroUsize, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use prometheus_client::registry::Registry;
use taskgate_cache::ClusterCache;
use taskgate_certs::{ClientAuthority, Injector, Resolver};
use taskgate_webhook::{Dependencies, METRICS_PREFIX, Server, ServerConfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    api_server,
    args::{CertMode, ServeArgs, unknown_settings},
    certificates, logging,
    rights::{Feature, Names, review::RightsReview},
    traces::{self, Exporter},
};

/// How long the parts that only follow the server may take to end after it.
const WIND_DOWN: Duration = Duration::from_secs(5);

pub(crate) fn main(args: ServeArgs) -> Result<ExitCode> {
    let unknown = unknown_settings(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    anyhow::ensure!(
        unknown.is_empty(),
        "unknown settings in the environment: {}",
        unknown.join(", ")
    );
    let (spans, exporter) = args.otlp_endpoint.as_ref().map(traces::to).unzip();
    logging::start(args.log_format, EnvFilter::try_new(&args.log).context("--log")?, spans);
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a crypto provider is installed already"))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run(args, exporter))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: ServeArgs, exporter: Option<Exporter>) -> Result<()> {
    let shutdown = on_signal()?;
    let client = api_server::connect(args.kubeconfig.as_deref()).await?;
    let resolver = Resolver::new();
    let certificates = certificates::source(&args, client.clone())?;
    let clients = args.client_ca.clone();
    let clients = clients.map(|file| ClientAuthority::read(file, args.client_names.clone()));
    let clients = clients.transpose().context("--client-ca")?;
    let injector = Injector::new(
        client.clone(),
        args.configuration.as_str().to_owned(),
        Arc::clone(&resolver),
        certificates::caretaker(&args),
    );
    let mut registry = Registry::default();
    let controller_metrics = taskgate_controller::Metrics::register(&mut registry, METRICS_PREFIX);
    let rights = RightsReview::register(
        client.clone(),
        &args.namespace,
        names(&args),
        registry.sub_registry_with_prefix(METRICS_PREFIX),
    );
    let server = Server::bind(
        server_config(&args)?,
        Dependencies {
            client: client.clone(),
            resolver: Arc::clone(&resolver),
            clients: clients.clone(),
            injection: (!args.registration_managed_elsewhere).then(|| injector.injection()),
            registry,
        },
    )
    .await?;

    // What follows the server outlives it: the certificate may turn while the last reviews are answered.
    let followers = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn(certificates.run(resolver, followers.clone()));
    parts.spawn(injector.run(followers.clone()));
    if let Some(clients) = clients {
        parts.spawn(clients.follow(followers.clone()));
    }
    parts.spawn(rights.run(followers.clone()));
    if let Some(exporter) = exporter {
        parts.spawn(exporter.run(followers.clone()));
    }
    parts.spawn(taskgate_controller::run_policy_status(
        client.clone(),
        server.cache(),
        followers.clone(),
    ));
    parts.spawn(taskgate_controller::run(
        client,
        controller_config(&args, server.cache()),
        controller_metrics,
        followers.clone(),
    ));

    let outcome = tokio::select! {
        result = server.run(shutdown) => result.context("serving"),
        // No part ends before it is told to: one that does has panicked.
        Some(ended) = parts.join_next() => Err(anyhow::anyhow!("a part ended unexpectedly: {ended:?}")),
    };
    followers.cancel();
    let ended = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(WIND_DOWN, ended).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    outcome
}

fn server_config(args: &ServeArgs) -> Result<ServerConfig> {
    let mut config = ServerConfig::new(args.listen, args.admin_listen);
    config.limits.in_flight = usize::try_from(args.max_in_flight)
        .ok()
        .and_then(NonZeroUsize::new)
        .context("--max-in-flight")?;
    config.metrics_auth = args.metrics_auth;
    config.shutdown.lame_duck = args.lame_duck;
    config.kueue = (!args.no_kueue).then(|| args.kueue_config.clone());
    config.shutdown.quiet = config.shutdown.quiet.min(args.lame_duck);
    Ok(config)
}

fn controller_config(args: &ServeArgs, cache: Arc<ClusterCache>) -> taskgate_controller::Config {
    // The host name is the pod's name, and in it the process ID is 1; two processes of one host differ by the latter.
    let own_name = || {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "taskgate".to_owned());
        format!("{host}-{}", std::process::id())
    };
    taskgate_controller::Config {
        namespace: args.namespace.clone(),
        lease: (!args.no_leader_election).then(|| lease(args)),
        configuration: args.configuration.as_str().to_owned(),
        identity: args.identity.clone().unwrap_or_else(own_name),
        work_items_per_namespace: args.work_items_per_namespace,
        sources: taskgate_controller::SourceConfig {
            min_interval: args.source_min_interval,
            github_api: args.github_api.clone(),
            ghproxy_url: args.ghproxy_url.clone(),
            hosts: args.source_hosts.clone(),
        },
        kueue: (!args.no_kueue).then(|| args.kueue_config.clone()),
        foreman: !args.no_foreman,
        task_retry: !args.no_task_retry,
        cache,
    }
}

/// The Lease that the replicas of one Service share.
fn lease(args: &ServeArgs) -> String {
    format!("{}-controller", args.service)
}

/// What this installation calls the objects that rights are limited to.
pub(crate) fn names(args: &ServeArgs) -> Names {
    let named = || args.cert_secret.clone();
    let (certificate, issued) = match args.cert_mode {
        CertMode::SelfSigned => (named(), format!("{}-tls", args.service)),
        CertMode::CertManager => (format!("{}-serving-cert", args.service), named()),
        CertMode::Files => (
            format!("{}-serving-cert", args.service),
            format!("{}-tls", args.service),
        ),
    };
    let features = [
        (args.no_kueue, Feature::Kueue),
        (args.no_foreman, Feature::Foreman),
        (args.no_task_retry, Feature::TaskRetry),
    ];
    let without = features.into_iter().filter(|(off, _)| *off).map(|(_, feature)| feature);
    Names {
        without: without.collect(),
        configuration: args.configuration.as_str().to_owned(),
        certificate,
        issued,
        lease: lease(args),
        kueue_config: args.kueue_config.name.clone(),
    }
}

/// A token that is cancelled by the first SIGTERM or Ctrl-C. The second one ends the process at once.
fn on_signal() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(1);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}
