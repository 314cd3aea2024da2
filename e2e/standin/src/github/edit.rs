//! The writes of the tour: GitHub's own, so that `curl` can play a user.

use super::routes::Content;
use super::state::{self, Comment, Entry, GitHubState};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Change {
    title: Option<String>,
    body: Option<String>,
    state: Option<String>,
    labels: Option<Vec<String>>,
}

/// Creates or changes an issue, or comments on one.
pub(super) fn edit(
    state: &mut GitHubState,
    method: &Method,
    (owner, name): (&str, &str),
    rest: &[&str],
    body: &[u8],
) -> Content {
    let change: Change = match serde_json::from_slice(body) {
        Ok(change) => change,
        Err(error) => return Content::Unprocessable(error.to_string()),
    };
    let entries = &state.repository(owner, name).entries;
    let highest = entries.keys().max().copied().unwrap_or(0);
    let existing = |number: &str| {
        let number: u64 = number.parse().ok()?;
        entries.contains_key(&number).then_some(number)
    };
    let number = match (method, rest) {
        (&Method::POST, ["issues"]) => highest + 1,
        (&Method::PATCH, ["issues", number]) => match existing(number) {
            Some(number) => number,
            None => return Content::Missing,
        },
        (&Method::POST, ["issues", number, "comments"]) => {
            return match (existing(number), change.body) {
                (Some(number), Some(body)) => comment(state, (owner, name), number, body),
                (Some(_), None) => Content::Unprocessable("body is missing".to_owned()),
                (None, _) => Content::Missing,
            };
        }
        _ => return Content::Missing,
    };
    let made = number > highest;
    let entry = state.touch(owner, name, number);
    apply(entry, change);
    let entry = entry.clone();
    let shown = state::issue(&state.base, owner, name, number, &entry);
    if made {
        Content::Made(shown)
    } else {
        Content::One(shown)
    }
}

fn apply(entry: &mut Entry, change: Change) {
    if let Some(title) = change.title {
        entry.title = title;
    }
    if let Some(body) = change.body {
        entry.body = body;
    }
    if let Some(labels) = change.labels {
        entry.labels = labels;
    }
    match change.state.as_deref() {
        Some("closed") => entry.closed = Some(Timestamp::now()),
        Some("open") => entry.closed = None,
        _ => {}
    }
}

fn comment(state: &mut GitHubState, repo: (&str, &str), number: u64, body: String) -> Content {
    let comment = Comment {
        id: state.comment_id(),
        author: "visitor".to_owned(),
        body,
        created: Timestamp::now(),
    };
    let shown = state::comment(&comment);
    state.touch(repo.0, repo.1, number).comments.push(comment);
    Content::Made(shown)
}
