//! An issue or a pull request as its source has it, and whether a spawner discovers it.

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};
use taskgate_api::Lenient as _;

use crate::kubernetes::hex;

/// The parts of an issue or a pull request that decisions need. Its text is only kept as a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceItem {
    /// Its number.
    pub number: u64,
    /// Whether it is a pull request.
    pub is_pull: bool,
    /// Whether it is open.
    pub is_open: bool,
    /// Whether it is a draft.
    pub is_draft: bool,
    /// Its title.
    pub title: String,
    /// SHA-256 of its text.
    pub body_digest: [u8; 32],
    /// Its labels, in the order of the issue source.
    pub labels: Vec<String>,
    /// Its author.
    pub author: String,
    /// Its assignees.
    pub assignees: Vec<String>,
    /// Its page.
    pub url: String,
    /// When it changed last.
    pub updated: Option<Timestamp>,
    /// How many comments it has.
    pub comment_count: u64,
    /// The head of a pull request; absent where it was not read.
    pub head_sha: Option<String>,
    /// SHA-256 of everything that people wrote in comments; zero until they were read.
    pub conversation: [u8; 32],
    /// The latest comments, oldest first. Empty where their text is not needed.
    pub comments: Vec<Comment>,
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Its number at the issue source.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// When, in whole seconds.
    pub created: Option<Timestamp>,
    /// Whether a person wrote it, rather than a bot, the owner of our token, or Kelos.
    pub by_person: bool,
    /// Its beginning: enough to search it for a trigger.
    pub body: String,
}

impl SourceItem {
    /// Opaque hash of what a person may have changed so that another attempt makes sense: title, text, labels, and what
    /// people commented.
    pub fn content_hash(&self) -> String {
        let mut hash = Context::new(&SHA256);
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(self.title.as_bytes());
        field(&self.body_digest);
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_unstable();
        for label in labels {
            field(label.as_bytes());
        }
        field(&[]);
        field(&self.conversation);
        format!("sha256:{}", hex(hash.finish().as_ref()))
    }

