//! What is where: paths to JSON.

use super::edit;
use super::state::{self, Entry, GitHubState};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A request's query.
pub(super) type Query = BTreeMap<String, String>;

/// An answer before paging.
pub(super) enum Content {
    /// One object.
    One(Value),
    /// One object that a request has made.
    Made(Value),
    /// A list, of which a page is shown.
    Many(Vec<Value>),
    /// Nothing there.
    Missing,
    /// Something there, but not for this request.
    Unprocessable(String),
}

impl Content {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::One(_) | Self::Many(_) => StatusCode::OK,
            Self::Made(_) => StatusCode::CREATED,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// Answers a request for a path below the base URL.
pub(super) fn content(state: &mut GitHubState, method: &Method, path: &str, query: &Query, body: &[u8]) -> Content {
    let path = path.strip_prefix("/api/v3").unwrap_or(path);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let ["rate_limit"] = parts[..] {
        let core = json!({
            "limit": state.limit, "remaining": state.remaining, "reset": state.reset.as_second(),
        });
        return Content::One(json!({"resources": {"core": core}, "rate": core}));
    }
    if let ["user"] = parts[..] {
        let viewer = state.viewer.as_deref();
        return viewer.map_or(Content::Missing, |login| Content::One(state::user(login)));
    }
    let ["repos", owner, name, ref rest @ ..] = parts[..] else {
        return Content::Missing;
    };
    if !state.repos.contains_key(&(owner.to_owned(), name.to_owned())) {
        return Content::Missing;
    }
    if *method != Method::GET {
        return edit::edit(state, method, (owner, name), rest, body);
    }
    read(state, (owner, name), rest, query)
}

fn read(state: &GitHubState, repo: (&str, &str), rest: &[&str], query: &Query) -> Content {
    let (owner, name) = repo;
    let Some(repository) = state.repos.get(&(owner.to_owned(), name.to_owned())) else {
        return Content::Missing;
    };
    let base = &state.base;
    let entry = |number: &str| {
        let number: u64 = number.parse().ok()?;
        repository.entries.get(&number).map(|entry| (number, entry))
    };
    let one = |shown: Option<Value>| shown.map_or(Content::Missing, Content::One);
    match *rest {
        [] => Content::One(json!({"name": name, "full_name": format!("{owner}/{name}")})),
        ["issues"] => Content::Many(list(repository.entries.iter(), query, |number, entry| {
            Some(state::issue(base, owner, name, number, entry))
        })),
        ["pulls"] => Content::Many(list(repository.entries.iter(), query, |number, entry| {
            state::pull(base, owner, name, number, entry)
        })),
        ["issues", number] => one(entry(number).map(|(n, entry)| state::issue(base, owner, name, n, entry))),
        ["pulls", number] => one(entry(number).and_then(|(n, entry)| state::pull(base, owner, name, n, entry))),
        ["issues", number, "comments"] => entry(number).map_or(Content::Missing, |(_, entry)| {
            Content::Many(entry.comments.iter().map(state::comment).collect())
        }),
        ["issues", number, "labels"] => entry(number).map_or(Content::Missing, |(_, entry)| {
            Content::Many(entry.labels.iter().map(|l| json!({"name": l})).collect())
        }),
        ["pulls", number, "comments" | "reviews" | "files"] => match entry(number) {
            Some((_, entry)) if entry.pull.is_some() => Content::Many(Vec::new()),
            _ => Content::Missing,
        },
        ["collaborators", login, "permission"] => {
            let level = repository.permissions.get(login);
            one(level.map(|level| json!({"permission": level, "role_name": level})))
        }
        _ => Content::Missing,
    }
}

/// Newest first, as GitHub lists; `sort` and `direction` are not looked at.
fn list<'a>(
    entries: impl DoubleEndedIterator<Item = (&'a u64, &'a Entry)>,
    query: &Query,
    show: impl Fn(u64, &Entry) -> Option<Value>,
) -> Vec<Value> {
    let wanted = |entry: &Entry| {
        let state = query.get("state").map_or("open", String::as_str);
        let labels = query.get("labels").map_or("", String::as_str);
        let mut labels = labels.split(',').filter(|label| !label.is_empty());
        let assignee = query.get("assignee");
        let since = query.get("since").and_then(|since| since.parse().ok());
        (state == "all" || state == entry.state())
            && labels.all(|label| entry.labels.iter().any(|own| own == label))
            && assignee.is_none_or(|wanted| match wanted.as_str() {
                "none" => entry.assignee.is_none(),
                "*" => entry.assignee.is_some(),
                login => entry.assignee.as_deref() == Some(login),
            })
            && query.get("creator").is_none_or(|l| *l == entry.author)
            && since.is_none_or(|since| entry.updated >= since)
    };
    let found = entries.rev().filter(|(_, entry)| wanted(entry));
    found.filter_map(|(number, entry)| show(*number, entry)).collect()
}
