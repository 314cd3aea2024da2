//! The source reader: asks the trackers about the items that policies wait for, and about no others.
//!
//! ```text
//! interests (policies, Tasks, WorkItems) ── reader ── access: Workspace, Secret or ghproxy
//!                                             ├─ github ── client: one conditional GET per item and interval
//!                                             ├─ settle: baseline, reset, prune of the WorkItem
//!                                             ├─ Sources: the latest observation of each item, for other concerns
//!                                             └─ condition: SourceReadable on the policies
//! ```
//!
//! A failure never changes what is remembered of an item: it is counted, waited out, and told on the policy.
//!
//! [`Asker`] answers single questions, of those who need an answer once: nothing is kept of them.
//!
//! Other concerns look an item up with [`Sources::latest`] and hear of each new observation by [`Sources::subscribe`].
//! What makes an item interesting is decided in `taskgate_policy::source`; an item that interests nobody is forgotten.

mod access;
mod ask;
mod client;
mod condition;
mod github;
mod interests;
mod job;
mod limits;
mod reader;
mod settle;
mod trouble;
mod turn;
mod ways;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use taskgate_policy::source::{IssueSource, Repository, SourceItem, SourceKey};
use tokio::sync::{Notify, broadcast};

use trouble::Trouble;

pub(crate) use ask::Asker;
pub(crate) use reader::run;

/// How many observations a slow subscriber may be behind.
const NEWS: usize = 1024;

/// How sources are read.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// An item is never asked about more often than this, however often its spawner polls.
    pub min_interval: Duration,
    /// The API of github.com.
    pub github_api: String,
    /// Where the GitHub proxy of a Workspace is, with `{service}` and `{namespace}`.
    pub ghproxy_url: String,
    /// The Enterprise hosts that may be asked, in lower case, with their ports where these are not 443.
    pub hosts: Vec<String>,
}

impl SourceConfig {
    /// The API of a repository, if the operator allows its host: a user who can write a Workspace can name any host.
    fn api_of(&self, repository: &Repository) -> Result<String, Trouble> {
        let Some(api) = repository.enterprise_api() else {
            return Ok(self.github_api.clone());
        };
        let bare = |host: &str| host.strip_suffix(":443").unwrap_or(host).to_owned();
        let host = bare(&repository.host);
        let allowed = api == self.github_api || self.hosts.iter().any(|allowed| bare(allowed) == host);
        if allowed {
            return Ok(api);
        }
        Err(Trouble::HostNotAllowed(format!(
            "taskgate may not ask {host}: its operator allows the host with --source-hosts (chart: sources.hosts)"
        )))
    }

    /// How often an item of `source` is asked about: as often as its spawner polls, within reason.
    fn interval(&self, source: &IssueSource) -> Duration {
        source.interval.max(self.min_interval)
    }
}

/// An item as its tracker showed it last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observation {
    /// The item; `None` when the tracker says that it does not exist any more.
    pub(crate) item: Option<Arc<SourceItem>>,
    /// Whether the spawner still finds the item: it is there, in the wanted state, and passes the filters that one item's
    /// own fields decide.
    pub(crate) discovered: bool,
    /// For how many observations in a row, each an interval apart, `discovered` has been so.
    pub(crate) in_a_row: u32,
    /// When the tracker answered.
    pub(crate) observed_at: Timestamp,
}

/// The latest observation of each item that interests somebody.
#[derive(Debug)]
pub(crate) struct Sources {
    latest: RwLock<HashMap<SourceKey, Observation>>,
    news: broadcast::Sender<SourceKey>,
    changed: Notify,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            latest: RwLock::default(),
            news: broadcast::Sender::new(NEWS),
            changed: Notify::new(),
        }
    }
}

impl Sources {
    /// What is known of an item. `None`: not asked yet, nobody is interested, or it cannot be read.
    pub(crate) fn latest(&self, key: &SourceKey) -> Option<Observation> {
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        latest.get(key).cloned()
    }

    /// Hears of each observation, unchanged ones too: at most one per item and interval. Who lags looks at everything.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<SourceKey> {
        self.news.subscribe()
    }

    /// Something changed that interests may hang on.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes note of an answer: `item` as it was shown, and whether the spawner finds it.
    fn observe(&self, key: &SourceKey, item: Option<SourceItem>, discovered: bool, now: Timestamp) -> Observation {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        let before = latest.get(key).filter(|before| before.discovered == discovered);
        let observation = Observation {
            item: item.map(Arc::new),
            discovered,
            in_a_row: before.map_or(1, |before| before.in_a_row.saturating_add(1)),
            observed_at: now,
        };
        latest.insert(key.clone(), observation.clone());
        drop(latest);
        // Nobody may be listening.
        let _ = self.news.send(key.clone());
        observation
    }

    fn retain(&self, keep: impl Fn(&SourceKey) -> bool) {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_that_the_operator_allows_are_asked() {
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
                let trouble = found.unwrap_err();
                assert_eq!(trouble.reason(), "HostNotAllowed", "{repository}");
                assert!(trouble.to_string().contains("--source-hosts"), "{trouble}");
            }
        }
    }
}
