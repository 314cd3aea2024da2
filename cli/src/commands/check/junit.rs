//! A report as JUnit XML: an object a test case. Warnings stand in its output.

use std::fmt::Write as _;

use super::report::Report;

pub(super) fn render(report: &Report) -> String {
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
    // Writing into a String cannot fail.
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

/// XML has no place for control characters, not even escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_breaks_out_of_an_attribute() {
        assert_eq!(escape("a\"<b>&\n\u{1}"), "a&quot;&lt;b&gt;&amp;&#10;\u{fffd}");
    }
}
