//! Splits a text into documents. A YAML document ends at any line that starts with `---`, so the text is cut there first and each
//! piece is parsed separately: an error in one does not affect the next.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Document, Documents, SourceLocation, UnreadableDocument, in_parallel};

/// The number of documents that a thread reads at a time.
const SHARE: usize = 64;

/// Reads `text`. In a file that was `found` in a directory, documents that are no Kubernetes objects are counted rather than errors.
pub(super) fn documents(file: &str, text: &str, found: bool) -> Documents {
    let pieces: Vec<_> = pieces(text).collect();
    let shares: Vec<_> = pieces.chunks(SHARE).collect();
    let mut documents = Documents::default();
    for share in in_parallel(&shares, |share| read(file, share, found)) {
        documents.extend(share);
    }
    documents
}

/// The documents in `pieces` of a file, each piece with the number of its first line.
fn read(file: &str, pieces: &[(usize, &str)], found: bool) -> Documents {
    let mut documents = Documents::default();
    for &(line, piece) in pieces {
        let first = first_line(piece);
        let location = SourceLocation {
            file: file.to_owned(),
            line: line + first.unwrap_or_default(),
        };
        let value = match parse(piece) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(mut error) => {
                error.line = error.line.map(|inside| line + inside - 1).or(Some(location.line));
                documents.unreadable.push(UnreadableDocument {
                    file: file.to_owned(),
                    ..error
                });
                continue;
            }
        };
        flatten(location, (line, piece), value, found, &mut documents);
    }
    documents
}

/// The documents of `text`, each with the number of its first line.
fn pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut bounds = vec![(1, 0)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let separates = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if separates && offset > 0 {
            bounds.push((index + 1, offset));
        }
        offset += line.len();
    }
    let ends: Vec<_> = bounds[1..]
        .iter()
        .map(|(_, start)| *start)
        .chain([text.len()])
        .collect();
    bounds
        .into_iter()
        .zip(ends)
        .map(move |((line, start), end)| (line, &text[start..end]))
}

/// The number of lines before the first one with content.
fn first_line(piece: &str) -> Option<usize> {
    piece.lines().position(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---" && !line.starts_with("--- #")
    })
}

/// Parses one document. A text that looks like JSON is parsed as JSON first, which is several times faster.
fn parse(piece: &str) -> Result<Value, UnreadableDocument> {
    let Some(_) = first_line(piece) else {
        return Ok(Value::Null);
    };
    if piece.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(piece)
    {
        return Ok(value);
    }
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(piece, options).map_err(|error| {
        let at = error.location();
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        UnreadableDocument {
            file: String::new(),
            line: at.map(|at| number(at.line())),
            column: at.map(|at| number(at.column())),
            message: message(&error),
        }
    })
}

/// The message without the location.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or(text);
    text.trim().to_owned()
}

/// Adds `value`, or the items of a list. The location of an item is where it begins in `piece`, if that is known; items of a list in
/// a list have the location of the inner list.
fn flatten(location: SourceLocation, piece: (usize, &str), mut value: Value, found: bool, documents: &mut Documents) {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
    if version.is_empty() || kind.is_empty() {
        if found {
            documents.skipped += 1;
            return;
        }
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        documents.unreadable.push(UnreadableDocument {
            file: location.file,
            line: Some(location.line),
            column: None,
            message: format!("no Kubernetes object: {missing} is missing"),
        });
        return;
    }
    let (Some(of), Some(items)) = (
        kind.strip_suffix("List"),
        value.get_mut("items").and_then(Value::as_array_mut),
    ) else {
        documents.objects.push(Document {
            location,
            object: value,
        });
        return;
    };
    let (first, text) = piece;
    let lines = item_lines(text).filter(|lines| lines.len() == items.len());
    for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
        // The API server omits in items what the list states.
        if let (Some(fields), false) = (item.as_object_mut(), of.is_empty()) {
            fields.entry("apiVersion").or_insert_with(|| version.as_str().into());
            fields.entry("kind").or_insert_with(|| of.into());
        }
        let location = SourceLocation {
            file: location.file.clone(),
            line: lines.as_ref().map_or(location.line, |lines| first + lines[index]),
        };
        flatten(location, (first, ""), item, found, documents);
    }
}

