//! Reads GitHub's answers leniently: a missing field reads as empty, and an invalid answer as none.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Comment, SourceItem};
use crate::kubernetes;

/// How many comments an answer has at most, and how many are asked for.
pub const PER_PAGE: u32 = 100;
/// How many labels, and how many assignees, are kept: GitHub allows no more.
const MAX_NAMES: usize = 100;
/// How many comments are kept.
const KEPT: usize = 30;
/// How much of a comment is kept, in characters.
const KEPT_TEXT: usize = 1024;
/// The longest title, label or name that is kept, in characters.
const MAX_TEXT: usize = 512;
/// What Kelos writes into its own comments (internal/reporting of Kelos).
const KELOS_MARKS: [&str; 2] = ["<!-- kelos.dev/", "**Kelos Task Status**"];

/// The answer of `/issues/N` or `/pulls/N`. `None` when it is no such thing, or another number's.
pub fn item(answer: &Value, number: u64) -> Option<SourceItem> {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let is_open = match text("/state") {
        "open" => true,
        "closed" => false,
        _ => return None,
    };
    if answer.get("number")?.as_u64()? != number {
        return None;
    }
    let names = |list: &str, field: &str| {
        let list = answer.get(list).and_then(Value::as_array).into_iter().flatten();
        // A label may be a bare string.
        let name = |entry: &Value| entry.get(field).unwrap_or(entry).as_str().map(clip);
        let mut seen = BTreeSet::new();
        let is_new = |name: &String| seen.insert(name.clone());
        list.filter_map(name).filter(is_new).take(MAX_NAMES).collect::<Vec<_>>()
    };
    let head = text("/head/sha");
    Some(SourceItem {
        number,
        is_pull: answer.get("pull_request").is_some_and(|part| !part.is_null()) || !head.is_empty(),
        is_open,
        is_draft: answer.get("draft").and_then(Value::as_bool) == Some(true),
        title: clip(text("/title")),
        body_digest: Sha256::digest(text("/body")).into(),
        labels: names("labels", "name"),
        author: clip(text("/user/login")),
        assignees: names("assignees", "login"),
        url: clip(text("/html_url")),
        updated: text("/updated_at").parse().ok(),
        comment_count: answer.get("comments").and_then(Value::as_u64).unwrap_or_default(),
        head_sha: (!head.is_empty()).then(|| clip(head)),
        conversation: [0; 32],
        comments: Vec::new(),
    })
}

/// The conversation about an item, read page by page. Of each page no more is kept than is used.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    hash: Sha256,
    with_text: bool,
    latest: VecDeque<Comment>,
}

impl Conversation {
    /// A conversation of which nothing is read; of which the text of the latest comments is kept only `with_text`.
    pub fn new(with_text: bool) -> Self {
        Self {
            with_text,
            ..Self::default()
        }
    }

    /// Adds a page. `own` is the login that our token belongs to. `None` when the answer is no list of comments.
    pub fn add(&mut self, answer: &Value, own: Option<&str>) -> Option<()> {
        for entry in answer.as_array()?.iter().take(PER_PAGE as usize) {
            let comment = comment(entry, own)?;
            if comment.by_person {
                self.hash.update(comment.id.to_be_bytes());
                self.hash.update(Sha256::digest(body(entry)));
            }
            if self.with_text {
                if self.latest.len() == KEPT {
                    self.latest.pop_front();
                }
                self.latest.push_back(comment);
            }
        }
        Some(())
    }

    /// Puts the conversation into `item`.
    pub fn finish(self, item: &mut SourceItem) {
        item.conversation = self.hash.finalize().into();
        item.comments = self.latest.into();
    }
}

fn comment(entry: &Value, own: Option<&str>) -> Option<Comment> {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let body = body(entry);
    let author = text("/user/login");
    let is_app = entry.get("performed_via_github_app").is_some_and(|app| !app.is_null());
    let is_bot = text("/user/type") == "Bot" || author.ends_with("[bot]") || is_app;
    let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(author));
    Some(Comment {
        id: entry.get("id")?.as_u64()?,
        author: clip(author),
        created: text("/created_at").parse().ok(),
        by_person: !is_bot && !is_own && !KELOS_MARKS.iter().any(|mark| body.contains(mark)),
        body: kubernetes::clip(body, KEPT_TEXT),
    })
}

