//! Whether a template reads fields that only the issue source has. Which branch a render takes is not known beforehand, so every
//! mention counts.

/// The fields, by their names in Go templates and in Tera. The item's text is not kept: see [`crate::issue_source::SourceItem`].
const FIELDS: [[&str; 3]; 2] = [["Title", "Labels", "Author"], ["title", "labels", "author"]];

/// Whether `source`, in either language, mentions the item's title, labels or author, or the item as a whole.
pub(crate) fn reads_source_fields(source: &str) -> bool {
    let mut rest = source;
    while let Some(begin) = ["{{", "{%", "{#"].iter().filter_map(|opening| rest.find(opening)).min() {
        let comment = rest[begin..].starts_with("{#");
        rest = rest[begin + 2..].trim_start_matches('-').trim_start();
        let end = match (comment, rest.starts_with("/*")) {
            (true, _) => Some("#}"),
            (_, true) => Some("*/"),
            _ => None,
        };
        if let Some(end) = end {
            rest = rest.split_once(end).map_or("", |(_, rest)| rest);
            continue;
        }
        let (words, length) = words(rest);
        if mentions(&words) {
            return true;
        }
        rest = &rest[length..];
    }
    false
}

/// Names and texts between here and the closing delimiter, and how far that is.
fn words(source: &str) -> (Vec<&str>, usize) {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        at += source[at..].len() - source[at..].trim_start().len();
        let rest = &source[at..];
        if rest.starts_with("}}") || rest.starts_with("%}") {
            return (words, at);
        }
        let Some((found, length)) = token(rest) else {
            return (words, source.len());
        };
        match found {
            Token::Name(name) => words.push(name),
            Token::Quoted => words.push(&rest[1..length - 1]),
            Token::Symbol => {}
        }
        at += length;
    }
}

/// A token between delimiters.
#[derive(Clone, Copy)]
enum Token<'s> {
    Name(&'s str),
    Quoted,
    Symbol,
}

/// The token at the beginning of `rest`, and its length; `None` at the end, also in the middle of a text.
fn token(rest: &str) -> Option<(Token<'_>, usize)> {
    let first = rest.chars().next()?;
    if matches!(first, '"' | '\'' | '`') {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return Some((Token::Quoted, index + 1)),
                _ => {}
            }
        }
        return None;
    }
    let name = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    Some(match name {
        0 => (Token::Symbol, first.len_utf8()),
        length => (Token::Name(&rest[..length]), length),
    })
}

fn mentions(words: &[&str]) -> bool {
    let [of_go, of_item] = FIELDS;
    words.iter().enumerate().any(|(index, word)| {
        let next = words.get(index + 1);
        of_go.contains(word) || *word == "item" && next.is_none_or(|field| of_item.contains(field))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mention_counts() {
        for source in [
            "{{.Title}}",
            "{{index .Labels 0}}",
            "{{ .item.author }}",
            "{{$.Author}}",
            "{{with .item}}{{.title}}{{end}}",
            "{{index . \"Title\"}}",
            "{{index .item \"labels\" 0}}",
            "{{ item.title }}",
            "{{- item[\"labels\"][0] -}}",
            "{{ item.labels | first }}",
            "{% if item.labels %}x{% endif %}",
            "{{ item.labels | join(sep=\",\") }}",
            "{{ Title }}",
            "{{ item.url }} {{ item.title | default(value=\"none\") }}",
            "{# {{ #}{{ item.title }}",
            "{{/* it's */}}{{.Title}}",
        ] {
            assert!(reads_source_fields(source), "{source}");
        }
        for source in [
            "backend",
            "Title",
            "{{.Kind}}",
            "{{.URL}}",
            "{{ item.url }}",
            "{{ item.kind | title }}",
            "{{ item.body }}",
            "{{.Body}}",
            "{{ task.metadata.labels.size }}",
            "{{ spawner.metadata.labels.team }}",
            "{{.namespace.labels.tier}}",
            "{{printf \"Title: %s\" .user}}",
            "{{/* .Title */}}{{.URL}}",
            "{# item.title #}{{ user }}",
            "{{ item.url",
            "{{ \"unclosed",
        ] {
            assert!(!reads_source_fields(source), "{source}");
        }
    }
}
