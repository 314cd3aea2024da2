//! The server: binds the ports, starts the watches of the cache, and shuts down in order.
//!
//! Imports every other module of this crate. Called by the binary.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use prometheus_client::registry::Registry;
use taskgate_cache::{CacheCollector, Clock, ClusterCache};
use taskgate_certs::{ClientAuthority, Injection, Resolver};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    admin::{self, HandshakeProbe, MetricsAuthorizer, Readiness},
    admission,
    cluster::LiveCluster,
    config::{ConfigError, ServerConfig},
    listener::{BindError, Lifecycle, Listener, ShutdownStage},
    metrics::{CertificateCollector, ServerMetrics},
};

/// How long open probes and scrapes may take at the end of the shutdown.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// The prefix of taskgate's own metrics.
pub const METRICS_PREFIX: &str = "taskgate";

/// The server's dependencies.
pub struct Dependencies {
    /// Reads the cluster.
    pub client: Client,
    /// The time of the API server, by its answers to `client`.
    pub clock: Clock,
    /// Serves the certificate; a certificate source fills it.
    pub resolver: Arc<Resolver>,
    /// Which clients may call the admission port; `None` for all that reach it.
    pub clients: Option<Arc<ClientAuthority>>,
    /// The state of the webhook configurations; `None` omits it from `/readyz`.
    pub injection: Option<Injection>,
    /// The registry behind `/metrics`. The server adds its own metrics, under [`METRICS_PREFIX`].
    pub registry: Registry,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For reviews, over TLS.
    pub admission: SocketAddr,
    /// For probes and metrics, over plain HTTP.
    pub admin: SocketAddr,
}

/// The server cannot start, or ended before the shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A part of the server ended, which happens only by a defect.
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
}

/// A server whose ports are bound.
pub struct Server {
    config: ServerConfig,
    admission: Listener,
    admin: Listener,
    lifecycle: Lifecycle,
    admin_lifecycle: Lifecycle,
    cache: Arc<ClusterCache>,
    client: Client,
}

impl Server {
    /// Checks the settings and binds both ports.
    pub async fn bind(config: ServerConfig, dependencies: Dependencies) -> Result<Self, ServeError> {
        config.check()?;
        let Dependencies {
            client,
            clock,
            resolver,
            clients,
            injection,
            mut registry,
        } = dependencies;
        let cache = ClusterCache::new(config.kueue.clone(), clock);
        let own = registry.sub_registry_with_prefix(METRICS_PREFIX);
        let metrics = ServerMetrics::register(own);
        own.register_collector(Box::new(CertificateCollector(resolver.clone())));
        own.register_collector(Box::new(CacheCollector(cache.clone())));

        let (lifecycle, admin_lifecycle) = (Lifecycle::new(), Lifecycle::new());
        let limits = &config.limits;
        let cluster = LiveCluster::new(cache.clone(), client.clone(), config.kelos_writers.clone());
        let cluster = Arc::new(cluster);
        let router = admission::router(cluster, limits, metrics.clone());
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
            cache: cache.clone(),
            probe: HandshakeProbe::new(admission.address(), resolver.clone()),
            resolver,
            injection,
        };
        let authorizer = config.metrics_auth.then(|| MetricsAuthorizer::new(client.clone()));
        let router = admin::router(readiness, registry, authorizer);
        let admin = Listener::plain(config.admin, router, limits, metrics, admin_lifecycle.clone()).await?;
        Ok(Self {
            config,
            admission,
            admin,
            lifecycle,
            admin_lifecycle,
            cache,
            client,
        })
    }

    /// The cluster cache of the process; it follows the API server while the server runs.
    pub fn cache(&self) -> Arc<ClusterCache> {
        Arc::clone(&self.cache)
    }

    /// The bound addresses, with the ports that the system chose for port 0.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            admission: self.admission.address(),
            admin: self.admin.address(),
        }
    }

    /// Serves until `shutdown`, then shuts down: unready at once, lame duck, drain (C7).
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let addresses = self.addresses();
        info!(admission = %addresses.admission, admin = %addresses.admin, "listening");
        let stop_watches = CancellationToken::new();
        let mut watches = self.cache.follow(&self.client, &self.config.namespace, &stop_watches);
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
                // Probes get "not ready" until the last review is answered.
                self.admin_lifecycle.enter(ShutdownStage::Draining);
            }
        }
        stop_watches.cancel();
        while watches.join_next().await.is_some() {}
        info!("stopped");
        Ok(())
    }
}
