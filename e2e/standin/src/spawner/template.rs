//! The part of Go templates that the stand-in knows: `{{.Field}}`, nothing else. Whatever else stands
//! between braces is an error, as a missing key is in Kelos.

use super::Item;

/// Renders a template for an item.
///
/// # Errors
/// What cannot be rendered, as Kelos' message would name it.
pub(super) fn render(template: &str, item: &Item) -> Result<String, String> {
    let mut rendered = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        rendered.push_str(&rest[..start]);
        let Some(length) = rest[start..].find("}}") else {
            return Err("failed to parse template: unclosed action".to_owned());
        };
        let action = rest[start + 2..start + length].trim();
        let value = action.strip_prefix('.').and_then(|name| field(item, name));
        let value = value.ok_or_else(|| format!("failed to execute template: <{action}>"))?;
        rendered.push_str(&value);
        rest = &rest[start + length + 2..];
    }
    rendered.push_str(rest);
    Ok(rendered)
}

fn field(item: &Item, name: &str) -> Option<String> {
    let value = match name {
        "ID" => item.id.clone(),
        "Number" => item.number.to_string(),
        "Title" => item.title.clone(),
        "Body" => item.body.clone(),
        "URL" => item.url.clone(),
        // One string, not a list: `index .Labels 0` would be a byte (kelos §2.2).
        "Labels" => item.labels.join(", "),
        "Comments" => item.comments.clone(),
        "Kind" if item.kind.is_empty() => "Issue".to_owned(),
        "Kind" => item.kind.clone(),
        "Branch" => item.branch.clone(),
        "Time" => item.time.clone(),
        "Schedule" => item.schedule.clone(),
        _ => return None,
    };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::spawner::Item;

    #[test]
    fn fields_are_substituted_and_anything_else_is_an_error() {
        let item = Item {
            id: "42".into(),
            number: 42,
            title: "Crash".into(),
            labels: vec!["bug".into(), "p1".into()],
            ..Item::default()
        };
        let of = |template| render(template, &item);
        assert_eq!(
            of("{{.Kind}} #{{ .Number }}: {{.Title}}").as_deref(),
            Ok("Issue #42: Crash")
        );
        assert_eq!(of("{{.Labels}}").as_deref(), Ok("bug, p1"));
        assert!(of("{{.Nope}}").is_err());
        assert!(of("{{index .Labels 0}}").is_err());
        assert!(of("{{.ID").is_err());
        assert_eq!(of("plain").as_deref(), Ok("plain"));
    }
}
