//! `taskgate serve`: starts the parts, each in one line of [`serve`], and stops them.

pub(crate) mod args;

use std::{io::IsTerminal as _, num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args as _;
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use kube::Client;
use prometheus_client::registry::Registry;
use taskgate_api::keys;
use taskgate_cache::ClusterCache;
use taskgate_certs::{
    Authority, AuthorityConfig, BundleManager, ClientAuthority, Injector, Lifetimes, ProvidedFiles, ProvidedSecret,
    Resolver, San,
};
use taskgate_webhook::{Dependencies, METRICS_PREFIX, Server, ServerConfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use self::args::{CertMode, LogFormat, ServeArgs};
use crate::{
    cluster::serve_client,
    exit::ExitStatus,
    rights::{Feature, Names, review::RightsReview},
};

/// How long the parts that outlive the server may take to end after it.
const WIND_DOWN: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: ServeArgs) -> Result<ExitStatus> {
    let unknown = unknown_settings(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    anyhow::ensure!(
        unknown.is_empty(),
        "unknown settings in the environment: {}",
        unknown.join(", ")
    );
    start_logging(args.log_format, EnvFilter::try_new(&args.log).context("--log")?);
    serve(args).await?;
    Ok(ExitStatus::Success)
}

/// The settings among the environment variables `names` that no flag has: a misspelt one must not be ignored.
///
/// Kubernetes sets variables of its own for each Service, such as `TASKGATE_PORT`.
fn unknown_settings(names: impl Iterator<Item = String>) -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let known: Vec<_> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    let of_a_service =
        |name: &str| name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT");
    names
        .filter(|name| name.starts_with("TASKGATE_") && !name.starts_with("TASKGATE_E2E_"))
        .filter(|name| !known.contains(&name.as_str()) && !of_a_service(name))
        .collect()
}

/// Starts logging to standard error, with the parsed `filter` of `--log`. Request objects, prompts and secrets are never logged.
fn start_logging(format: LogFormat, filter: EnvFilter) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.init(),
    }
}

async fn serve(args: ServeArgs) -> Result<()> {
    let shutdown = on_signal()?;
    let client = serve_client(args.kubeconfig.as_deref()).await?;
    let resolver = Resolver::new();
    // The parts besides the server outlive it: the certificate may be replaced while the last reviews are answered.
    let followers = CancellationToken::new();
    let certificates = certificates(&args, client.clone(), Arc::clone(&resolver), followers.clone())?;
    let clients = args.client_ca.clone();
    let clients = clients.map(|file| ClientAuthority::read(file, args.client_names.clone()));
    let clients = clients.transpose().context("--client-ca")?;
    let injector = Injector::new(
        client.clone(),
        args.configuration.as_str().to_owned(),
        Arc::clone(&resolver),
        match args.cert_mode {
            CertMode::SelfSigned => BundleManager::Taskgate,
            CertMode::CertManager | CertMode::Files => BundleManager::External,
        },
    );
    let mut registry = Registry::default();
    let controller_metrics = taskgate_controller::Metrics::register(&mut registry, METRICS_PREFIX);
    let rights = RightsReview::register(
        client.clone(),
        names(&args),
        registry.sub_registry_with_prefix(METRICS_PREFIX),
    );
    let server = Server::bind(
        server_config(&args)?,
        Dependencies {
            client: client.clone(),
            resolver,
            clients: clients.clone(),
            injection: (!args.registration_managed_elsewhere).then(|| injector.injection()),
            registry,
        },
    )
    .await?;

    let mut parts = JoinSet::new();
    parts.spawn(certificates);
    parts.spawn(injector.run(followers.clone()));
    if let Some(clients) = clients {
        parts.spawn(clients.follow(followers.clone()));
    }
    parts.spawn(rights.run(followers.clone()));
    parts.spawn(taskgate_controller::run_policy_status(
        client.clone(),
        server.cache(),
        controller_metrics.clone(),
        followers.clone(),
    ));
    parts.spawn(taskgate_controller::run(
        client,
        controller_config(&args, server.cache()),
        controller_metrics,
        followers.clone(),
    ));

    let result = tokio::select! {
        end = server.run(shutdown) => end.context("serving"),
        // No part ends before `followers` is cancelled: one that does has panicked.
        Some(ended) = parts.join_next() => Err(anyhow::anyhow!("a part ended unexpectedly: {ended:?}")),
    };
    followers.cancel();
    let ended = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(WIND_DOWN, ended).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    result
}

