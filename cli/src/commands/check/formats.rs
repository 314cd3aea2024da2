//! The report for CI systems: annotations of GitHub Actions, JUnit XML, and SARIF.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::report::CheckReport;

/// The rules of SARIF: ID and description.
const RULES: [(&str, &str); 5] = [
    ("unreadable", "The document is no Kubernetes object."),
    ("denied", "A policy of taskgate denies the object."),
    (
        "invalid",
        "The API server refuses the object: it does not match the schema of its kind.",
    ),
    ("failed", "taskgate reaches no verdict on the object."),
    ("warning", "The user who creates the object gets a warning."),
];

/// Annotations of a pull request: a line for GitHub Actions for each problem.
pub(super) fn github(report: &CheckReport) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let lines = report.problems().into_iter().map(|problem| {
        let title = match (problem.object, problem.level) {
            (None, _) => problem.rule,
            (Some(object), "error") => format!("{object} {}", problem.rule),
            (Some(object), _) => object,
        };
        let (level, file, line) = (problem.level, property(problem.file), problem.line);
        let (title, message) = (property(&title), data(&problem.message));
        format!("::{level} file={file},line={line},title={title}::{message}\n")
    });
    lines.collect()
}

/// SARIF 2.1.0, for code scanning.
pub(super) fn sarif(report: &CheckReport) -> Value {
    let results = report.problems().into_iter().map(|problem| {
        let message = match problem.object {
            Some(object) => format!("{object}: {}", problem.message),
            None => problem.message.to_string(),
        };
        json!({
            "ruleId": problem.rule,
            "level": problem.level,
            "message": {"text": message},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(problem.file)}, "region": {"startLine": problem.line},
            }}],
        })
    });
    let results: Vec<_> = results.collect();
    let rules = RULES.map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}}));
    let driver = json!({"name": "taskgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    })
}

/// The path `file` as a URI reference: all but unreserved characters and slashes are encoded (RFC 3986 §2.1).
fn uri(file: &str) -> String {
    let mut uri = String::with_capacity(file.len());
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri
}

/// JUnit XML: a test case for each object. Its output has the warnings.
pub(super) fn junit(report: &CheckReport) -> String {
    let mut cases = String::new();
    for bad in &report.unreadable {
        let name = format!("{}:{}", bad.file, bad.line.unwrap_or(1));
        case(&mut cases, &bad.file, &name, Some(("unreadable", &bad.message)), &[]);
    }
    for entry in &report.entries {
        let judgement = &entry.judgement;
        let verdict = judgement.verdict.to_string();
        let message = judgement.message.as_deref().unwrap_or_default();
        let failure = judgement.verdict.is_rejection().then_some((verdict.as_str(), message));
        let name = format!("{} (line {})", judgement.title(), entry.place.line);
        case(&mut cases, &entry.place.file, &name, failure, &judgement.warnings);
    }
    let summary = report.summary();
    let tests = summary.objects + summary.unreadable;
    let failures = summary.denied + summary.invalid + summary.failed + summary.unreadable;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"taskgate check\" tests=\"{tests}\" \
         failures=\"{failures}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

fn case(text: &mut String, file: &str, name: &str, failure: Option<(&str, &str)>, warnings: &[String]) {
    let _ = write!(
        text,
        "    <testcase classname=\"{}\" name=\"{}\"",
        escape(file),
        escape(name)
    );
    if failure.is_none() && warnings.is_empty() {
        text.push_str("/>\n");
        return;
    }
    text.push_str(">\n");
    if let Some((kind, message)) = failure {
        let (kind, message) = (escape(kind), escape(message));
        let _ = writeln!(text, "      <failure type=\"{kind}\" message=\"{message}\"/>");
    }
    if !warnings.is_empty() {
        let _ = writeln!(text, "      <system-out>{}</system-out>", escape(&warnings.join("\n")));
    }
    text.push_str("    </testcase>\n");
}

/// XML allows no control characters and neither U+FFFE nor U+FFFF, not even escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use taskgate_offline::UnreadableDocument;

    use super::*;

    #[test]
    fn special_characters_of_the_format_are_escaped() {
        let report = CheckReport {
            unreadable: vec![UnreadableDocument {
                file: "a,b.yaml".to_owned(),
                line: Some(3),
                column: None,
                message: "100%: x\ny".to_owned(),
            }],
            ..CheckReport::default()
        };
        assert_eq!(
            github(&report),
            "::error file=a%2Cb.yaml,line=3,title=unreadable::100%25: x%0Ay\n"
        );
    }

    #[test]
    fn an_attribute_is_escaped() {
        assert_eq!(
            escape("a\"<b>&\n\u{1}\u{ffff}"),
            "a&quot;&lt;b&gt;&amp;&#10;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_path_is_encoded_as_a_uri() {
        assert_eq!(uri("./a b/50%#ü?.yaml"), "./a%20b/50%25%23%C3%BC%3F.yaml");
    }
}
