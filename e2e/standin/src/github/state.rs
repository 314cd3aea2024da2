//! The stub's state.

use super::Fault;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Requests per hour of a GitHub token.
const LIMIT: u64 = 5000;
/// GitHub's own cap of `per_page`.
const PAGE_SIZE: usize = 100;

/// One request, as answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query.
    pub query: String,
    /// Whether it came with `If-None-Match`.
    pub conditional: bool,
    /// Whether it came with a token. The token itself is not kept.
    pub authorized: bool,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// The answer's code; 0 for a connection that was cut.
    pub status: u16,
}

impl Seen {
    /// Whether the answer was "not modified".
    pub fn is_not_modified(&self) -> bool {
        self.status == StatusCode::NOT_MODIFIED
    }
}

/// All state.
#[derive(Debug)]
pub(crate) struct GitHubState {
    pub(super) base: String,
    pub(super) repos: BTreeMap<(String, String), Repository>,
    pub(super) seen: Vec<Seen>,
    pub(super) faults: Vec<Fault>,
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) reset: Timestamp,
    pub(super) page_size: usize,
    pub(super) viewer: Option<String>,
    next_comment: u64,
}

impl Default for GitHubState {
    fn default() -> Self {
        Self {
            base: String::new(),
            repos: BTreeMap::new(),
            seen: Vec::new(),
            faults: Vec::new(),
            limit: LIMIT,
            remaining: LIMIT,
            reset: Timestamp::now() + SignedDuration::from_hours(1),
            page_size: PAGE_SIZE,
            viewer: None,
            next_comment: 1,
        }
    }
}

/// One repository.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) permissions: BTreeMap<String, String>,
}

/// An issue or a pull request: GitHub numbers them together.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) title: String,
    pub(super) body: String,
    pub(super) labels: Vec<String>,
    pub(super) author: String,
    pub(super) assignee: Option<String>,
    pub(super) closed: Option<Timestamp>,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) comments: Vec<Comment>,
    pub(super) pull: Option<Pull>,
}

/// What a pull request has besides.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    pub(super) draft: bool,
    pub(super) merged: bool,
    pub(super) branch: String,
    pub(super) sha: String,
}

/// A comment.
#[derive(Clone, Debug)]
pub(super) struct Comment {
    pub(super) id: u64,
    pub(super) author: String,
    pub(super) body: String,
    pub(super) created: Timestamp,
}

impl Entry {
    fn new() -> Self {
        let now = Timestamp::now();
        Self {
            title: String::new(),
            body: String::new(),
            labels: Vec::new(),
            author: "reporter".to_owned(),
            assignee: None,
            closed: None,
            created: now,
            updated: now,
            comments: Vec::new(),
            pull: None,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        if self.closed.is_some() { "closed" } else { "open" }
    }
}

impl GitHubState {
    pub(super) fn repository(&mut self, owner: &str, name: &str) -> &mut Repository {
        let key = (owner.to_owned(), name.to_owned());
        self.repos.entry(key).or_default()
    }

    /// The entry, made if it does not exist, and its time of update set.
    pub(super) fn touch(&mut self, owner: &str, name: &str, number: u64) -> &mut Entry {
        let entries = &mut self.repository(owner, name).entries;
        let entry = entries.entry(number).or_insert_with(Entry::new);
        entry.updated = Timestamp::now();
        entry
    }

    pub(super) fn comment_id(&mut self) -> u64 {
        self.next_comment += 1;
        self.next_comment
    }
}

/// Whole seconds in UTC, as GitHub writes times.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A user, as they stand in everything; an App's bot has a login of its own form.
pub(super) fn user(login: &str) -> Value {
    let kind = if login.ends_with("[bot]") { "Bot" } else { "User" };
    json!({"login": login, "type": kind})
}

/// An entry as the issues endpoints show it.
pub(super) fn issue(base: &str, owner: &str, name: &str, number: u64, entry: &Entry) -> Value {
    let labels: Vec<Value> = entry.labels.iter().map(|l| json!({"name": l})).collect();
    let page = if entry.pull.is_some() { "pull" } else { "issues" };
    let mut issue = json!({
        "number": number,
        "title": entry.title,
        "body": entry.body,
        "state": entry.state(),
        "state_reason": entry.closed.map(|_| "completed"),
        "labels": labels,
        "user": user(&entry.author),
        "assignee": entry.assignee.as_deref().map(user),
        "assignees": entry.assignee.iter().map(|login| user(login)).collect::<Vec<_>>(),
        "comments": entry.comments.len(),
        "created_at": time(entry.created),
        "updated_at": time(entry.updated),
        "closed_at": entry.closed.map(time),
        "url": format!("{base}/repos/{owner}/{name}/issues/{number}"),
        "html_url": format!("https://github.com/{owner}/{name}/{page}/{number}"),
    });
    if entry.pull.is_some() {
        let url = format!("{base}/repos/{owner}/{name}/pulls/{number}");
        issue["pull_request"] = json!({"url": url});
    }
    issue
}

/// An entry as the pulls endpoints show it; `None` for an issue.
pub(super) fn pull(base: &str, owner: &str, name: &str, number: u64, entry: &Entry) -> Option<Value> {
    let pull = entry.pull.as_ref()?;
    let mut shown = issue(base, owner, name, number, entry);
    shown["draft"] = json!(pull.draft);
    shown["merged"] = json!(pull.merged);
    shown["merged_at"] = json!(entry.closed.filter(|_| pull.merged).map(time));
    shown["head"] = json!({"ref": pull.branch, "sha": pull.sha});
    shown["base"] = json!({"ref": "main"});
    Some(shown)
}

/// A comment as its endpoint shows it.
pub(super) fn comment(comment: &Comment) -> Value {
    json!({
        "id": comment.id,
        "body": comment.body,
        "user": user(&comment.author),
        "created_at": time(comment.created),
        "updated_at": time(comment.created),
    })
}