/// The task that keeps the certificate of `resolver` up to date until `shutdown`.
fn certificates(
    args: &ServeArgs,
    client: Client,
    resolver: Arc<Resolver>,
    shutdown: CancellationToken,
) -> Result<BoxFuture<'static, ()>> {
    let of_service = San::of_service(&args.service, &args.namespace).context("--service")?;
    // A given certificate needs only the one name of the Service that the API server dials.
    let dialled = || of_service.iter().take(1).chain(&args.cert_names).cloned().collect();
    Ok(match args.cert_mode {
        CertMode::SelfSigned => {
            let config = AuthorityConfig {
                namespace: args.namespace.clone(),
                secret: args.cert_secret.clone(),
                names: of_service.iter().chain(&args.cert_names).cloned().collect(),
                labels: vec![(keys::PART_OF.to_owned(), keys::PART_OF_TASKGATE.to_owned())],
                lifetimes: Lifetimes {
                    ca: args.ca_lifetime,
                    leaf: args.cert_lifetime,
                },
                clock: Timestamp::now,
            };
            Authority::new(client, config).run(resolver, shutdown).boxed()
        }
        CertMode::CertManager => {
            let source = ProvidedSecret::new(client, &args.namespace, &args.cert_secret, dialled());
            source.run(resolver, shutdown).boxed()
        }
        CertMode::Files => {
            let folder = args.cert_dir.clone().context("--cert-dir is missing")?;
            ProvidedFiles::new(folder, dialled()).run(resolver, shutdown).boxed()
        }
    })
}

fn server_config(args: &ServeArgs) -> Result<ServerConfig> {
    let mut config = ServerConfig::new(args.listen, args.admin_listen);
    config.limits.in_flight = usize::try_from(args.max_in_flight)
        .ok()
        .and_then(NonZeroUsize::new)
        .context("--max-in-flight")?;
    config.metrics_auth = args.metrics_auth;
    config.shutdown.lame_duck = args.lame_duck;
    config.namespace.clone_from(&args.namespace);
    config.kelos_writers = args.kelos_writers();
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
        foreman: !args.no_foreman,
        task_retry: !args.no_task_retry,
        cache,
    }
}

/// The Lease that the replicas of one Service share.
fn lease(args: &ServeArgs) -> String {
    format!("{}-controller", args.service)
}

/// The names of the objects that rights are limited to, as these flags set them.
pub(crate) fn names(args: &ServeArgs) -> Names {
    let mut certificate = format!("{}-serving-cert", args.service);
    let mut issued = format!("{}-tls", args.service);
    match args.cert_mode {
        CertMode::SelfSigned => certificate.clone_from(&args.cert_secret),
        CertMode::CertManager => issued.clone_from(&args.cert_secret),
        CertMode::Files => {}
    }
    let features = [
        (args.no_kueue, Feature::Kueue),
        (args.no_foreman, Feature::Foreman),
        (args.no_task_retry, Feature::TaskRetry),
    ];
    let without = features.into_iter().filter(|(off, _)| *off).map(|(_, feature)| feature);
    Names {
        // Those rights come and go with `taskgate kelos-fields`.
        without: without.chain([Feature::KelosFields]).collect(),
        namespace: args.namespace.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_found_and_the_variables_of_kubernetes_are_not() {
        let names = [
            "TASKGATE_LISTEN",
            "TASKGATE_LISTEM",
            "TASKGATE_SERVICE",
            "TASKGATE_SERVICE_HOST",
            "PATH",
        ];
        let names = names.iter().chain(&[
            "TASKGATE_PORT_443_TCP_ADDR",
            "TASKGATE_METRICS_SERVICE_PORT_HTTP",
            "TASKGATE_E2E_KEEP",
        ]);
        assert_eq!(unknown_settings(names.map(ToString::to_string)), ["TASKGATE_LISTEM"]);
    }
}
