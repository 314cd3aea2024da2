//! A stub of GitHub's REST API, on loopback, with state that tests change and requests that they read:
//! `ETag` and 304, rate limits, pagination, faults on request.

mod answer;
mod edit;
mod fault;
mod handle;
mod routes;
mod seed;
mod shared;
mod state;

pub use fault::Fault;
pub use handle::{Issue, Repo};
pub use seed::{AgentRule, CommentSeed, IssueSeed, RepoSeed, Seed};
pub use shared::SharedGitHub;
pub use state::Seen;

use crate::serve::bind;
use axum::Router;
use axum::routing::any;
use jiff::Timestamp;
use state::GitHubState;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// The state behind the server and its handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<GitHubState>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, GitHubState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running stub. It ends when dropped.
#[derive(Debug)]
pub struct GitHub {
    shared: Shared,
    address: SocketAddr,
    // Its drop ends the server.
    _running: JoinSet<()>,
}

impl GitHub {
    /// Starts an empty GitHub on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts an empty GitHub at a loopback address.
    ///
    /// # Errors
    /// When the address is no loopback address or cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let shared = Shared::default();
        let mut running = JoinSet::new();
        let router = Router::new().fallback(any(answer::answer)).with_state(shared.clone());
        let address = bind(address, router, &mut running).await?;
        shared.lock().base = format!("http://{address}");
        Ok(Self {
            shared,
            address,
            _running: running,
        })
    }

    /// Base URL of the API. `/api/v3` below it answers the same, as an Enterprise host does.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A repository; it exists from here on.
    pub fn repo(&self, owner: &str, name: &str) -> Repo {
        Repo::new(self.shared.clone(), owner, name)
    }

    /// Fills in a seed.
    pub fn plant(&self, seed: &Seed) {
        seed.plant(self);
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Every request so far; the log is empty afterwards.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.lock().seen)
    }

    /// Adds a fault; of several that fit a request the oldest applies.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// Takes the faults for exactly this path away.
    pub fn heal_on(&self, path: &str) {
        self.shared.lock().faults.retain(|fault| !fault.is_on(path));
    }

    /// Sets what is left of the hour's requests; at 0 every request that is no 304 gets 403.
    pub fn rate_limit(&self, remaining: u64, reset: Timestamp) {
        let mut state = self.shared.lock();
        state.remaining = remaining;
        state.reset = reset;
    }

    /// Sets the user of all tokens; before this, tokens have no user, as those of an App.
    pub fn viewer(&self, login: &str) {
        self.shared.lock().viewer = Some(login.to_owned());
    }

    /// Caps `per_page`, so that few items make many pages.
    pub fn page_size(&self, most: usize) {
        self.shared.lock().page_size = most;
    }
}
