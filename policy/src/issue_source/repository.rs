//! The issue source of a spawner: its endpoint, its repository as Kelos finds it (the source's own `repo`, else the
//! Workspace's), and its filters.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use strum::Display;
use taskgate_api::{Lenient as _, metadata::Metadata};

use super::Filter;

/// How often Kelos polls by default.
const POLL: Duration = Duration::from_mins(5);
/// The longest interval.
const LONGEST: Duration = Duration::from_hours(24);
/// The longest name of a proxy that Kelos does not hash.
const MAX_PROXY: usize = 63;

/// The issue source of one spawner, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueSource {
    /// The endpoint of its items.
    pub endpoint: IssueEndpoint,
    /// The source's own repository, where it names one.
    pub repository: Option<String>,
    /// The Workspace whose repository it is otherwise, and whose proxy and token are used.
    pub workspace: String,
    /// How often the spawner polls, at most a day apart.
    pub interval: Duration,
    /// Which items the spawner sees.
    pub filter: Filter,
}

/// An endpoint of GitHub's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display)]
#[strum(serialize_all = "lowercase")]
pub enum IssueEndpoint {
    /// `/issues/N`: shows pull requests too, but not their head.
    Issues,
    /// `/pulls/N`
    Pulls,
}

/// Why a spawner's items cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl IssueSource {
    /// The source of the TaskSpawner `object`.
    pub fn of(object: &Value) -> Result<Self, Unsupported> {
        let when = |kind: &str| {
            object
                .pointer("/spec/when")?
                .get(kind)
                .filter(|source| source.is_object())
        };
        let github = [
            ("githubIssues", IssueEndpoint::Issues),
            ("githubPullRequests", IssueEndpoint::Pulls),
            ("githubWebhook", IssueEndpoint::Issues),
        ];
        let found = github
            .into_iter()
            .find_map(|(kind, endpoint)| Some((kind, endpoint, when(kind)?)));
        let Some((kind, endpoint, source)) = found else {
            return Err(Unsupported("only GitHub sources can be read".to_owned()));
        };
        let workspace = object
            .text("/spec/taskTemplate/worker/workspaceRef/name")
            .or_else(|| object.text("/spec/taskTemplate/workspaceRef/name"));
        let nameless = || Unsupported("its Tasks have no Workspace that names a repository".to_owned());
        let workspace = workspace.ok_or_else(nameless)?;
        Ok(Self {
            endpoint,
            repository: source.text("/repo").map(ToOwned::to_owned),
            workspace: workspace.to_owned(),
            interval: source.text("/pollInterval").map_or(POLL, interval),
            filter: Filter::of(kind, source),
        })
    }
}

/// Go's duration, or a number of seconds; what is neither is the default (kelos §2.3).
fn interval(text: &str) -> Duration {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| u64::try_from(seconds).ok());
    let spelt = || text.parse::<taskgate_api::Duration>().ok().map(Duration::from);
    let interval = seconds.map(Duration::from_secs).or_else(spelt);
    interval.unwrap_or(POLL).min(LONGEST)
}

/// A repository, and the host that it is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    /// `github.com`, an Enterprise host with its port, or empty for a shorthand.
    pub host: String,
    /// Its owner.
    pub owner: String,
    /// Its name.
    pub name: String,
}

impl Repository {
    /// Reads a clone URL or `owner/name`, as Kelos does. `None` when that is no repository, or one whose
    /// name would not stand in a path.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('/');
        let text = text.strip_suffix(".git").unwrap_or(text);
        let (host, path) = if let Some((_, rest)) = text.split_once("://") {
            let (host, path) = rest.split_once('/')?;
            (host.rsplit('@').next()?, path)
        } else if let Some((host, path)) = text.strip_prefix("git@").and_then(|rest| rest.split_once(':')) {
            (host, path)
        } else {
            ("", text)
        };
        let mut parts = path.split('/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let legal = |part: &str| {
            !part.is_empty()
                && part.len() <= 100
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
                && part.bytes().any(|c| c != b'.')
        };
        let legal_host = host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.:[]".contains(&c));
        (parts.next().is_none() && legal(owner) && legal(name) && legal_host).then(|| Self {
            host: host.to_ascii_lowercase(),
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The repository that a source reads: its own, on the Workspace's host where it is a shorthand.
    pub fn of(own: Option<&str>, workspace: &str) -> Option<Self> {
        let workspace = Self::parse(workspace);
        let Some(own) = own else { return workspace };
        let mut own = Self::parse(own)?;
        if own.host.is_empty() {
            own.host = workspace.map(|workspace| workspace.host).unwrap_or_default();
        }
        Some(own)
    }

    /// The API of the repository's host; `None` for GitHub's own.
    pub fn enterprise_api(&self) -> Option<String> {
        let is_github = matches!(self.host.as_str(), "" | "github.com");
        (!is_github).then(|| format!("https://{}/api/v3", self.host))
    }
}

/// The Service of a Workspace's GitHub proxy. `None` for a long name, of which Kelos leaves only a hash.
pub fn ghproxy_service(workspace: &str) -> Option<String> {
    let name = format!("ghproxy-{workspace}");
    (name.len() <= MAX_PROXY).then_some(name)
}

/// The parts of a `TaskSpawner` that decisions need, so that caches stay small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpawnerInfo {
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The repository that it polls, where that is not the Workspace's: `owner/name` or a URL.
    pub repository: Option<String>,
    /// The schedule of a cron source.
    pub schedule: Option<String>,
    /// Whether taskgate can read its issue source.
    pub has_issue_source: bool,
}

impl SpawnerInfo {
    /// Reads the `TaskSpawner` `object`.
    pub fn of(object: &Value) -> Self {
        let metadata = Metadata::of(object);
        let text = |path| object.text(path).map(ToOwned::to_owned);
        Self {
            uid: metadata.uid().unwrap_or_default().to_owned(),
            labels: metadata
                .labels()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            repository: text("/spec/when/githubIssues/repo").or_else(|| text("/spec/when/githubPullRequests/repo")),
            schedule: text("/spec/when/cron/schedule"),
            has_issue_source: IssueSource::of(object).is_ok(),
        }
    }
}

/// The parts of a `Workspace` that decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkspaceInfo {
    /// The repository's URL; empty when there is none.
    pub repo: String,
    /// The branch, tag or commit that is checked out.
    pub reference: Option<String>,
}

