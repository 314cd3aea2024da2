//! The work item that a Task belongs to. It follows from the Task's source, never from its own name or UID, so that the next
//! Task for the same issue finds the same `WorkItem`.

use taskgate_api::{
    WorkItem, WorkItemSpec,
    kelos::{SOURCE_NUMBER, Task},
    keys,
};

use crate::{
    issue_source::Repository,
    kubernetes::{Edit, clip, hex, sha256},
    template::{Budget, Rendering, Sees, TemplateInput, Text},
};

/// The longest key that is kept whole, in bytes; a longer one is cut, and gets a hash.
const MAX_KEY: usize = 512;
/// The longest item name that is kept for display, in characters.
const MAX_ITEM: usize = 64;
/// The longest readable part of a `WorkItem`'s name. With the hash it stays below the 63 characters of a label value.
const MAX_SLUG: usize = 40;

/// The unit of work that a Task belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemIdentity {
    /// The full identity within the namespace, such as `fixer/42`.
    pub key: String,
    /// The item as its source names it, such as `42`, for messages.
    pub item: String,
    /// The spawner that makes Tasks for the item, if the identity was derived from it.
    pub spawner: Option<String>,
}

impl ItemIdentity {
    pub(crate) fn new(key: &str, item: &str, spawner: Option<&str>) -> Self {
        Self {
            key: bounded(key),
            item: clip(item, MAX_ITEM),
            // A label value, which may be empty; a longer one is the name of no spawner.
            spawner: spawner
                .filter(|spawner| (1..=253).contains(&spawner.len()))
                .map(ToOwned::to_owned),
        }
    }

    /// The `WorkItem` of this identity, called `name`, without a status.
    pub fn work_item(&self, name: &str) -> WorkItem {
        let spec = WorkItemSpec {
            key: self.key.clone(),
            item: self.item.clone(),
            spawner: self.spawner.clone(),
        };
        let mut item = WorkItem::new(name, spec);
        item.metadata.labels = Some([(keys::PART_OF.to_owned(), keys::PART_OF_TASKGATE.to_owned())].into());
        item
    }

    /// The name of the item's `WorkItem`: readable, legal as object name and as label value, and different for
    /// different keys.
    pub fn work_item_name(&self) -> String {
        let mut slug = String::new();
        for c in self.key.chars() {
            let c = c.to_ascii_lowercase();
            if c.is_ascii_alphanumeric() {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
            if slug.len() == MAX_SLUG {
                break;
            }
        }
        let slug = slug.trim_end_matches('-');
        let slug = if slug.is_empty() { "item" } else { slug };
        format!("{slug}-{}", hash(&self.key, 5))
    }
}

/// The identity of `task`'s item, by the first of these that is present:
///
/// 1. annotation or label `taskgate.dev/item`, taken as it is;
/// 2. annotation `taskgate.dev/item-key`, which admission leaves where the policy's `itemKey` named the item;
/// 3. the number that the source stamped, with owner and repository where they are stamped too (kelos §3);
/// 4. what the spawner's naming leaves when its own name is taken off (kelos §3);
///
/// A Task without a spawner that states no item has none: no next Task would follow. The same is true of a generated name.
pub fn identify(task: Task<'_>) -> Option<ItemIdentity> {
    let metadata = task.metadata();
    let stated = |value: Option<&'_ str>| {
        value
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(ToOwned::to_owned)
    };
    if let Some(item) = stated(metadata.annotation(keys::ITEM)).or_else(|| stated(metadata.label(keys::ITEM))) {
        return Some(ItemIdentity::new(&item, &item, None));
    }
    let spawner = task.spawner();
    let prefix = format!("{}/", spawner.unwrap_or("-"));
    // A key without an item names none.
    if let Some(key) = stated(metadata.annotation(keys::ITEM_KEY)).filter(|key| key.strip_prefix(&prefix) != Some("")) {
        let item = key.strip_prefix(&prefix).unwrap_or(&key).to_owned();
        return Some(ItemIdentity::new(&key, &item, spawner));
    }
    from_source(task)
}

/// What the source of `task` calls its item, whatever the Task or a policy calls it: rules 3 and 4 of [`identify`].
fn from_source(task: Task<'_>) -> Option<ItemIdentity> {
    let metadata = task.metadata();
    let spawner = task.spawner()?;
    if let Some(number) = metadata
        .annotation(SOURCE_NUMBER)
        .map(str::trim)
        .filter(|number| is_number(number))
    {
        return Some(match task.source_repository() {
            // GitHub's names are case-insensitive; the same delivery may spell them either way.
            Some((owner, repo)) => {
                let item = format!("{}/{}#{number}", owner.to_ascii_lowercase(), repo.to_ascii_lowercase());
                ItemIdentity::new(&format!("{spawner}/{item}"), &item, Some(spawner))
            }
            None => ItemIdentity::new(&format!("{spawner}/{number}"), number, Some(spawner)),
        });
    }
    // A generated name names no item: the next Task for it would have another, and while the Task is mutated there is none yet.
    let name = metadata.name().filter(|_| metadata.generate_name().is_none())?;
    let item = name
        .strip_prefix(&spawner.to_lowercase())
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name);
    Some(ItemIdentity::new(&format!("{spawner}/{item}"), item, Some(spawner)))
}

