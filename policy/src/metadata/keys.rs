//! Which keys a policy may set. What other systems go by always wins and cannot be set at all.

use taskgate_api::{kelos, keys, kueue};

use super::Place;
use crate::names;

/// Keys of Kelos' prefix that Kelos itself does not use, and that seed 004 sets in its example.
const FREE_LABELS: [&str; 3] = ["kelos.dev/source-kind", "kelos.dev/priority", "kelos.dev/source-url"];
/// The same among annotations. `kelos.dev/source-kind` is not one of them: Kelos stamps it (kelos §3).
const FREE_ANNOTATIONS: [&str; 3] = ["kelos.dev/priority", "kelos.dev/source-url", "kelos.dev/source-title"];

/// Why a policy cannot set `key`, if it cannot.
pub(super) fn refusal(place: Place, key: &str) -> Option<&'static str> {
    if !names::is_key(key) {
        return Some("not a legal key: [dns.prefix/]name, the name at most 63 characters");
    }
    let (prefix, _) = key.split_once('/')?;
    let free = match place {
        Place::Label => FREE_LABELS.contains(&key),
        Place::Annotation => FREE_ANNOTATIONS.contains(&key),
    };
    let under = |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if under("kubernetes.io") || under("k8s.io") {
        Some("keys of kubernetes.io and k8s.io are reserved for Kubernetes")
    } else if key.starts_with(keys::PREFIX) || key.starts_with(kueue::PREFIX) {
        Some("taskgate sets keys of taskgate.dev and kueue.x-k8s.io itself")
    } else if under(kelos::GROUP) && !free {
        Some("Kelos goes by keys of kelos.dev; a policy can set only those of seed 004 that Kelos does not use")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_others_go_by_cannot_be_set() {
        let long = format!("example.com/{}", "k".repeat(64));
        for (place, key, free) in [
            (Place::Label, "team", true),
            (Place::Label, "team.example.com/area", true),
            (Place::Label, "kelos.dev/source-kind", true),
            (Place::Annotation, "kelos.dev/source-kind", false),
            (Place::Label, "kelos.dev/priority", true),
            (Place::Annotation, "kelos.dev/source-url", true),
            (Place::Annotation, "kelos.dev/source-title", true),
            (Place::Label, "kelos.dev/taskspawner", false),
            (Place::Label, "kelos.dev/anything", false),
            (Place::Annotation, "kelos.dev/source-number", false),
            (Place::Label, "taskgate.dev/work-item", false),
            (Place::Label, "kueue.x-k8s.io/queue-name", false),
            (Place::Label, "kubernetes.io/arch", false),
            (Place::Label, "app.kubernetes.io/name", false),
            (Place::Label, "batch.kubernetes.io/job-name", false),
            (Place::Label, "notkubernetes.io/x", true),
            (Place::Label, "a/b/c", false),
            (Place::Label, &long, false),
            (Place::Label, "", false),
            (Place::Label, "größe", false),
        ] {
            assert_eq!(refusal(place, key).is_none(), free, "{place:?} {key}");
        }
    }
}
