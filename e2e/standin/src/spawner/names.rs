//! Names of Tasks (kelos S1, §3) and who owns one (kelos S2).

use crate::keys;
use crate::types::Task;
use kube::ResourceExt;
use ring::digest::{SHA256, digest};
use std::fmt::Write;

/// Longest name out of a template or a delivery.
const MAX: usize = 63;
/// Digits of the delivery's hash in a name.
const HASH: usize = 12;

/// A polled item's default name: lower case, uncut.
pub(super) fn polled(spawner: &str, id: &str) -> String {
    format!("{spawner}-{id}").to_lowercase()
}

/// A delivery's default name. Cut after the hash: a long spawner name costs hash digits (kelos T15).
pub(super) fn delivered(spawner: &str, event: &str, delivery: &str) -> String {
    let mut hash = String::new();
    for byte in digest(&SHA256, delivery.as_bytes()).as_ref() {
        write!(hash, "{byte:02x}").expect("a string takes every write");
    }
    let event = event.replace('_', "-");
    let mut name = format!("{spawner}-{event}-{}", &hash[..HASH]);
    if name.len() > MAX {
        name.truncate(MAX);
        name.truncate(name.trim_end_matches(['-', '.']).len());
    }
    name
}

/// What a rendered name template becomes: lower case, other characters `-`, cut at 63, every
/// dot-separated label trimmed of `-`, empty labels dropped.
pub(super) fn sanitised(rendered: &str) -> String {
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
    let lower = rendered.to_lowercase();
    let mut name: String = lower.chars().map(|c| if legal(c) { c } else { '-' }).collect();
    name.truncate(MAX);
    let labels = name.split('.').map(|label| label.trim_matches('-'));
    let labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
    labels.join(".")
}

/// Whether the spawner made the Task: its controller owner's UID, else the label.
pub(super) fn owns(spawner: &str, uid: &str, task: &Task) -> bool {
    let owners = task.owner_references().iter();
    let mut controllers = owners.filter(|o| o.controller == Some(true)).peekable();
    if controllers.peek().is_some() {
        return controllers.any(|owner| owner.uid == uid);
    }
    task.labels().get(keys::SPAWNER).is_some_and(|name| name == spawner)
}

#[cfg(test)]
mod tests {
    use super::{delivered, owns, polled, sanitised};
    use crate::keys;
    use crate::types::{Task, TaskSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::ResourceExt;

    #[test]
    fn polled_names_are_lower_case_and_uncut() {
        assert_eq!(polled("fixer", "ABC-12"), "fixer-abc-12");
        let long = "x".repeat(100);
        assert_eq!(polled(&long, "42").len(), 103);
    }

    #[test]
    fn delivered_names_hash_the_delivery_and_are_cut_after_it() {
        let name = delivered("bot", "issue_comment", "d-1");
        assert!(name.starts_with("bot-issue-comment-"), "{name}");
        assert_eq!(name.len(), "bot-issue-comment-".len() + 12);
        assert_ne!(name, delivered("bot", "issue_comment", "d-2"));
        let long = "x".repeat(63);
        assert_eq!(delivered(&long, "push", "d-1"), delivered(&long, "push", "d-2"));
        assert_eq!(delivered(&"x".repeat(62), "push", "d").len(), 62);
    }

    #[test]
    fn rendered_names_are_sanitised_and_cut() {
        assert_eq!(sanitised("Fix_It #42!"), "fix-it--42");
        assert_eq!(sanitised("a..b.-c-"), "a.b.c");
        assert_eq!(sanitised(&format!("{}-y", "x".repeat(62))), "x".repeat(62));
        assert_eq!(sanitised("///"), "");
    }

    #[test]
    fn the_owner_reference_wins_over_the_label() {
        let mut task = Task::new("t", TaskSpec::default());
        assert!(!owns("fixer", "u1", &task));
        task.labels_mut().insert(keys::SPAWNER.into(), "fixer".into());
        assert!(owns("fixer", "u1", &task));
        let owner = |uid: &str, controller| OwnerReference {
            uid: uid.into(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        task.owner_references_mut().push(owner("other", false));
        assert!(owns("fixer", "u1", &task));
        task.owner_references_mut().push(owner("other", true));
        assert!(!owns("fixer", "u1", &task));
        assert!(owns("any", "other", &task));
    }
}
