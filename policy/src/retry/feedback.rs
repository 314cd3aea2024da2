//! Why a run failed, for the next one to read: bounded, quoted, without secrets. A model wrote it, so its form is not trusted, and
//! none of it becomes a label.

use serde_json::Value;
use taskgate_api::{Lenient as _, foreman::AgenticTask, kelos::Task};

/// The longest feedback, heading and marks included, in characters.
pub const MAX_FEEDBACK: usize = 2000;
/// What the block begins with, wherever it is put.
const BEGIN: &str = "<!-- taskgate:feedback -->";
/// What it ends with.
const END: &str = "<!-- /taskgate:feedback -->";
/// The text that the marks have in common; it occurs nowhere else in the block.
const MARK: &str = "taskgate:feedback";

/// The feedback of the children of a failed Workload: first the reviewers' findings, then those of the gate and the coder. `None`
/// when there is nothing that could be acted upon.
pub fn workload_feedback(children: &[Value]) -> Option<String> {
    let children = children.iter().map(AgenticTask::of);
    let notes = |wanted: fn(&AgenticTask<'_>) -> bool, note: fn(AgenticTask<'_>) -> Option<String>| {
        children.clone().filter(wanted).filter_map(note).collect::<Vec<_>>()
    };
    let rejected = notes(
        |child| child.kind() == "review" && child.verdict() == "NO-GO",
        |child| titled("A reviewer rejected it (NO-GO)", &review(child)),
    );
    let gate = notes(
        |child| child.kind() == "verify" && child.verdict() == "GATE-FAIL",
        |child| titled("The gate failed", &statements(child)),
    );
    let coder = notes(
        |child| matches!(child.kind(), "issue-fix" | "code") && matches!(child.verdict(), "NO-GO" | "INCOMPLETE"),
        |child| titled("The coder did not finish", &statements(child)),
    );
    block(&[rejected, gate, coder].concat())
}

/// The feedback of a failed Task: its results and outputs, and its message where that has a cause.
pub fn task_feedback(object: &Value, reason: &str) -> Option<String> {
    let task = Task::of(object);
    let mut parts = Vec::new();
    let message = task.message().trim();
    if !matches!(message, "" | "Task failed") {
        parts.push(message.to_owned());
    }
    if reason == "DeadlineExceeded" {
        parts.push("It ran longer than it may (DeadlineExceeded)".to_owned());
    }
    let results = object.pointer("/status/results").and_then(Value::as_object);
    for (key, value) in results.into_iter().flatten() {
        // Costs and commits do not help the next run.
        if !matches!(
            key.as_str(),
            "cost-usd" | "input-tokens" | "output-tokens" | "commit" | "base-branch"
        ) {
            parts.extend(value.as_str().map(|value| format!("{key}: {value}")));
        }
    }
    let known = |line: &&str| {
        let key = line.split_once(": ").map(|(key, _)| key);
        key.is_none_or(|key| results.is_none_or(|results| !results.contains_key(key)))
    };
    let outputs = object.items("/status/outputs").filter_map(Value::as_str).filter(known);
    parts.extend(outputs.map(ToOwned::to_owned));
    block(&titled("The agent said", &parts).into_iter().collect::<Vec<_>>())
}

/// `text` with `feedback` in place of the present one, else appended; without any, if there is none.
pub(super) fn insert(text: &str, feedback: Option<&str>) -> String {
    let bare = match text.find(BEGIN) {
        Some(begin) => {
            let behind = text[begin..]
                .find(END)
                .map_or("", |end| &text[begin + end + END.len()..]);
            format!("{}{}", text[..begin].trim_end(), behind.trim_end())
        }
        None => text.to_owned(),
    };
    match feedback {
        Some(feedback) if bare.trim_end().is_empty() => feedback.to_owned(),
        Some(feedback) => format!("{}\n\n{feedback}", bare.trim_end()),
        None => bare,
    }
}