impl WorkspaceInfo {
    /// Reads the `Workspace` `object`.
    pub fn of(object: &Value) -> Self {
        let text = |path| object.text(path).map(ToOwned::to_owned);
        Self {
            repo: text("/spec/repo").unwrap_or_default(),
            reference: text("/spec/ref"),
        }
    }
}

/// The Workspace that a Task names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workspace {
    /// Not known: the Task names none, or it was not read.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<WorkspaceInfo>),
}

impl Workspace {
    /// Its parts, if it exists.
    pub fn info(&self) -> Option<&WorkspaceInfo> {
        match self {
            Self::Present(info) => Some(info),
            Self::Unknown | Self::Absent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_repository_is_read_off_every_spelling() {
        for (text, host) in [
            ("o/r", ""),
            ("https://github.com/o/r", "github.com"),
            ("https://github.com/o/r.git", "github.com"),
            ("https://user:secret@GitHub.com/o/r/", "github.com"),
            ("git@github.com:o/r.git", "github.com"),
            ("ssh://git@ghe.corp:2222/o/r.git", "ghe.corp:2222"),
            ("http://ghe.corp:8443/o/r", "ghe.corp:8443"),
        ] {
            let found = Repository::parse(text).unwrap();
            assert_eq!(
                (found.host.as_str(), found.owner.as_str(), found.name.as_str()),
                (host, "o", "r"),
                "{text}"
            );
        }
        for text in [
            "",
            "r",
            "o/r/x",
            "https://h/o",
            "../..",
            "o/r?x",
            "o/r#1",
            "https://h?x/o/r",
            "o/%2e%2e",
        ] {
            assert_eq!(Repository::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_sources_repository_wins_and_keeps_the_workspaces_host() {
        let of = |own, workspace| Repository::of(own, workspace).map(|found| (found.enterprise_api(), found.owner));
        let api = Some("https://ghe.corp/api/v3".to_owned());
        assert_eq!(of(None, "https://ghe.corp/a/b"), Some((api.clone(), "a".into())));
        assert_eq!(of(Some("c/d"), "https://ghe.corp/a/b"), Some((api, "c".into())));
        assert_eq!(of(Some("c/d"), "https://github.com/a/b"), Some((None, "c".into())));
        assert_eq!(of(Some("nonsense"), "https://github.com/a/b"), None);
    }

    #[test]
    fn intervals_are_read_as_kelos_reads_them() {
        for (text, seconds) in [
            ("", 300),
            ("1s", 1),
            ("90", 90),
            ("2m", 120),
            ("soon", 300),
            ("-5m", 300),
            ("-5", 300),
            ("5m-3s", 300),
            ("infs", 300),
            ("999999999999999999999999999999h", 300),
            ("18446744073709551615", 300),
            ("9223372036854775807", 86_400),
            ("2562047h", 86_400),
        ] {
            let object = json!({"spec": {
                "when": {"githubIssues": {"pollInterval": text}},
                "taskTemplate": {"workspaceRef": {"name": "repo"}},
            }});
            assert_eq!(IssueSource::of(&object).unwrap().interval.as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn an_unreadable_source_has_a_reason() {
        let jira = json!({"spec": {"when": {"jira": {}}, "taskTemplate": {"workspaceRef": {"name": "repo"}}}});
        assert!(IssueSource::of(&jira).is_err());
        let bare = json!({"spec": {"when": {"githubIssues": {}}, "taskTemplate": {}}});
        assert!(IssueSource::of(&bare).is_err());
        let worker = json!({"spec": {"when": {"githubPullRequests": {}}, "taskTemplate": {"worker": {"workspaceRef": {"name": "w"}}}}});
        let source = IssueSource::of(&worker).unwrap();
        assert_eq!(
            (source.endpoint, source.workspace.as_str()),
            (IssueEndpoint::Pulls, "w")
        );
        assert_eq!(ghproxy_service("repo").as_deref(), Some("ghproxy-repo"));
        assert_eq!(ghproxy_service(&"x".repeat(60)), None);
    }
}