    /// The fields that templates see: `title`, `labels`, `author`.
    pub fn template_fields(&self) -> Map<String, Value> {
        let fields = [
            ("title", Value::from(self.title.as_str())),
            ("labels", Value::from(self.labels.clone())),
            ("author", Value::from(self.author.as_str())),
        ];
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    /// Whether the item is unchanged since `before`, so that its comments need not be read again.
    pub fn is_as(&self, before: &Self) -> bool {
        let own = |item: &Self| Self {
            conversation: [0; 32],
            comments: Vec::new(),
            head_sha: None,
            ..item.clone()
        };
        own(self) == own(before) && (self.head_sha.is_none() || self.head_sha == before.head_sha)
    }
}

/// The filters of one source: which items its spawner discovers, by Kelos' rules, as far as the item's own fields decide. Review
/// states, changed files and comment policies need further requests; every item passes them here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `open`, `closed` or `all`; empty is `open`.
    state: String,
    labels: Vec<String>,
    exclude_labels: Vec<String>,
    assignee: String,
    author: String,
    exclude_authors: Vec<String>,
    draft: Option<bool>,
    /// Which kinds pass; `None`: both.
    pulls: Option<Pulls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pulls {
    issues: bool,
    pulls: bool,
}

impl Filter {
    /// The filters of `source`, the value of `kind` in the spawner's `when`. The filters of a webhook are about events, not items:
    /// every item passes, closed ones only if an event about a closed item can create a Task.
    pub(crate) fn of(kind: &str, source: &Value) -> Self {
        if kind == "githubWebhook" {
            let state = if hears_of_open_items_only(source) {
                "open"
            } else {
                "all"
            };
            return Self {
                state: state.to_owned(),
                ..Self::default()
            };
        }
        let text = |field: &str| source.text(field).unwrap_or_default().to_owned();
        let list = |field: &str| {
            let texts = source.items(field).filter_map(Value::as_str);
            texts.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let types = list("/types");
        let of_type = |name: &str| types.iter().any(|own| own == name);
        Self {
            state: text("/state"),
            labels: list("/labels"),
            exclude_labels: list("/excludeLabels"),
            assignee: text("/assignee"),
            author: text("/author"),
            exclude_authors: list("/excludeAuthors"),
            draft: source.get("draft").and_then(Value::as_bool),
            pulls: (kind == "githubIssues").then(|| Pulls {
                issues: types.is_empty() || of_type("issues"),
                pulls: of_type("pulls"),
            }),
        }
    }

    /// Whether the spawner would find `item`.
    pub fn discovers(&self, item: &SourceItem) -> bool {
        let has = |label: &String| item.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        let state = match self.state.as_str() {
            "all" => true,
            "closed" => !item.is_open,
            _ => item.is_open,
        };
        let assignee = match self.assignee.as_str() {
            "" => true,
            "*" => !item.assignees.is_empty(),
            "none" => item.assignees.is_empty(),
            login => item.assignees.iter().any(|own| own.eq_ignore_ascii_case(login)),
        };
        state
            && assignee
            && self.labels.iter().all(has)
            && !self.exclude_labels.iter().any(|label| item.labels.contains(label))
            && (self.author.is_empty() || self.author.eq_ignore_ascii_case(&item.author))
            && !self.exclude_authors.contains(&item.author)
            && self.draft.is_none_or(|draft| draft == item.is_draft)
            && self
                .pulls
                .is_none_or(|types| if item.is_pull { types.pulls } else { types.issues })
    }
}

/// Whether each of a webhook's filters passes only what is open. Without filters every event passes.
fn hears_of_open_items_only(source: &Value) -> bool {
    let mut filters = source.items("/filters").peekable();
    let open =
        |filter: &Value| filter["state"] == "open" || filter["action"] == "opened" || filter["action"] == "reopened";
    filters.peek().is_some() && filters.all(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_changes_the_hash_and_nothing_else_does() {
        let item = SourceItem {
            number: 42,
            title: "Crash".into(),
            labels: vec!["a".into(), "b".into()],
            ..SourceItem::default()
        };
        let same = [
            SourceItem {
                updated: Some(Timestamp::MAX),
                comment_count: 7,
                is_draft: true,
                head_sha: Some("abc".into()),
                assignees: vec!["ann".into()],
                ..item.clone()
            },
            SourceItem {
                labels: vec!["b".into(), "a".into()],
                ..item.clone()
            },
        ];
        for same in same {
            assert_eq!(same.content_hash(), item.content_hash());
        }
        let other = [
            SourceItem {
                title: "Crash!".into(),
                ..item.clone()
            },
            SourceItem {
                labels: vec!["ab".into()],
                ..item.clone()
            },
            SourceItem {
                labels: vec!["a".into()],
                ..item.clone()
            },
            SourceItem {
                body_digest: [1; 32],
                ..item.clone()
            },
            SourceItem {
                conversation: [1; 32],
                ..item.clone()
            },
        ];
        for other in other {
            assert_ne!(other.content_hash(), item.content_hash(), "{other:?}");
        }
    }
}

#[cfg(test)]
mod filter_tests {
    use super::*;
    use serde_json::json;

    fn issue() -> SourceItem {
        SourceItem {
            is_open: true,
            labels: vec!["bug".into(), "ready".into()],
            author: "ann".into(),
            assignees: vec!["bob".into()],
            ..SourceItem::default()
        }
    }

    fn draft() -> SourceItem {
        SourceItem {
            is_pull: true,
            is_draft: true,
            ..issue()
        }
    }

    #[test]
    fn an_issue_passes_as_in_kelos() {
        for (filter, passes) in [
            (json!({}), true),
            (json!({"labels": ["bug"]}), true),
            (json!({"labels": ["bug", "x"]}), false),
            (json!({"excludeLabels": ["wontfix"]}), true),
            (json!({"excludeLabels": ["wontfix", "ready"]}), false),
            (json!({"state": "open"}), true),
            (json!({"state": "closed"}), false),
            (json!({"state": "all"}), true),
            (json!({"assignee": "BOB"}), true),
            (json!({"assignee": "carl"}), false),
            (json!({"assignee": "none"}), false),
            (json!({"assignee": "*"}), true),
            (json!({"author": "ann"}), true),
            (json!({"author": "carl"}), false),
            (json!({"excludeAuthors": ["carl"]}), true),
            (json!({"excludeAuthors": ["carl", "ann"]}), false),
            (json!({"types": ["issues"]}), true),
            (json!({"types": ["pulls"]}), false),
            (json!({"types": ["issues", "pulls"]}), true),
        ] {
            let passed = Filter::of("githubIssues", &filter).discovers(&issue());
            assert_eq!(passed, passes, "{filter}");
        }
        let nobodys = SourceItem {
            assignees: Vec::new(),
            ..issue()
        };
        for (assignee, passes) in [("", true), ("none", true), ("*", false), ("bob", false)] {
            let filter = Filter::of("githubIssues", &json!({"assignee": assignee}));
            assert_eq!(filter.discovers(&nobodys), passes, "{assignee}");
        }
    }

    #[test]
    fn a_pull_request_passes_as_in_kelos() {
        for (filter, passes) in [
            (json!({}), true),
            (json!({"labels": ["ready", "bug"]}), true),
            (json!({"labels": ["x"]}), false),
            (json!({"excludeLabels": ["ready"]}), false),
            (json!({"state": "closed"}), false),
            (json!({"author": "ann"}), true),
            (json!({"author": "carl"}), false),
            (json!({"excludeAuthors": ["ann"]}), false),
            (json!({"draft": true}), true),
            (json!({"draft": false}), false),
        ] {
            let passed = Filter::of("githubPullRequests", &filter).discovers(&draft());
            assert_eq!(passed, passes, "{filter}");
        }
        assert!(!Filter::of("githubIssues", &json!({})).discovers(&draft()));
        assert!(Filter::of("githubIssues", &json!({"types": ["pulls"]})).discovers(&draft()));
    }

    /// What takes further requests to know is uncertain, and uncertainty takes nothing away.
    #[test]
    fn filters_that_an_items_own_fields_do_not_decide_let_it_pass() {
        for filter in [
            json!({"reviewState": "approved"}),
            json!({"filePatterns": {"include": ["*.rs"]}}),
            json!({"commentPolicy": {"triggerComment": "/go"}}),
            json!({"priorityLabels": ["x"]}),
        ] {
            assert!(
                Filter::of("githubPullRequests", &filter).discovers(&draft()),
                "{filter}"
            );
        }
    }

    #[test]
    fn what_is_closed_passes_only_where_that_is_wanted() {
        let closed = SourceItem {
            is_open: false,
            ..issue()
        };
        for (state, passes) in [("", false), ("open", false), ("closed", true), ("all", true)] {
            for kind in ["githubIssues", "githubPullRequests"] {
                let filter = Filter::of(kind, &json!({"state": state}));
                assert_eq!(filter.discovers(&closed), passes, "{kind} {state}");
            }
        }
        let events = Filter::of("githubWebhook", &json!({"labels": ["x"], "excludeAuthors": ["ann"]}));
        assert!(events.discovers(&issue()) && events.discovers(&closed));
        for (filters, passes) in [
            (json!([]), true),
            (json!([{"event": "pull_request", "action": "closed"}]), true),
            (json!([{"event": "issue_comment", "action": "created"}]), true),
            (json!([{"event": "issues", "state": "closed"}]), true),
            (json!([{"event": "issues", "state": "open"}]), false),
            (
                json!([{"event": "issues", "action": "opened"}, {"event": "pull_request", "state": "open"}]),
                false,
            ),
            (json!([{"event": "issues", "state": "open"}, {"event": "push"}]), true),
        ] {
            let filter = Filter::of("githubWebhook", &json!({"events": ["issues"], "filters": filters}));
            assert!(filter.discovers(&issue()), "{filters}");
            assert_eq!(filter.discovers(&closed), passes, "{filters}");
        }
    }
}