/// The number of lines before each item of `items` in `text`, a list. The values of the documents have no locations, because those of
/// all values would cost more than parsing: a list is parsed again.
fn item_lines(text: &str) -> Option<Vec<usize>> {
    #[derive(Deserialize)]
    struct ListItems {
        items: Vec<Spanned<IgnoredAny>>,
    }
    let options = serde_saphyr::options! { with_snippet: false, budget: None };
    let list: ListItems = serde_saphyr::from_str_with_options(text, options).ok()?;
    let lines = list.items.iter().map(|item| item.referenced.line().checked_sub(1));
    lines.map(|line| usize::try_from(line?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Documents {
        documents("f", text, false)
    }

    #[test]
    fn every_document_has_its_line_and_an_unreadable_one_affects_no_other() {
        let text = "# comment\n---\napiVersion: v1\nkind: A\n---\n\nkind: B: c\n--- # next\nkind: List\napiVersion: v1\nitems:\n\
                    - {apiVersion: v1, kind: C}\n- {kind: E}\n- {apiVersion: v1, kind: D}\n---\n---\n# nothing\n";
        let read = read(text);
        let kinds: Vec<_> = read
            .objects
            .iter()
            .map(|document| (document.object["kind"].as_str().unwrap(), document.location.line))
            .collect();
        assert_eq!(kinds, [("A", 3), ("C", 12), ("D", 14)]);
        let [bad, without_version] = &read.unreadable[..] else {
            panic!("{:?}", read.unreadable)
        };
        assert_eq!((bad.line, bad.column.is_some()), (Some(7), true), "{bad:?}");
        assert_eq!(without_version.line, Some(13), "{without_version:?}");
    }

    #[test]
    fn items_of_a_typed_list_get_their_kind() {
        let read =
            read(r#"{"apiVersion": "kelos.dev/v1alpha2", "kind": "TaskList", "items": [{"metadata": {"name": "a"}}]}"#);
        assert_eq!(read.objects[0].object["kind"], "Task");
        assert_eq!(read.objects[0].object["apiVersion"], "kelos.dev/v1alpha2");
    }

    #[test]
    fn a_document_that_is_no_object_is_an_error_in_a_named_file_and_counted_in_a_directory() {
        let named = read("replicas: 3\n");
        assert_eq!(named.unreadable[0].message, "no Kubernetes object: kind is missing");
        let found = documents("f", "replicas: 3\n", true);
        assert_eq!((found.unreadable.len(), found.skipped), (0, 1));
    }

    #[test]
    fn scalars_parse_as_with_kubectl() {
        let read = read("apiVersion: v1\nkind: A\noctal: 0644\nstring: '1'\nnothing: ~\nfloat: 1.5\ntext: v1\n");
        let object = &read.objects[0].object;
        assert_eq!(object["octal"], 0o644);
        assert_eq!(
            (&object["string"], &object["float"]),
            (&Value::from("1"), &Value::from(1.5))
        );
        assert!(object["nothing"].is_null());
    }

    #[test]
    fn items_are_found_in_every_form_of_a_list() {
        for (text, wanted) in [
            (
                "apiVersion: v1\nitems:\n- a: 1\n  b:\n  - 2\n# note\n\n- c: |\n    - text\nkind: List\n- d: 1\n",
                None,
            ),
            (
                "apiVersion: v1\nitems:\n- a: 1\n  b:\n  - 2\n# note\n\n- c: |\n    - text\nkind: List\n",
                Some(vec![2, 7]),
            ),
            (
                "kind: List\nitems: # these\n  -\n    a: 1\n  - b: 2\n    c: \"x\n      - y\"\n",
                Some(vec![3, 4]),
            ),
            (
                "{\"a\": [{}], \"b\": \"items\", \"items\": [\n{\"items\": [{}], \"s\": \"\\\"}]\\\\\"},\n\n  {}], \"c\": [{}]}",
                Some(vec![1, 3]),
            ),
            ("{\"items\": []}", Some(vec![])),
            ("items: [{},\n {}]\n", Some(vec![0, 1])),
            ("\"items\": [{}]\n", Some(vec![0])),
            ("kind: List\n", None),
            ("items:\n  a: 1\n", None),
        ] {
            assert_eq!(item_lines(text), wanted, "{text}");
        }
    }
}
