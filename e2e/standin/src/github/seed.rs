//! A GitHub out of a file, for the tour.

use super::GitHub;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a seed file says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    /// Repositories.
    pub repos: Vec<RepoSeed>,
    /// How agents behave; see [`Agents`](crate::Agents).
    pub agents: Vec<AgentRule>,
}

/// A repository.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepoSeed {
    /// Its owner.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// What users may do.
    pub permissions: BTreeMap<String, String>,
    /// Its issues and pull requests.
    pub issues: Vec<IssueSeed>,
}

/// An issue or a pull request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssueSeed {
    /// Its number.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its author.
    pub author: Option<String>,
    /// Its assignee.
    pub assignee: Option<String>,
    /// Whether it is closed.
    pub closed: bool,
    /// Whether it is a pull request.
    pub pull: bool,
    /// Its comments.
    pub comments: Vec<CommentSeed>,
}

/// A comment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommentSeed {
    /// Who wrote it.
    pub author: String,
    /// What.
    pub body: String,
}

/// How the agents of some Tasks end.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRule {
    /// Task name; `*` stands for any text.
    pub task: String,
    /// Seconds that the agent runs.
    pub seconds: u64,
    /// Whether it succeeds.
    pub succeeds: bool,
    /// Whether a failure ends the Job without its second attempt.
    #[serde(default)]
    pub at_once: bool,
    /// What it prints at its end.
    #[serde(default)]
    pub log: String,
}

impl Seed {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// When the text is neither, or says something unknown.
    pub fn read(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(text)
    }

    pub(super) fn plant(&self, github: &GitHub) {
        for repo in &self.repos {
            let handle = github.repo(&repo.owner, &repo.name);
            for (login, level) in &repo.permissions {
                handle.permission(login, level);
            }
            for seed in &repo.issues {
                let issue = if seed.pull {
                    handle.pull(seed.number)
                } else {
                    handle.issue(seed.number)
                };
                issue.title(&seed.title).body(&seed.body).label_list(&seed.labels);
                if let Some(author) = &seed.author {
                    issue.author(author);
                }
                if let Some(assignee) = &seed.assignee {
                    issue.assignee(assignee);
                }
                for comment in &seed.comments {
                    issue.comment(&comment.author, &comment.body);
                }
                if seed.closed {
                    issue.close();
                }
            }
        }
    }
}
