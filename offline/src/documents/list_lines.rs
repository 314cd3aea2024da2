//! The lines of the items of a `List`. The parsers keep no locations, and locations of all values would cost more than parsing: for
//! a list, the text is scanned again for the starts of its items.

/// The number of lines before each item of `items` in `text`, a parsed list. `None` for forms that the scan does not support: YAML's
/// flow style, quoted or merged keys.
pub(super) fn item_lines(text: &str) -> Option<Vec<usize>> {
    let is_json = text.trim_start().starts_with('{');
    if is_json { of_json(text) } else { of_block(text) }
}

/// In JSON: every brace that opens directly in the array of the key `items` of the whole object.
fn of_json(text: &str) -> Option<Vec<usize>> {
    let mut bytes = text.bytes().enumerate();
    let (mut line, mut depth) = (0, 0_usize);
    let mut last = "";
    let mut found = None;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\n' => line += 1,
            b'"' => {
                // A string contains no line end.
                let mut escaped = false;
                let (end, _) = bytes.find(|&(_, byte)| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                })?;
                if depth == 1 {
                    last = &text[at + 1..end];
                }
            }
            b'{' | b'[' => {
                match (byte, depth, &mut found) {
                    (b'[', 1, None) if last == "items" => found = Some(Vec::new()),
                    (b'{', 2, Some(lines)) => lines.push(line),
                    _ => {}
                }
                depth += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 1 && found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

/// In YAML's block style: every line after `items:` with a dash in the column of the first item's dash. The content of an item is
/// further to the right.
fn of_block(text: &str) -> Option<Vec<usize>> {
    let is_key = |line: &str| {
        let value = line.strip_prefix("items:").map(str::trim_start);
        value.is_some_and(|value| value.is_empty() || value.starts_with('#'))
    };
    let mut lines = text.lines().enumerate();
    lines.find(|(_, line)| is_key(line))?;
    let mut column = None;
    let mut found = Vec::new();
    for (number, line) in lines {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        let is_item = content
            .strip_prefix('-')
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        match column {
            None if is_item => column = Some(indent),
            None => return None,
            Some(column) if indent > column => continue,
            Some(column) if indent < column || !is_item => break,
            Some(_) => {}
        }
        found.push(number);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_in_every_form_that_kubectl_prints() {
        for (text, wanted) in [
            (
                "apiVersion: v1\nitems:\n- a: 1\n  b:\n  - 2\n# note\n\n- c: |\n    - text\nkind: List\n- d: 1\n",
                vec![2, 7],
            ),
            (
                "kind: List\nitems: # these\n  -\n    a: 1\n  - b: 2\n    c: \"x\n      - y\"\n",
                vec![2, 4],
            ),
            (
                "{\"a\": [{}], \"b\": \"items\", \"items\": [\n{\"items\": [{}], \"s\": \"\\\"}]\\\\\"},\n\n  {}], \"c\": [{}]}",
                vec![1, 3],
            ),
            ("items:\n", vec![]),
            ("{\"items\": []}", vec![]),
        ] {
            assert_eq!(item_lines(text), Some(wanted), "{text}");
        }
        for other in ["items: [{}]\n", "{items: [{}]}", "kind: List\n", "items:\n  a: 1\n"] {
            assert_eq!(item_lines(other), None, "{other}");
        }
    }
}
