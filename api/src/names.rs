//! The one check of a name that comes from another object before it becomes part of a request.

/// Whether an object can have this name: lower-case labels joined by dots, at most 253 characters (a DNS-1123 subdomain).
///
/// kube puts names into paths as they are. A label, a field or an owner reference may hold any text; what is no name finds
/// nothing, and is never asked for.
pub fn is_object_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            edge(label.bytes().next())
                && edge(label.bytes().last())
                && label
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::is_object_name;

    #[test]
    fn what_is_no_name_never_gets_into_a_path() {
        for name in ["a", "fixer-42", "a.b-c.d", "0", &"x".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        let long = "x".repeat(254);
        for text in [
            "",
            ".",
            "..",
            "../x",
            "../../secrets/token",
            "a/../b",
            "a/status",
            "a?watch=true",
            "a#x",
            "a%2fb",
            "%2e%2e",
            "a b",
            "a\n",
            "A",
            "a_b",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "é",
            &long,
        ] {
            assert!(!is_object_name(text), "{text:?}");
        }
    }
}