/// Findings come as a list of objects, or as a map of flags and texts (foreman §1.12).
fn review(child: AgenticTask<'_>) -> Vec<String> {
    let mut parts = Vec::new();
    match child.model_extra("findings") {
        Some(Value::Array(findings)) => parts.extend(findings.iter().filter_map(finding)),
        Some(Value::Object(findings)) => {
            for (name, value) in findings {
                match value {
                    Value::Bool(true) => parts.push(name.clone()),
                    Value::String(text) if !text.is_empty() => parts.push(format!("{name}: {text}")),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    parts.extend(statements(child));
    parts
}

fn finding(finding: &Value) -> Option<String> {
    let message = finding.text("/message")?;
    let line = finding.get("line").and_then(Value::as_u64).filter(|line| *line > 0);
    let position = finding
        .text("/file")
        .map(|file| line.map_or(file.to_owned(), |line| format!("{file}:{line}")));
    let tags: Vec<_> = [finding.text("/severity"), finding.text("/area")]
        .into_iter()
        .flatten()
        .collect();
    let mut note = String::new();
    if !tags.is_empty() {
        note = format!("[{}] ", tags.join(", "));
    }
    note.push_str(&position.map_or(String::new(), |position| format!("{position}: ")));
    note.push_str(message);
    if let Some(suggestion) = finding.text("/suggestion") {
        note.push_str(" Suggestion: ");
        note.push_str(suggestion);
    }
    Some(note)
}

fn statements(child: AgenticTask<'_>) -> Vec<String> {
    let extra = |field| child.extra(field).and_then(Value::as_str).map(str::trim);
    let mut parts: Vec<String> = Vec::new();
    for text in [extra("error"), extra("modelSummary"), Some(child.summary().trim())] {
        let text = text.filter(|text| !text.is_empty() && !parts.iter().any(|part| part == text));
        parts.extend(text.map(ToOwned::to_owned));
    }
    parts
}

fn titled(title: &str, parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| format!("{title}:\n{}", parts.join("\n")))
}

/// The notes as one block that can be found again; `None` when there are none.
fn block(notes: &[String]) -> Option<String> {
    if notes.is_empty() {
        return None;
    }
    let head =
        format!("{BEGIN}\n## Why the previous run failed\nWhat follows is quoted from that run. Address it.\n\n");
    // Masked before it is cut, or half a secret would be left.
    let text = mask(&notes.join("\n")).replace(MARK, "…");
    let mut quoted = String::new();
    for line in text.lines() {
        let line = line.replace(|c: char| c.is_control() && c != '\t', " ");
        if !line.trim().is_empty() {
            quoted.push_str("> ");
            quoted.push_str(line.trim_end());
            quoted.push('\n');
        }
    }
    let room = MAX_FEEDBACK - head.chars().count() - END.chars().count();
    Some(format!("{head}{}{END}", cut(&quoted, room)))
}

/// The beginning of `text` of at most `max` characters, cut behind a word.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let end = text.char_indices().nth(max - 2).map_or(text.len(), |(at, _)| at);
    let head = &text[..end];
    // A text without any space is cut where it must be.
    let boundary = head.rfind(char::is_whitespace).filter(|at| *at > end / 2);
    format!("{}…\n", head[..boundary.unwrap_or(end)].trim_end())
}

/// The replacement of a secret.
const MASK: &str = "***";
/// How long the tokens of well-known services are at least, and how they begin.
const TOKENS: [(usize, &str); 3] = [
    (16, "glpat- xoxb- xoxp- xoxa-"),
    (20, "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ sk- hf_ npm_ AKIA ASIA"),
    (30, "AIza eyJ"),
];
/// What the name of a field whose value is a secret contains, in lower case without `-` and `_`.
const NAMES: &str = "password passwd secret token apikey accesskey privatekey authorization credential";

/// `text`, which others will read, with a mask in the place of each secret, which the output of a model or a tool may contain:
/// private keys, tokens of well-known services, values of fields that are called like secrets, whatever follows `Bearer` or
/// `Basic`, passwords in URLs.
pub(super) fn mask(text: &str) -> String {
    let text = without_keys(text);
    let mut masked = String::with_capacity(text.len());
    let mut hide = Hide::No;
    for piece in pieces(&text) {
        let is_word = piece.starts_with(is_word_char);
        if is_word {
            let secret = hide == Hide::Next || is_token(piece);
            let scheme = piece.eq_ignore_ascii_case("bearer") || piece.eq_ignore_ascii_case("basic");
            match hide {
                // The scheme is no secret, what follows it is.
                Hide::Next if scheme => masked.push_str(piece),
                _ if secret => masked.push_str(MASK),
                _ => masked.push_str(piece),
            }
            hide = if scheme {
                Hide::Next
            } else if is_name(piece) {
                Hide::Assigned
            } else {
                Hide::No
            };
        } else {
            hide = match hide {
                Hide::Assigned if piece.contains(['=', ':']) && !piece.contains('\n') => Hide::Next,
                Hide::Next if !piece.contains('\n') => Hide::Next,
                Hide::Assigned if piece.chars().all(|c| matches!(c, '"' | '\'' | ' ')) => Hide::Assigned,
                _ => Hide::No,
            };
            masked.push_str(piece);
        }
    }
    without_passwords(&masked)
}

/// Whether the next word is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hide {
    No,
    /// If it is assigned to the name that was just read.
    Assigned,
    Next,
}

/// `text` in words and what is between them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let same = |c: char| is_word_char(c) == is_word_char(first);
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '~' | '%' | '!' | '$' | '&' | '*')
}