fn body(entry: &Value) -> &str {
    entry.get("body").and_then(Value::as_str).unwrap_or_default()
}

/// The login of `/user`: who our token belongs to.
pub fn login(answer: &Value) -> Option<String> {
    answer.get("login")?.as_str().map(clip)
}

fn clip(text: &str) -> String {
    kubernetes::clip(text, MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nonsense_is_no_item() {
        for answer in [
            json!(null),
            json!([]),
            json!({}),
            json!({"number": 42}),
            json!({"number": 42, "state": 7}),
            json!({"number": "42", "state": "open"}),
            json!({"number": 43, "state": "open"}),
            json!({"message": "Not Found"}),
        ] {
            assert_eq!(item(&answer, 42), None, "{answer}");
        }
        let odd =
            json!({"number": 42, "state": "closed", "title": 7, "labels": ["b", {"name": "a"}, 3, "b"], "user": null});
        let odd = item(&odd, 42).unwrap();
        assert_eq!(
            (odd.is_open, odd.labels.as_slice()),
            (false, ["b", "a"].map(String::from).as_slice())
        );
    }

    #[test]
    fn only_people_count() {
        let page = json!([
            {"id": 1, "body": "please", "user": {"login": "ann", "type": "User"}},
            {"id": 2, "body": "done", "user": {"login": "Fixer", "type": "User"}},
            {"id": 3, "body": "checks", "user": {"login": "ci[bot]", "type": "Bot"}},
            {"id": 4, "body": "🤖 **Kelos Task Status**\n\nTask `x` has **failed**.", "user": {"login": "ann"}},
            {"id": 5, "body": "app", "user": {"login": "ann"}, "performed_via_github_app": {"id": 1}},
        ]);
        let read = |entries: &[Value], with_text| {
            let (mut item, mut conversation) = (SourceItem::default(), Conversation::new(with_text));
            conversation.add(&json!(entries), Some("fixer")).unwrap();
            conversation.finish(&mut item);
            item
        };
        let page = page.as_array().unwrap();
        let all = read(page, true);
        let people: Vec<_> = all.comments.iter().map(|comment| comment.by_person).collect();
        assert_eq!(people, [true, false, false, false, false]);
        assert_eq!(read(&[], false).conversation, read(&page[1..], false).conversation);
        let one = read(&page[..1], false);
        assert_eq!((one.conversation, one.comments.len()), (all.conversation, 0));
        assert_ne!(one.conversation, read(&[], false).conversation);
        for nonsense in [json!({"message": "no"}), json!([{"body": "no id"}])] {
            assert!(Conversation::new(false).add(&nonsense, None).is_none(), "{nonsense}");
        }
    }

    /// A GitHub Enterprise server may send answers of any size.
    #[test]
    fn no_more_is_kept_than_is_used() {
        let names: Vec<_> = (0..5000)
            .map(|n| json!({"name": n.to_string(), "login": n.to_string()}))
            .collect();
        let answer = json!({"number": 42, "state": "open", "labels": names, "assignees": names});
        let item = item(&answer, 42).unwrap();
        assert_eq!((item.labels.len(), item.assignees.len()), (MAX_NAMES, MAX_NAMES));
        let comment = |id: u64| json!({"id": id, "body": "x".repeat(2 * KEPT_TEXT), "user": {"login": "ann"}});
        let read = |pages: &[std::ops::Range<u64>]| {
            let (mut item, mut conversation) = (SourceItem::default(), Conversation::new(true));
            for page in pages {
                let page: Vec<_> = page.clone().map(comment).collect();
                conversation.add(&json!(page), None).unwrap();
            }
            conversation.finish(&mut item);
            item
        };
        let all = read(&[0..100, 100..120]);
        let ids: Vec<_> = all.comments.iter().map(|comment| comment.id).collect();
        assert_eq!(ids, (90..120).collect::<Vec<_>>(), "the latest ones");
        assert!(all.comments.iter().all(|comment| comment.body.len() <= KEPT_TEXT + 2));
        let page = |len| read(std::slice::from_ref(&(0..len)));
        assert_eq!(page(5000), page(100), "a page has no more than was asked for");
    }
}
