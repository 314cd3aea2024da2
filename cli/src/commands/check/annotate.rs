//! Annotations of a pull request: lines that GitHub Actions reads.

use std::fmt::Write as _;

use super::report::Report;

/// One line per refusal and per warning.
pub(super) fn github(report: &Report) -> String {
    let mut text = String::new();
    let mut tell = |level: &str, file: &str, line: usize, title: &str, message: &str| {
        let (file, title, message) = (property(file), property(title), data(message));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "::{level} file={file},line={line},title={title}::{message}");
    };
    for bad in &report.unreadable {
        tell("error", &bad.file, bad.line.unwrap_or(1), "unreadable", &bad.message);
    }
    for entry in &report.entries {
        let (place, judgement) = (&entry.place, &entry.judgement);
        if let (true, Some(message)) = (judgement.verdict.is_rejection(), &judgement.message) {
            let title = format!("{} {}", judgement.title(), judgement.verdict);
            tell("error", &place.file, place.line, &title, message);
        }
        for warning in &judgement.warnings {
            tell("warning", &place.file, place.line, &judgement.title(), warning);
        }
    }
    text
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use taskgate_offline::UnreadableDocument;

    use super::*;

    #[test]
    fn what_the_format_uses_itself_is_escaped() {
        let report = Report {
            unreadable: vec![UnreadableDocument {
                file: "a,b.yaml".to_owned(),
                line: Some(3),
                column: None,
                message: "100%: x\ny".to_owned(),
            }],
            ..Report::default()
        };
        assert_eq!(
            github(&report),
            "::error file=a%2Cb.yaml,line=3,title=unreadable::100%25: x%0Ay\n"
        );
    }
}