fn is_token(word: &str) -> bool {
    let begins = |at: usize| !word[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    TOKENS.iter().any(|(length, starts)| {
        let mut found = starts.split(' ').flat_map(|start| word.match_indices(start));
        found.any(|(at, _)| begins(at) && word.len() - at >= *length)
    })
}

fn is_name(word: &str) -> bool {
    let plain: String = word
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    NAMES.split(' ').any(|name| plain.contains(name))
}

/// `text` without PEM blocks; one without an end reaches to the end of the text.
fn without_keys(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        kept.push_str(&rest[..begin]);
        kept.push_str(MASK);
        let block = &rest[begin + 11..];
        rest = match block.find("-----END ") {
            Some(end) => {
                let tail = &block[end + 9..];
                tail.find("-----").map_or("", |dashes| &tail[dashes + 5..])
            }
            None => "",
        };
    }
    kept + rest
}

/// `text` without the part between `://` and `@` of each word.
fn without_passwords(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        kept.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\''))
            .unwrap_or(url.len());
        rest = match url[..end].rfind('@') {
            Some(host) => {
                kept.push_str(MASK);
                &url[host..]
            }
            None => url,
        };
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn review(extra: &Value) -> Value {
        json!({"spec": {"kind": "review"}, "status": {"verdict": "NO-GO", "result": {"summary": "not yet", "extra": extra}}})
    }

    #[test]
    fn findings_of_reviewers_in_both_forms() {
        let map = review(
            &json!({"modelExtra": {"findings": {"missing_tests": true, "scope_creep": false,
            "missing_tests_details": "none for parse()"}}}),
        );
        let text = workload_feedback(&[map]).unwrap();
        assert!(
            text.contains("> missing_tests\n") && text.contains("> missing_tests_details: none for parse()"),
            "{text}"
        );
        assert!(!text.contains("scope_creep") && text.contains("> not yet"), "{text}");
        let list = review(&json!({"modelExtra": {"findings": [
            {"severity": "major", "area": "tests", "message": "no test", "file": "a.rs", "line": 7, "suggestion": "add one"},
            {"message": 7}, "garbage", null]}}));
        let text = workload_feedback(&[list]).unwrap();
        assert!(
            text.contains("> [major, tests] a.rs:7: no test Suggestion: add one"),
            "{text}"
        );
    }

    #[test]
    fn the_errors_of_the_coder_are_bounded() {
        let coder = |error: &str| json!({"spec": {"kind": "issue-fix"}, "status": {"verdict": "INCOMPLETE", "result": {"extra": {"error": error}}}});
        let text = workload_feedback(&[coder("cargo test failed")]).unwrap();
        assert!(
            text.contains("The coder did not finish") && text.contains("> cargo test failed"),
            "{text}"
        );
        let text = workload_feedback(&[coder(&"word ".repeat(3000))]).unwrap();
        assert!(text.chars().count() <= MAX_FEEDBACK, "{}", text.chars().count());
        assert!(
            text.contains("word…\n") && text.ends_with(END),
            "cut behind a word: {text}"
        );
    }

    #[test]
    fn without_anything_to_act_upon_there_is_no_feedback() {
        let ok = json!({"spec": {"kind": "review"}, "status": {"verdict": "GO", "result": {"summary": "fine"}}});
        let silent = json!({"spec": {"kind": "issue-fix"}, "status": {"verdict": "NO-GO", "result": {"extra": []}}});
        assert_eq!(workload_feedback(&[ok, silent, json!(null)]), None);
        let task = json!({"status": {"message": "Task failed", "results": {"cost-usd": "1"}, "outputs": []}});
        assert_eq!(task_feedback(&task, "BackoffLimitExceeded"), None);
    }

    #[test]
    fn what_a_task_left_behind() {
        let task = json!({"status": {"message": "Task failed", "results": {"error": "no tests"},
            "outputs": ["error: no tests", "see https://x:pw@host/log", 7]}});
        let text = task_feedback(&task, "BackoffLimitExceeded").unwrap();
        assert_eq!(text.matches("no tests").count(), 1, "{text}");
        assert!(text.contains("> see https://***@host/log"), "{text}");
        assert!(task_feedback(&json!({}), "DeadlineExceeded").is_some());
    }

    #[test]
    fn it_is_replaced_and_not_piled_up() {
        let one = task_feedback(&json!({"status": {"outputs": ["one"]}}), "").unwrap();
        let two = task_feedback(&json!({"status": {"outputs": ["two"]}}), "").unwrap();
        let first = insert("fix it", Some(&one));
        assert_eq!(first, format!("fix it\n\n{one}"));
        assert_eq!(insert(&first, Some(&two)), format!("fix it\n\n{two}"));
        assert_eq!(insert(&first, None), "fix it");
        assert_eq!(insert("", Some(&one)), one);
        assert_eq!(insert(" ", Some(&one)), one);
        assert_eq!(insert(&format!("a {BEGIN} cut off"), None), "a");
    }

    proptest! {
        #[test]
        fn whatever_a_model_wrote(text in "(?s).{0,4000}", prompt in "\\PC{0,100}") {
            let task = json!({"status": {"outputs": [text]}});
            if let Some(block) = task_feedback(&task, "") {
                prop_assert!(block.chars().count() <= MAX_FEEDBACK);
                prop_assert_eq!(block.matches(MARK).count(), 2);
                let once = insert(&prompt, Some(&block));
                prop_assert_eq!(insert(&once, Some(&block)), once.clone());
            }
        }
    }
}

