//! Reads issue sources: the items that policies need, and no others.
//!
//! ```text
//! policies, Tasks, WorkItems ── reader ── access: Workspace, Secret or ghproxy
//!                                 ├─ github ── client: one conditional GET per item and interval
//!                                 ├─ work_item: baseline, reset or deletion of the WorkItem
//!                                 ├─ Sources: the latest observation of each item, for the features
//!                                 └─ condition: SourceReadable on the policies
//! ```
//!
//! A failed read never changes a `WorkItem`: it is counted, tried again later, and written to the condition of the policy.
//!
//! Features get an item with [`Sources::latest`], and each new observation with [`Sources::follow`]. [`OriginQueries`] sends single
//! queries, whose answers are not kept. `taskgate_policy::source` decides which items are needed; observations of others are removed.
//!
//! Imports the shared modules only. Called by `cancellation`, `metadata`, `retry` and `controller`.

mod access;
mod client;
mod condition;
mod error;
mod github;
mod limits;
mod queries;
mod reader;
mod work_item;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::RwLock;
use taskgate_policy::source::{IssueSource, Repository, SourceItem, SourceKey};
use tokio::sync::{Notify, broadcast, broadcast::error::RecvError};

use error::SourceError;

pub(crate) use queries::{OriginQueries, OriginQuery};
pub(crate) use reader::run;

/// How many requests run in parallel.
const CONCURRENCY: usize = 32;
/// How many of them may be of one namespace, so that the source of one tenant, which does not answer, does not delay the others.
const PER_NAMESPACE: usize = 4;
/// How many observations a slow subscriber may be behind.
const BACKLOG: usize = 1024;

/// How sources are read.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// The shortest interval between two reads of an item, however often its spawner polls.
    pub min_interval: Duration,
    /// The API of github.com.
    pub github_api: String,
    /// Where the GitHub proxy of a Workspace is, with `{service}` and `{namespace}`.
    pub ghproxy_url: String,
    /// The Enterprise hosts that taskgate may read, in lower case, with their ports where these are not 443.
    pub hosts: Vec<String>,
}

impl SourceConfig {
    /// The API of a repository, if the operator allows its host: a user who can write a Workspace can name any host.
    fn api_of(&self, repository: &Repository) -> Result<String, SourceError> {
        let Some(api) = repository.enterprise_api() else {
            return Ok(self.github_api.clone());
        };
        let bare = |host: &str| host.strip_suffix(":443").unwrap_or(host).to_owned();
        let host = bare(&repository.host);
        let allowed = api == self.github_api || self.hosts.iter().any(|allowed| bare(allowed) == host);
        if allowed {
            return Ok(api);
        }
        Err(SourceError::HostNotAllowed(format!(
            "taskgate may not read {host}: its operator allows the host with --source-hosts (chart: sources.hosts)"
        )))
    }

    /// The interval between two reads of an item of `source`: the one of its spawner, but not less than the minimum.
    fn interval(&self, source: &IssueSource) -> Duration {
        source.interval.max(self.min_interval)
    }
}

/// An item as its source showed it last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observation {
    /// The item; `None` when it does not exist any more.
    pub(crate) item: Option<Arc<SourceItem>>,
    /// Whether the spawner still finds the item: it is there, in the wanted state, and passes the filters that one item's
    /// own fields decide.
    pub(crate) discovered: bool,
    /// For how many observations in a row, each an interval apart, `discovered` has been so.
    pub(crate) in_a_row: u32,
    /// When the source answered.
    pub(crate) observed_at: Timestamp,
}

/// The latest observation of each item that a policy needs.
#[derive(Debug)]
pub(crate) struct Sources {
    latest: RwLock<HashMap<SourceKey, Observation>>,
    observed: broadcast::Sender<SourceKey>,
    changed: Notify,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            latest: RwLock::default(),
            observed: broadcast::Sender::new(BACKLOG),
            changed: Notify::new(),
        }
    }
}

impl Sources {
    /// The latest observation of an item. `None`: it was not read yet, no policy needs it, or it cannot be read.
    pub(crate) fn latest(&self, key: &SourceKey) -> Option<Observation> {
        self.latest.read().get(key).cloned()
    }

    /// Calls `observed` with the item of each observation, unchanged ones too: at most one per item and interval. `None`: some were
    /// missed, which may be of any item. Never ends.
    pub(crate) async fn follow(&self, observed: impl Fn(Option<&SourceKey>)) {
        let mut items = self.observed.subscribe();
        loop {
            match items.recv().await {
                Ok(key) => observed(Some(&key)),
                Err(RecvError::Lagged(_)) => observed(None),
                // The sender is in `self`.
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Makes the reader compute again which items are needed.
    pub(crate) fn refresh(&self) {
        self.changed.notify_one();
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Stores an observation: `item` as the source shows it, and whether the spawner discovers it.
    fn observe(&self, key: &SourceKey, item: Option<SourceItem>, discovered: bool, now: Timestamp) -> Observation {
        let mut latest = self.latest.write();
        let before = latest.get(key).filter(|before| before.discovered == discovered);
        let observation = Observation {
            item: item.map(Arc::new),
            discovered,
            in_a_row: before.map_or(1, |before| before.in_a_row.saturating_add(1)),
            observed_at: now,
        };
        latest.insert(key.clone(), observation.clone());
        drop(latest);
        // An error means that there is no subscriber.
        let _ = self.observed.send(key.clone());
        observation
    }

    fn retain(&self, keep: impl Fn(&SourceKey) -> bool) {
        self.latest.write().retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_that_the_operator_allows_are_read() {
        let config = SourceConfig {
            min_interval: Duration::from_secs(30),
            github_api: "https://api.github.com".to_owned(),
            ghproxy_url: String::new(),
            hosts: vec!["ghe.corp".to_owned(), "other.corp:8443".to_owned()],
        };
        for (repository, api) in [
            ("o/r", Some("https://api.github.com")),
            ("https://github.com/o/r", Some("https://api.github.com")),
            ("https://GHE.corp/o/r", Some("https://ghe.corp/api/v3")),
            ("https://ghe.corp:443/o/r", Some("https://ghe.corp:443/api/v3")),
            ("https://other.corp:8443/o/r", Some("https://other.corp:8443/api/v3")),
            ("https://other.corp/o/r", None),
            ("https://ghe.corp:8443/o/r", None),
            ("https://ghe.corp.evil.example/o/r", None),
            ("https://ghe.corp@evil.example/o/r", None),
            ("https://169.254.169.254/o/r", None),
            ("https://kubernetes.default.svc/o/r", None),
            ("https://127.0.0.1:6443/o/r", None),
        ] {
            let found = config.api_of(&Repository::parse(repository).unwrap());
            if let Some(api) = api {
                assert_eq!(found.as_deref(), Ok(api), "{repository}");
            } else {
                let error = found.unwrap_err();
                assert_eq!(error.reason(), "HostNotAllowed", "{repository}");
                assert!(error.to_string().contains("--source-hosts"), "{error}");
            }
        }
    }
}
