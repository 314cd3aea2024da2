//! Splits a text into documents. A YAML document ends at any line that starts with `---`, so the text is cut there first and each
//! piece is parsed separately: an error in one does not affect the next.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{
    Document, Documents, DuplicateField, SourceLocation, UnreadableDocument, in_parallel,
    value::{self, ReadValue},
};

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
        let Some(first) = first_line(piece) else { continue };
        let (values, error) = values(piece);
        for (before, text, ReadValue { value, duplicates }) in values {
            let location = SourceLocation {
                file: file.to_owned(),
                line: line + if before == 0 { first } else { before },
            };
            let duplicates = duplicates.into_iter().map(|field| DuplicateField {
                location: location.clone(),
                field,
            });
            documents.duplicates.extend(duplicates);
            if !value.is_null() {
                flatten(location, (line + before, text), value, found, &mut documents);
            }
        }
        documents.unreadable.extend(error.map(|error| UnreadableDocument {
            file: file.to_owned(),
            line: error.line.map_or(Some(line + first), |inside| Some(line + inside - 1)),
            ..error
        }));
    }
    documents
}

/// The values in a document, each with the number of lines before it and its text; and the error that ends them.
type ReadValues<'p> = (Vec<(usize, &'p str, ReadValue)>, Option<UnreadableDocument>);

/// The values in `piece`. A text that looks like JSON is read as JSON first, which is several times faster; it may have any number of values, as `jq` writes them.
fn values(piece: &str) -> ReadValues<'_> {
    let text = piece.trim_start();
    let text = text.strip_prefix("---").map_or(text, str::trim_start);
    let json = if text.starts_with('{') {
        json_values(lines_in(&piece[..piece.len() - text.len()]), text)
    } else {
        (Vec::new(), None)
    };
    if json.1.is_none() && !json.0.is_empty() {
        return json;
    }
    match value::of_yaml(piece) {
        Ok(read) => (vec![(0, piece, read)], None),
        // What comes before the error is JSON, so the error is one of JSON as well.
        Err(_) if !json.0.is_empty() => json,
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// The JSON values in `rest`, which `line` lines come before.
fn json_values(mut line: usize, mut rest: &str) -> ReadValues<'_> {
    let mut found = Vec::new();
    loop {
        let text = rest.trim_start();
        line += lines_in(&rest[..rest.len() - text.len()]);
        if text.is_empty() {
            return (found, None);
        }
        match value::of_json(text) {
            Ok((read, length)) => {
                let (own, after) = text.split_at(length);
                found.push((line, own, read));
                line += lines_in(own);
                rest = after;
            }
            Err(error) => {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
                let unreadable = UnreadableDocument {
                    file: String::new(),
                    line: Some(line + error.line()),
                    column: Some(error.column()),
                    message,
                };
                return (found, Some(unreadable));
            }
        }
    }
}

fn lines_in(text: &str) -> usize {
    text.matches('\n').count()
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
    let list: ListItems = value::typed(text).ok()?;
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

    /// As `jq '.items[]'` writes them.
    #[test]
    fn a_stream_of_json_objects_is_read() {
        let object = |name: &str| format!("{{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"{name}\"\n}}\n");
        let text = [object("A"), object("B"), "---\n".to_owned(), object("C"), object("D")].concat();
        let places = |documents: &Documents| {
            let objects = documents.objects.iter();
            let places = objects.map(|document| {
                (
                    document.object["kind"].as_str().unwrap().to_owned(),
                    document.location.line,
                )
            });
            places.collect::<Vec<_>>()
        };
        let wanted = [("A", 1), ("B", 5), ("C", 10), ("D", 14)].map(|(kind, line)| (kind.to_owned(), line));
        assert_eq!(places(&read(&text)), wanted);
        // An error hides nothing that comes before it or in another document.
        let broken = read(&text.replace("\"kind\": \"B\"", "\"kind\": B"));
        assert_eq!(
            places(&broken),
            [wanted[0].clone(), wanted[2].clone(), wanted[3].clone()]
        );
        let [bad] = &broken.unreadable[..] else {
            panic!("{:?}", broken.unreadable)
        };
        assert_eq!((bad.line, bad.message.as_str()), (Some(7), "expected value"));
        // A flow mapping of YAML begins like JSON.
        assert_eq!(read("{apiVersion: v1, kind: A} # note\n").objects.len(), 1);
        assert_eq!(
            read("{\"apiVersion\": \"v1\", \"kind\": \"A\"}\n# note\n")
                .objects
                .len(),
            1
        );
    }

    #[test]
    fn a_large_list_is_read() {
        let item = "- {apiVersion: v1, kind: A, a: [1, 2, 3], b: {c: d, e: f}, g: {h: {i: [j, k, l, m, n]}}}\n";
        let read = read(&format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(20_000)));
        assert_eq!((read.objects.len(), read.unreadable), (20_000, vec![]));
        assert_eq!(read.objects.last().map(|last| last.location.line), Some(20_003));
    }

    #[test]
    fn a_field_that_is_set_twice_has_its_place() {
        let read = read("# note\napiVersion: v1\nkind: A\nspec: {a: 1, a: 2}\n");
        assert_eq!(read.objects[0].object["spec"]["a"], 2);
        let [duplicate] = &read.duplicates[..] else {
            panic!("{:?}", read.duplicates)
        };
        assert_eq!((duplicate.location.line, duplicate.field.as_str()), (2, "spec.a"));
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
