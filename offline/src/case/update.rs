//! Writes an expectation into the file of a case, and leaves everything else as it is: comments, order, blank lines.

use std::{fs, path::Path};

use serde::Serialize;

use super::{CaseError, Expectation};

/// The field as it is written.
#[derive(Serialize)]
struct Field<'a> {
    expect: &'a [Expectation],
}

/// Replaces the field `expect` of the case, or adds it at the end.
pub(super) fn write(path: &Path, expect: &[Expectation]) -> Result<(), CaseError> {
    let io = |source| CaseError::Io {
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(io)?;
    let field = serde_saphyr::to_string(&Field { expect }).map_err(|error| CaseError::Form {
        place: path.display().to_string(),
        message: error.to_string(),
    })?;
    fs::write(path, replace(&text, &field)).map_err(io)
}

/// The field ends where the next one begins, or where a comment begins that stands at the margin.
fn replace(text: &str, field: &str) -> String {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let start = lines.iter().position(|line| line.starts_with("expect:"));
    let Some(start) = start else {
        let end = if text.ends_with('\n') || text.is_empty() {
            ""
        } else {
            "\n"
        };
        return format!("{text}{end}{field}");
    };
    let belongs = |line: &&str| line.starts_with([' ', '-', '\n', '\r']);
    let length = lines[start + 1..].iter().take_while(|line| belongs(line)).count();
    let mut end = start + 1 + length;
    while end > start + 1 && lines[end - 1].trim().is_empty() {
        end -= 1;
    }
    [&lines[..start].concat(), field, &lines[end..].concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_field_stays() {
        for (before, after) in [
            ("a: 1\n", "a: 1\nexpect: new\n"),
            ("a: 1", "a: 1\nexpect: new\n"),
            ("expect: []\n", "expect: new\n"),
            (
                "a: 1\nexpect:\n- b: 2\n\n  c: 3\n\n# next\nd: 4\n",
                "a: 1\nexpect: new\n\n# next\nd: 4\n",
            ),
        ] {
            assert_eq!(replace(before, "expect: new\n"), after);
        }
    }
}
