//! Items of the polling GitHub sources (kelos §4).

use super::comments::Policy;
use super::rest::{DiscoverError, GitHub, Issue, Pull, Repository};
use crate::types::{CommentPolicy, GitHubIssues, GitHubPullRequests, Workspace};
use jiff::Timestamp;

/// Something to work on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// What its Task's name ends with.
    pub id: String,
    /// The number at the issue source, 0 for none.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Its page.
    pub url: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its conversation, comments joined.
    pub comments: String,
    /// `Issue` or `PR`; empty counts as `Issue`.
    pub kind: String,
    /// A pull request's head branch.
    pub branch: String,
    /// A tick's time.
    pub time: String,
    /// A tick's schedule.
    pub schedule: String,
    /// The time of the last request for a new run.
    pub trigger: Option<Timestamp>,
}

/// Issues, and pull requests among them if asked for.
pub(super) async fn issues(
    github: &GitHub,
    source: &GitHubIssues,
    workspace: &Workspace,
) -> Result<Vec<Item>, DiscoverError> {
    let repository = Repository::of(&source.repo, &workspace.spec.repo)?;
    let mut query = vec![("per_page", "100"), ("state", state(&source.state))];
    let labels = source.labels.join(",");
    for (key, value) in [
        ("labels", &labels),
        ("assignee", &source.assignee),
        ("creator", &source.author),
    ] {
        if !value.is_empty() {
            query.push((key, value));
        }
    }
    let found: Vec<Issue> = github.list(&repository.path("issues", &query)).await?;
    let issues = source.types.is_empty() || source.types.iter().any(|t| t == "issues");
    let pulls = source.types.iter().any(|t| t == "pulls");
    let policy = Policy::of(source.comment_policy.as_ref());
    let mut items = Vec::new();
    for issue in found {
        let wanted = if issue.pull_request.is_some() { pulls } else { issues };
        let names = issue.label_names();
        if !wanted
            || source.exclude_authors.contains(&issue.user.login)
            || names.iter().any(|name| source.exclude_labels.contains(name))
        {
            continue;
        }
        let item = Item {
            kind: if issue.pull_request.is_some() { "PR" } else { "Issue" }.to_owned(),
            labels: names,
            ..Item::default()
        };
        items.extend(converse(github, &repository, &policy, issue, item).await?);
    }
    Ok(items)
}

/// Pull requests. Reviews play no part in the stand-in, and `filePatterns` is not looked at.
pub(super) async fn pulls(
    github: &GitHub,
    source: &GitHubPullRequests,
    workspace: &Workspace,
) -> Result<Vec<Item>, DiscoverError> {
    let repository = Repository::of(&source.repo, &workspace.spec.repo)?;
    let query = [("per_page", "100"), ("state", state(&source.state))];
    let found: Vec<Pull> = github.list(&repository.path("pulls", &query)).await?;
    let policy = Policy::of(source.comment_policy.as_ref());
    let mut items = Vec::new();
    for pull in found {
        let names = pull.issue.label_names();
        let author = &pull.issue.user.login;
        if (!source.author.is_empty() && *author != source.author)
            || source.exclude_authors.contains(author)
            || source.draft.is_some_and(|draft| draft != pull.draft)
            || names.iter().any(|name| source.exclude_labels.contains(name))
            || !source.labels.iter().all(|label| names.contains(label))
        {
            continue;
        }
        let item = Item {
            kind: "PR".to_owned(),
            labels: names,
            branch: pull.head.r#ref,
            ..Item::default()
        };
        items.extend(converse(github, &repository, &policy, pull.issue, item).await?);
    }
    Ok(items)
}

fn state(state: &str) -> &str {
    if state.is_empty() { "open" } else { state }
}

/// Asks for the comments, always, and lets the policy decide (kelos §4).
async fn converse(
    github: &GitHub,
    repository: &Repository,
    policy: &Policy<'_>,
    issue: Issue,
    mut item: Item,
) -> Result<Option<Item>, DiscoverError> {
    let path = format!("issues/{}/comments", issue.number);
    let comments = repository.path(&path, &[("per_page", "100")]);
    let comments = github.list(&comments).await?;
    let Some(trigger) = policy.judge(github, repository, &issue, &comments).await? else {
        return Ok(None);
    };
    item.trigger = trigger.filter(|_| policy.triggers());
    let bodies: Vec<&str> = comments.iter().map(super::rest::Comment::body).collect();
    item.comments = bodies.join("\n---\n");
    item.id = issue.number.to_string();
    item.number = issue.number;
    item.title = issue.title;
    item.body = issue.body.unwrap_or_default();
    item.url = issue.html_url;
    Ok(Some(item))
}

/// Sorts stably by the first priority label that an item carries.
pub(super) fn prioritise(items: &mut [Item], priorities: &[String]) {
    let rank = |item: &Item| {
        let found = priorities.iter().position(|p| item.labels.contains(p));
        found.unwrap_or(priorities.len())
    };
    items.sort_by_key(rank);
}

/// For a policy that is not there.
pub(super) fn no_policy() -> &'static CommentPolicy {
    static NONE: CommentPolicy = CommentPolicy {
        trigger_comment: String::new(),
        exclude_comments: Vec::new(),
        allowed_users: Vec::new(),
        allowed_teams: Vec::new(),
        minimum_permission: String::new(),
    };
    &NONE
}