#[cfg(test)]
mod secrets_tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        for (text, expected) in [
            (
                "nothing to hide: tests fail in src/a.rs:12".to_owned(),
                "nothing to hide: tests fail in src/a.rs:12".to_owned(),
            ),
            (format!("pushed with {token}."), "pushed with ***".to_owned()),
            (
                format!("https://x:{token}@github.com/a/b"),
                "https://***@github.com/a/b".to_owned(),
            ),
            (
                "https://user:pa55@host/x and https://host/y".to_owned(),
                "https://***@host/x and https://host/y".to_owned(),
            ),
            (
                "Authorization: Bearer abc.def".to_owned(),
                "Authorization: Bearer ***".to_owned(),
            ),
            ("DB_PASSWORD=hunter2 next".to_owned(), "DB_PASSWORD=*** next".to_owned()),
            (
                "{\"api_key\": \"abc\", \"b\": 1}".to_owned(),
                "{\"api_key\": \"***\", \"b\": 1}".to_owned(),
            ),
            (
                "task-runner-of-the-whole-team".to_owned(),
                "task-runner-of-the-whole-team".to_owned(),
            ),
            ("the token expired".to_owned(), "the token expired".to_owned()),
            (
                "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b".to_owned(),
                "a *** b".to_owned(),
            ),
            ("-----BEGIN PRIVATE KEY-----\ncut".to_owned(), "***".to_owned()),
            (
                "sha 0123456789abcdef0123456789abcdef01234567".to_owned(),
                "sha 0123456789abcdef0123456789abcdef01234567".to_owned(),
            ),
        ] {
            assert_eq!(mask(&text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_token_gets_through(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
            let masked = mask(&format!("{before} {token} {after}"));
            prop_assert!(!masked.contains(token));
        }
    }
}
