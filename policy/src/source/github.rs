//! GitHub's answers, read forgivingly: what is not there reads as empty, what cannot be an answer is none.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Comment, SourceItem};

/// How many comments an answer has at most, and how many are asked for.
pub const PER_PAGE: u64 = 100;
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
        list.filter_map(name).filter(is_new).collect::<Vec<_>>()
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

/// One page of comments. `own` is the login that our token belongs to. `None` when the answer is no list of comments.
pub fn comments(answer: &Value, own: Option<&str>) -> Option<Vec<RawComment>> {
    answer.as_array()?.iter().map(|entry| comment(entry, own)).collect()
}

/// A comment with all of its text.
#[derive(Clone, Debug)]
pub struct RawComment {
    comment: Comment,
    digest: [u8; 32],
}

fn comment(entry: &Value, own: Option<&str>) -> Option<RawComment> {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let body = text("/body");
    let author = text("/user/login");
    let is_app = entry.get("performed_via_github_app").is_some_and(|app| !app.is_null());
    let is_bot = text("/user/type") == "Bot" || author.ends_with("[bot]") || is_app;
    let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(author));
    Some(RawComment {
        digest: Sha256::digest(body).into(),
        comment: Comment {
            id: entry.get("id")?.as_u64()?,
            author: clip(author),
            created: text("/created_at").parse().ok(),
            by_person: !is_bot && !is_own && !KELOS_MARKS.iter().any(|mark| body.contains(mark)),
            body: crate::clip(body, KEPT_TEXT),
        },
    })
}

/// Puts the whole conversation into `item`; its text only if `keep`.
pub fn converse(item: &mut SourceItem, comments: Vec<RawComment>, keep: bool) {
    let mut hash = Sha256::new();
    for raw in comments.iter().filter(|raw| raw.comment.by_person) {
        hash.update(raw.comment.id.to_be_bytes());
        hash.update(raw.digest);
    }
    item.conversation = hash.finalize().into();
    let surplus = comments.len().saturating_sub(KEPT);
    item.comments = if keep {
        comments.into_iter().skip(surplus).map(|raw| raw.comment).collect()
    } else {
        Vec::new()
    };
}

/// The login of `/user`: who our token belongs to.
pub fn login(answer: &Value) -> Option<String> {
    answer.get("login")?.as_str().map(clip)
}

fn clip(text: &str) -> String {
    crate::clip(text, MAX_TEXT)
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
        let raw = comments(&page, Some("fixer")).unwrap();
        let people: Vec<_> = raw.iter().map(|raw| raw.comment.by_person).collect();
        assert_eq!(people, [true, false, false, false, false]);
        let (mut none, mut bots) = (SourceItem::default(), SourceItem::default());
        converse(&mut none, Vec::new(), false);
        converse(&mut bots, raw[1..].to_vec(), false);
        assert_eq!(none.conversation, bots.conversation);
        let (mut one, mut all) = (SourceItem::default(), SourceItem::default());
        converse(&mut one, raw[..1].to_vec(), false);
        converse(&mut all, raw, true);
        assert_eq!((one.conversation, one.comments.len()), (all.conversation, 0));
        assert_eq!(all.comments.len(), 5);
        assert!(comments(&json!({"message": "no"}), None).is_none());
        assert!(comments(&json!([{"body": "no id"}]), None).is_none());
    }
}