/// An identity, and what the policy's `itemKey` had to do with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundItem {
    pub(crate) item: Option<ItemIdentity>,
    pub(crate) rendered: bool,
    pub(crate) error: Option<String>,
}

/// The identity of the Task of `input`, to which `planned` is about to be added, under a policy with `item_key`. What is stated
/// on the Task wins over the template; a template that gives nothing leaves the ordinary identity.
pub(crate) fn find_item(
    input: &TemplateInput<'_>,
    item_key: Option<&Text>,
    planned: &[Edit],
    budget: Budget,
) -> FoundItem {
    let task = Task::of(input.object);
    let metadata = task.metadata();
    let stated = metadata.annotation(keys::ITEM).is_some()
        || metadata.label(keys::ITEM).is_some()
        || metadata.annotation(keys::ITEM_KEY).is_some();
    let item = identify(task);
    let Some(item_key) = item_key.filter(|_| !(stated && item.is_some())) else {
        return FoundItem {
            item,
            ..FoundItem::default()
        };
    };
    match Rendering::new(*input, Sees::Planned(planned), budget).name(item_key) {
        Ok(key) => {
            let spawner = task.spawner();
            let full = format!("{}/{key}", spawner.unwrap_or("-"));
            FoundItem {
                item: Some(ItemIdentity::new(&full, &key, spawner)),
                rendered: true,
                error: None,
            }
        }
        Err(error) => FoundItem {
            item,
            rendered: false,
            error: Some(error),
        },
    }
}

/// Whether `text` is a positive number; Kelos stamps 0 for "none".
fn is_number(text: &str) -> bool {
    text.len() <= 18 && text.bytes().all(|c| c.is_ascii_digit()) && text.bytes().any(|c| c != b'0')
}

/// `key` itself, or its beginning and a hash of the whole.
fn bounded(key: &str) -> String {
    if key.len() <= MAX_KEY {
        return key.to_owned();
    }
    let mut end = MAX_KEY / 2;
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…{}", &key[..end], hash(key, 32))
}

/// The first `bytes` bytes of the SHA-256 of `text`, in hex.
fn hash(text: &str, bytes: usize) -> String {
    hex(&sha256(text.as_bytes())[..bytes])
}

/// One item of one spawner, as its issue source names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// The namespace.
    pub namespace: String,
    /// The spawner that makes Tasks for the item.
    pub spawner: String,
    /// The item as its `WorkItem` names it, such as `42` or `owner/repo#42`.
    pub item: String,
}

impl SourceKey {
    /// The item of `task`, whatever a policy's `itemKey` calls it.
    pub fn of(namespace: &str, task: Task<'_>) -> Option<Self> {
        let found = from_source(task)?;
        Some(Self {
            namespace: namespace.to_owned(),
            spawner: found.spawner?,
            item: found.item,
        })
    }

