//! Reads GitHub's answers leniently: a missing field reads as empty, and an invalid answer as none.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};
use serde_json::Value;
use taskgate_api::Lenient as _;

use super::{Comment, SourceItem};
use crate::kubernetes::{self, sha256};

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
    let text = |pointer: &str| answer.text(pointer).unwrap_or_default();
    let is_open = match text("/state") {
        "open" => true,
        "closed" => false,
        _ => return None,
    };
    if answer.get("number")?.as_u64()? != number {
        return None;
    }
    let names = |list: &str, field: &str| {
        // A label may be a bare string.
        let name = |entry: &Value| entry.get(field).unwrap_or(entry).as_str().map(clip);
        let mut seen = BTreeSet::new();
        let is_new = |name: &String| seen.insert(name.clone());
        answer
            .items(list)
            .filter_map(name)
            .filter(is_new)
            .take(MAX_NAMES)
            .collect::<Vec<_>>()
    };
    let head = text("/head/sha");
    Some(SourceItem {
        number,
        is_pull: answer.get("pull_request").is_some_and(|part| !part.is_null()) || !head.is_empty(),
        is_open,
        is_draft: answer.get("draft").and_then(Value::as_bool) == Some(true),
        title: clip(text("/title")),
        body_digest: sha256(text("/body").as_bytes()),
        labels: names("/labels", "name"),
        author: clip(text("/user/login")),
        assignees: names("/assignees", "login"),
        url: clip(text("/html_url")),
        updated: answer.time("/updated_at"),
        comment_count: answer.get("comments").and_then(Value::as_u64).unwrap_or_default(),
        head_sha: (!head.is_empty()).then(|| clip(head)),
        conversation: [0; 32],
        comments: Vec::new(),
    })
}

/// The conversation about an item, read page by page. Of each page no more is kept than is used.
#[derive(Clone)]
pub struct Conversation {
    hash: Context,
    with_text: bool,
    latest: VecDeque<Comment>,
}

impl Conversation {
    /// A conversation of which nothing is read; of which the text of the latest comments is kept only `with_text`.
    pub fn new(with_text: bool) -> Self {
        Self {
            hash: Context::new(&SHA256),
            with_text,
            latest: VecDeque::new(),
        }
    }

    /// Adds a page. `own` is the login that our token belongs to. `None` when the answer is no list of comments.
    pub fn add(&mut self, answer: &Value, own: Option<&str>) -> Option<()> {
        for entry in answer.as_array()?.iter().take(PER_PAGE as usize) {
            let comment = comment(entry, own)?;
            if comment.by_person {
                self.hash.update(&comment.id.to_be_bytes());
                self.hash.update(&sha256(body(entry).as_bytes()));
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
        let hash = self.hash.finish();
        item.conversation.copy_from_slice(hash.as_ref());
        item.comments = self.latest.into();
    }
}

fn comment(entry: &Value, own: Option<&str>) -> Option<Comment> {
    let text = |pointer: &str| entry.text(pointer).unwrap_or_default();
    let body = body(entry);
    let author = text("/user/login");
    let is_app = entry.get("performed_via_github_app").is_some_and(|app| !app.is_null());
    let is_bot = text("/user/type") == "Bot" || author.ends_with("[bot]") || is_app;
    let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(author));
    Some(Comment {
        id: entry.get("id")?.as_u64()?,
        author: clip(author),
        created: entry.time("/created_at"),
        by_person: !is_bot && !is_own && !KELOS_MARKS.iter().any(|mark| body.contains(mark)),
        body: kubernetes::clip(body, KEPT_TEXT),
    })
}

fn body(entry: &Value) -> &str {
    entry.text("/body").unwrap_or_default()
}

/// The login of `/user`: who our token belongs to.
pub fn login(answer: &Value) -> Option<String> {
    answer.get("login")?.as_str().map(clip)
}

fn clip(text: &str) -> String {
    kubernetes::clip(text, MAX_TEXT)
}

/// The longest pause that headers can demand.
const MAX_PAUSE: SignedDuration = SignedDuration::from_hours(2);
/// The pause when an issue source demands one without a length.
const DEFAULT_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_mins(15);

/// The rate-limit headers of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateHeaders<'a> {
    /// `Retry-After`
    pub retry_after: Option<&'a str>,
    /// `X-RateLimit-Remaining`
    pub remaining: Option<&'a str>,
    /// `X-RateLimit-Reset`, in seconds since 1970.
    pub reset: Option<&'a str>,
}

/// Until when no further request may be sent, if the answer with `code` and `headers` demands a pause.
///
/// A refusal with `Retry-After` is GitHub's secondary limit; any answer that leaves nothing of the quota ends it until its
/// reset.
pub fn pause(code: u16, headers: RateHeaders<'_>, now: Timestamp) -> Option<Timestamp> {
    let seconds = |text: &str| text.trim().parse::<i64>().ok();
    let after = |wait: SignedDuration| {
        now.checked_add(wait.clamp(SignedDuration::from_secs(1), MAX_PAUSE))
            .ok()
    };
    let refused = matches!(code, 403 | 429 | 503);
    if refused && let Some(text) = headers.retry_after {
        return after(seconds(text).map_or(DEFAULT_PAUSE, SignedDuration::from_secs));
    }
    if headers.remaining.and_then(seconds) == Some(0) && (refused || code < 400) {
        let reset = headers
            .reset
            .and_then(seconds)
            .and_then(|at| Timestamp::from_second(at).ok());
        return after(reset.map_or(DEFAULT_PAUSE, |reset| reset.duration_since(now)));
    }
    if code == 429 { after(DEFAULT_PAUSE) } else { None }
}

/// How long to wait after so many failures in a row, of which the first one waits `base`.
pub fn backoff(failures: u32, base: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(MAX_BACKOFF.max(base))
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

#[cfg(test)]
mod rate_limit_tests {
    use super::*;

    #[test]
    fn pauses_that_headers_demand_are_bounded() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let headers = |retry_after, remaining, reset| RateHeaders {
            retry_after,
            remaining,
            reset,
        };
        for (code, headers, seconds) in [
            (200, headers(None, Some("12"), Some("1000060")), None),
            (200, headers(None, Some("0"), Some("1000060")), Some(60)),
            (304, headers(None, Some("0"), Some("1000060")), Some(60)),
            (403, headers(None, Some("0"), Some("1000060")), Some(60)),
            (403, headers(None, Some("0"), Some("5")), Some(1)),
            (403, headers(None, Some("0"), Some("soon")), Some(60)),
            (403, headers(None, Some("0"), Some("9000000")), Some(7200)),
            (403, headers(Some("7"), Some("4000"), None), Some(7)),
            (
                429,
                headers(Some("Fri, 01 Jan 2027 00:00:00 GMT"), None, None),
                Some(60),
            ),
            (429, headers(None, None, None), Some(60)),
            (403, headers(None, Some("4000"), None), None),
            (404, headers(None, Some("0"), Some("1000060")), None),
            (500, headers(None, None, None), None),
        ] {
            let until = pause(code, headers, now).map(|until| until.duration_since(now).as_secs());
            assert_eq!(until, seconds, "{code} {headers:?}");
        }
    }

    #[test]
    fn patience_doubles_up_to_its_limit() {
        let wait = |failures| backoff(failures, Duration::from_secs(30)).as_secs();
        assert_eq!([1, 2, 3, 9, u32::MAX].map(wait), [30, 60, 120, 900, 900]);
        let hour = Duration::from_hours(1);
        assert_eq!(backoff(4, hour), hour);
    }
}
