//! A running stand-in.

use crate::cache::{Key, Scope};
use crate::controller::{self, BranchLocks, Setup};
use crate::crds::CrdCapability;
use crate::error::Error;
use crate::metrics::{CycleResult, Metrics};
use crate::serve;
use crate::spawner::{self, Delivered, Delivery, Spawners};
use http::HeaderValue;
use http::header::USER_AGENT;
use jiff::Timestamp;
use kube::{Client, Config};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Which of Kelos' processes run here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Both.
    #[default]
    All,
    /// The controller only.
    Controller,
    /// The spawners only.
    Spawner,
}

/// How a stand-in runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces to watch.
    pub scope: Scope,
    /// Base URL of GitHub's API.
    pub github_url: String,
    /// Which processes.
    pub parts: Parts,
    /// Must be that of the installed CRDs.
    pub capability: CrdCapability,
    /// Whether spawners get a Deployment or a `CronJob` object, as in Kelos.
    pub runtimes: bool,
    /// Where `/metrics`, `/deliver` and `/tick` are served, on loopback; `None` for nowhere.
    pub listen: Option<SocketAddr>,
}

impl Options {
    /// Both processes, for these namespaces, with a GitHub at this URL.
    pub fn new(scope: Scope, github_url: impl Into<String>) -> Self {
        Self {
            scope,
            github_url: github_url.into(),
            parts: Parts::All,
            capability: CrdCapability::Base,
            runtimes: true,
            listen: None,
        }
    }
}

/// A client that calls itself `kelos-standin`, so that audit logs and field managers tell it apart.
///
/// # Errors
/// Those of [`Client::try_from`].
pub fn client(mut config: Config) -> kube::Result<Client> {
    let agent = HeaderValue::from_static("kelos-standin");
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config)
}

/// A running stand-in. It ends when dropped, or at [`Self::stop`], and loses what Kelos loses then: the
/// branch locks and the backoffs.
pub struct Standin {
    spawners: Arc<Spawners>,
    metrics: Metrics,
    locks: Arc<BranchLocks>,
    address: Option<SocketAddr>,
    running: JoinSet<()>,
}

impl fmt::Debug for Standin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standin")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Standin {
    /// Starts it, and returns when its caches are filled. The CRDs must be installed.
    ///
    /// # Errors
    /// When [`Options::listen`] cannot be bound.
    pub async fn start(client: Client, options: Options) -> std::io::Result<Self> {
        let mut running = JoinSet::new();
        let metrics = Metrics::default();
        let locks = Arc::<BranchLocks>::default();
        let spawners = Arc::new(Spawners::new(
            client.clone(),
            &options.github_url,
            metrics.clone(),
            options.capability,
        ));
        let address = match options.listen {
            Some(address) => Some(serve::start(address, &spawners, &metrics, &mut running).await?),
            None => None,
        };
        if options.parts != Parts::Spawner {
            let setup = Setup {
                client,
                scope: options.scope.clone(),
                metrics: metrics.clone(),
                locks: locks.clone(),
                runtimes: options.runtimes,
                capability: options.capability,
            };
            controller::start(setup, &mut running).await;
        }
        if options.parts != Parts::Controller {
            spawner::start(spawners.clone(), &options.scope, &mut running).await;
        }
        Ok(Self {
            spawners,
            metrics,
            locks,
            address,
            running,
        })
    }

    /// Ends every loop and waits until all have ended.
    pub async fn stop(mut self) {
        self.running.shutdown().await;
    }

    /// Waits until a loop ends by itself, which only a defect brings about.
    pub async fn failed(&mut self) {
        self.running.join_next().await;
    }

    /// Pushes an event to a webhook-driven spawner.
    ///
    /// # Errors
    /// What would make Kelos' server answer 500.
    pub async fn deliver(&self, spawner: &Key, event: &Delivery) -> Result<Delivered, Error> {
        self.spawners.deliver(spawner, event).await
    }

    /// Runs a cron spawner's one-shot for a tick.
    ///
    /// # Errors
    /// What would make the one-shot exit with 1: the tick is lost (kelos T16).
    pub async fn tick(&self, spawner: &Key, at: Timestamp) -> Result<(), Error> {
        self.spawners.tick(spawner, at).await
    }

    /// How many cycles of a polling spawner ended so.
    pub fn cycles(&self, spawner: &Key, result: CycleResult) -> u64 {
        self.metrics.cycles(spawner, result)
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The branch locks, for tests that look into them.
    pub fn locks(&self) -> &BranchLocks {
        &self.locks
    }

    /// Where the counters are served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}
