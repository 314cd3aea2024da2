//! The server as a whole: its ports, its caches, and how they end together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use prometheus_client::registry::Registry;
use taskgate_certs::{ClientAuthority, Injection, Resolver};
use taskgate_policy::KnownPolicies;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Cluster, admin,
    caches::Caches,
    config::{ConfigError, ServerConfig},
    lifecycle::{Lifecycle, Stage},
    listener::{BindError, Listener},
    metrics::{CacheCollector, CertificateCollector, Metrics},
    probe::Probe,
    readiness::Readiness,
    routes,
    scrapers::Scrapers,
};

/// How long a probe or a scrape may take to finish at the very end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// The prefix of taskgate's own metrics.
pub const METRICS_PREFIX: &str = "taskgate";

/// What the server is given.
pub struct Dependencies {
    /// Reads the cluster.
    pub client: Client,
    /// Serves the certificate; whoever brings certificates fills it.
    pub resolver: Arc<Resolver>,
    /// Who may call the admission port. `None`: everybody who reaches it.
    pub clients: Option<Arc<ClientAuthority>>,
    /// How far the webhook configurations are. `None` leaves them out of `/readyz`: somebody else takes care of them.
    pub injection: Option<Injection>,
    /// What `/metrics` shows. The server adds its own metrics, under [`METRICS_PREFIX`], to what is registered already.
    pub registry: Registry,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Reviews, over TLS.
    pub admission: SocketAddr,
    /// Probes and metrics, plain.
    pub admin: SocketAddr,
}

/// The server does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A part of the server ended, which none does by itself.
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
}

/// Ports that are bound and wait to be served.
pub struct Server {
    config: ServerConfig,
    admission: Listener,
    admin: Listener,
    lifecycle: Lifecycle,
    admin_lifecycle: Lifecycle,
    caches: Arc<Caches>,
    client: Client,
}

/// Binds, serves until `shutdown`, winds down: [`Server::bind`] and [`Server::run`] in one.
pub async fn serve(
    config: ServerConfig,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    Server::bind(config, dependencies).await?.run(shutdown).await
}

impl Server {
    /// Checks the settings and binds both ports.
    pub async fn bind(config: ServerConfig, dependencies: Dependencies) -> Result<Self, ServeError> {
        config.check()?;
        let Dependencies {
            client,
            resolver,
            clients,
            injection,
            mut registry,
        } = dependencies;
        let caches = Caches::new();
        let own = registry.sub_registry_with_prefix(METRICS_PREFIX);
        let metrics = Metrics::register(own);
        own.register_collector(Box::new(CertificateCollector(resolver.clone())));
        own.register_collector(Box::new(CacheCollector(caches.clone())));

        let (lifecycle, admin_lifecycle) = (Lifecycle::new(), Lifecycle::new());
        let limits = &config.limits;
        let cluster = Cluster::new(caches.clone(), client.clone(), config.kueue.clone());
        let cluster = Arc::new(cluster);
        let router = routes::router(cluster, limits, metrics.clone());
        let admission = Listener::tls(
            config.listen,
            resolver.server_config(&[b"http/1.1"], clients),
            router,
            limits,
            metrics.clone(),
            lifecycle.clone(),
        )
        .await?;
        let readiness = Readiness {
            lifecycle: lifecycle.clone(),
            caches: caches.clone(),
            probe: Probe::new(admission.address(), resolver.clone()),
            resolver,
            injection,
        };
        let scrapers = config.metrics_auth.then(|| Scrapers::new(client.clone()));
        let router = admin::router(readiness, registry, scrapers);
        let admin = Listener::plain(config.admin, router, limits, metrics, admin_lifecycle.clone()).await?;
        Ok(Self {
            config,
            admission,
            admin,
            lifecycle,
            admin_lifecycle,
            caches,
            client,
        })
    }

    /// The stored policies, as they are once the server runs.
    pub fn policies(&self) -> watch::Receiver<Arc<KnownPolicies>> {
        self.caches.known_policies()
    }

    /// The addresses that were bound, with the ports that port 0 became.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            admission: self.admission.address(),
            admin: self.admin.address(),
        }
    }

    /// Serves until `shutdown`, then: unready at once, lame duck, drain, and `Ok` (C7).
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let addresses = self.addresses();
        info!(admission = %addresses.admission, admin = %addresses.admin, "listening");
        let watches_end = CancellationToken::new();
        let mut watches = self.caches.follow(&self.client, &watches_end);
        let drain = self.config.shutdown.drain;
        let mut ports = JoinSet::new();
        let admission = ports.spawn(self.admission.run(drain)).id();
        ports.spawn(self.admin.run(ADMIN_DRAIN));

        tokio::select! {
            () = shutdown.cancelled() => {}
            Some(_) = watches.join_next() => return Err(ServeError::Ended("watch of a cache")),
            Some(_) = ports.join_next() => return Err(ServeError::Ended("listener")),
        }
        info!("shutting down: not ready, still serving");
        self.lifecycle.wind_down(&self.config.shutdown).await;
        info!("draining");
        while let Some(ended) = ports.join_next_with_id().await {
            let ended = ended.map_or_else(|error| error.id(), |(id, ())| id);
            if ended == admission {
                // Probes are told "not ready" until the last review is answered.
                self.admin_lifecycle.enter(Stage::Draining);
            }
        }
        watches_end.cancel();
        while watches.join_next().await.is_some() {}
        info!("bye");
        Ok(())
    }
}