    /// The number, and the repository where the item names one. `None` for an item without a number.
    pub fn number(&self) -> Option<(Option<Repository>, u64)> {
        match self.item.rsplit_once('#') {
            None => Some((None, self.item.parse().ok()?)),
            Some((repository, number)) => Some((Some(Repository::parse(repository)?), number.parse().ok()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn task(name: &str, spawner: Option<&str>, annotations: &Value) -> Value {
        let labels = spawner.map_or(json!({}), |spawner| json!({"kelos.dev/taskspawner": spawner}));
        json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}})
    }

    fn key(task: &Value) -> Option<String> {
        identify(Task::of(task)).map(|identity| identity.key)
    }

    #[test]
    #[allow(clippy::too_many_lines)] // One row per source.
    fn each_source_of_kelos_has_its_identity() {
        let none = json!({});
        for (case, task, expected) in [
            (
                "polled issue",
                task(
                    "fixer-42",
                    Some("fixer"),
                    &json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"}),
                ),
                Some("fixer/42"),
            ),
            (
                "polled issue, own name template",
                task("fix-issue", Some("fixer"), &json!({"kelos.dev/source-number": "42"})),
                Some("fixer/42"),
            ),
            (
                "GitHub webhook with reporting",
                task(
                    "hook-issues-0123456789ab",
                    Some("hook"),
                    &json!({"kelos.dev/source-number": "7", "kelos.dev/source-owner": "Acme", "kelos.dev/source-repo": "App"}),
                ),
                Some("hook/acme/app#7"),
            ),
            (
                "GitHub webhook without reporting",
                task("hook-issues-0123456789ab", Some("hook"), &none),
                Some("hook/issues-0123456789ab"),
            ),
            ("jira", task("board-abc-12", Some("board"), &none), Some("board/abc-12")),
            (
                "cron tick that itemKey named",
                task(
                    "nightly-20261121-0300",
                    Some("nightly"),
                    &json!({"taskgate.dev/item-key": "nightly/nightly"}),
                ),
                Some("nightly/nightly"),
            ),
            (
                "a key without an item",
                task(
                    "fixer-42",
                    Some("fixer"),
                    &json!({"taskgate.dev/item-key": "fixer/", "kelos.dev/source-number": "42"}),
                ),
                Some("fixer/42"),
            ),
            (
                "cron tick",
                task("nightly-20261121-0300", Some("nightly"), &none),
                Some("nightly/20261121-0300"),
            ),
            (
                "cron tick with Kelos' zero",
                task(
                    "nightly-20261121-0300",
                    Some("nightly"),
                    &json!({"kelos.dev/source-number": "0"}),
                ),
                Some("nightly/20261121-0300"),
            ),
            (
                "linear",
                task("lin-issue-ba9876543210", Some("lin"), &none),
                Some("lin/issue-ba9876543210"),
            ),
            (
                "slack",
                task("chat-slack-ba9876543210", Some("chat"), &none),
                Some("chat/slack-ba9876543210"),
            ),
            (
                "spawner with capitals",
                task("fixer-42", Some("Fixer"), &none),
                Some("Fixer/42"),
            ),
            (
                "own name template",
                task("unrelated", Some("fixer"), &none),
                Some("fixer/unrelated"),
            ),
            (
                "name is the spawner's",
                task("fixer", Some("fixer"), &none),
                Some("fixer/fixer"),
            ),
            ("created manually", task("try-this", None, &none), None),
            (
                "created manually, item stated",
                task("try-this", None, &json!({"taskgate.dev/item": " fixer/42 "})),
                Some("fixer/42"),
            ),
            (
                "stated wins",
                task("fixer-42", Some("fixer"), &json!({"taskgate.dev/item": "epic-1"})),
                Some("epic-1"),
            ),
            (
                "garbage number",
                task("fixer-42", Some("fixer"), &json!({"kelos.dev/source-number": "4٢"})),
                Some("fixer/42"),
            ),
            (
                "name to be generated",
                json!({"metadata": {"generateName": "x-", "labels": {"kelos.dev/taskspawner": "fixer"}}}),
                None,
            ),
            (
                "generated name",
                json!({"metadata": {"generateName": "x-", "name": "x-2fzkh", "labels": {"kelos.dev/taskspawner": "fixer"}}}),
                None,
            ),
            (
                "generated name, item stated by the source",
                json!({"metadata": {"generateName": "x-", "name": "x-2fzkh", "labels": {"kelos.dev/taskspawner": "fixer"},
                    "annotations": {"kelos.dev/source-number": "42"}}}),
                Some("fixer/42"),
            ),
        ] {
            assert_eq!(key(&task).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn a_label_states_the_item_too_and_the_annotation_wins() {
        let task =
            json!({"metadata": {"labels": {"taskgate.dev/item": "a"}, "annotations": {"taskgate.dev/item": "b"}}});
        assert_eq!(key(&task).as_deref(), Some("b"));
        let task = json!({"metadata": {"labels": {"taskgate.dev/item": "a"}}});
        assert_eq!(key(&task).as_deref(), Some("a"));
    }

    #[test]
    fn an_id_of_ten_kilobytes_is_bounded_and_still_distinct() {
        let (a, b) = (format!("{}a", "x".repeat(10_000)), format!("{}b", "x".repeat(10_000)));
        let (a, b) = (ItemIdentity::new(&a, &a, None), ItemIdentity::new(&b, &b, None));
        assert!(a.key.len() <= MAX_KEY && a.item.chars().count() <= MAX_ITEM);
        assert_ne!(a.work_item_name(), b.work_item_name());
    }

    #[test]
    fn names_are_pinned() {
        // Written down because a WorkItem outlives the release that named it.
        for (key, name) in [
            ("fixer/42", "fixer-42-e13156ca85"),
            ("Fixer/42", "fixer-42-1f0481aef0"),
            ("日本", "item-cf2abf0c5b"),
        ] {
            assert_eq!(ItemIdentity::new(key, key, None).work_item_name(), name, "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_key_gives_a_legal_name_of_its_own(a in "\\PC{1,200}", b in "\\PC{1,200}") {
            let (left, right) = (ItemIdentity::new(&a, &a, None), ItemIdentity::new(&b, &b, None));
            prop_assert!(taskgate_api::is_object_name(&left.work_item_name()));
            prop_assert!(crate::kubernetes::is_label_value(&left.work_item_name()));
            prop_assert_eq!(left.key == right.key, left.work_item_name() == right.work_item_name());
        }
    }
}
