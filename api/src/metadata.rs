//! A forgiving view of `metadata`: a field of the wrong type reads as absent, because an admission webhook must answer
//! whatever it is sent.

use serde_json::{Map, Value};

use crate::Lenient as _;

/// Borrowed view of an object's `metadata`.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a>(Option<&'a Map<String, Value>>);

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `apiVersion`, such as `kelos.dev/v1alpha2`.
    pub api_version: &'a str,
    /// `kind`, such as `Task`.
    pub kind: &'a str,
    /// `name`.
    pub name: &'a str,
    /// `uid`.
    pub uid: &'a str,
    /// Whether this owner is the managing controller.
    pub controller: bool,
}

impl<'a> Metadata<'a> {
    /// The metadata of `object`; empty when there is none.
    pub fn of(object: &'a Value) -> Self {
        Self(object.get("metadata").and_then(Value::as_object))
    }

    fn text(self, field: &str) -> Option<&'a str> {
        self.0?.get(field)?.as_str().filter(|value| !value.is_empty())
    }

    /// `metadata.name`; absent on an object that is to get a generated name.
    pub fn name(self) -> Option<&'a str> {
        self.text("name")
    }

    /// `metadata.generateName`.
    pub fn generate_name(self) -> Option<&'a str> {
        self.text("generateName")
    }

    /// `metadata.namespace`.
    pub fn namespace(self) -> Option<&'a str> {
        self.text("namespace")
    }

    /// `metadata.uid`.
    pub fn uid(self) -> Option<&'a str> {
        self.text("uid")
    }

    /// Whether the object is being deleted.
    pub fn is_terminating(self) -> bool {
        self.text("deletionTimestamp").is_some()
    }

    /// The value of label `key`.
    pub fn label(self, key: &str) -> Option<&'a str> {
        self.0?.get("labels")?.get(key)?.as_str()
    }

    /// The value of annotation `key`.
    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.0?.get("annotations")?.get(key)?.as_str()
    }

    /// The entries of the map `field` whose value is a string.
    fn entries(self, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        self.0
            .and_then(|metadata| metadata.get(field)?.as_object())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// All labels whose value is a string.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        self.entries("labels")
    }

    /// All annotations whose value is a string.
    pub fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        self.entries("annotations")
    }

    /// The finalizers.
    pub fn finalizers(self) -> impl Iterator<Item = &'a str> {
        self.0
            .and_then(|metadata| metadata.get("finalizers")?.as_array())
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// Whether `finalizer` is among them.
    pub fn has_finalizer(self, finalizer: &str) -> bool {
        self.finalizers().any(|existing| existing == finalizer)
    }

    /// The owner references that carry a kind and a name.
    pub fn owners(self) -> impl Iterator<Item = Owner<'a>> {
        let text = |entry: &'a Value, field| entry.text(field).unwrap_or_default();
        self.0
            .and_then(|metadata| metadata.get("ownerReferences")?.as_array())
            .into_iter()
            .flatten()
            .map(move |entry| Owner {
                api_version: text(entry, "/apiVersion"),
                kind: text(entry, "/kind"),
                name: text(entry, "/name"),
                uid: text(entry, "/uid"),
                controller: entry.get("controller").and_then(Value::as_bool) == Some(true),
            })
            .filter(|owner| !owner.kind.is_empty() && !owner.name.is_empty())
    }

    /// The managing controller, if there is one. The API server allows at most one.
    pub fn controller(self) -> Option<Owner<'a>> {
        self.owners().find(|owner| owner.controller)
    }
}

impl Owner<'_> {
    /// Whether the owner is a `kind` of API group `group`, in any version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.kind == kind && self.api_version.split_once('/').is_some_and(|(g, _)| g == group)
    }
}

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
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_read_as_absent() {
        for object in [
            json!(null),
            json!([]),
            json!({"metadata": null}),
            json!({"metadata": "text"}),
            json!({"metadata": {"labels": null, "annotations": [], "ownerReferences": {}, "name": 7, "finalizers": "x"}}),
            json!({"metadata": {"labels": {"a": 1}, "ownerReferences": [null, 3, {}], "name": "", "finalizers": [null]}}),
        ] {
            let metadata = Metadata::of(&object);
            assert_eq!(metadata.name(), None, "{object}");
            assert_eq!(metadata.label("a"), None, "{object}");
            assert_eq!(metadata.annotation("a"), None, "{object}");
            assert_eq!(metadata.labels().count(), 0, "{object}");
            assert_eq!(metadata.owners().count(), 0, "{object}");
            assert_eq!(metadata.finalizers().count(), 0, "{object}");
            assert!(!metadata.is_terminating(), "{object}");
        }
    }

    #[test]
    fn an_owner_is_recognised_by_group_and_kind_in_any_version() {
        let object = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Task", "name": "a", "uid": "1"},
            {"apiVersion": "kelos.dev/v1alpha1", "kind": "Task", "name": "b", "uid": "2", "controller": true},
        ]}});
        let owners: Vec<_> = Metadata::of(&object).owners().collect();
        assert!(!owners[0].is("kelos.dev", "Task"));
        assert!(owners[1].is("kelos.dev", "Task"));
        assert_eq!(Metadata::of(&object).controller().map(|owner| owner.name), Some("b"));
    }
}

#[cfg(test)]
mod name_tests {
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
