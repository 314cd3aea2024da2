//! WorkItems as users refer to them.

use anyhow::{Result, bail};
use taskgate_api::{WorkItem, work_item::Breaker};

use crate::exit::UsageError;

/// Whether the item's breaker is open or half-open.
pub(super) fn is_tripped(item: &WorkItem) -> bool {
    let breaker = item.status.as_ref().and_then(|status| status.breaker);
    matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
}

/// The item that `reference` means: by the WorkItem's name, else by its key, else by its ID alone where only one item has it.
pub(super) fn find<'a>(items: &'a [WorkItem], reference: &str) -> Result<Option<&'a WorkItem>> {
    let named = items
        .iter()
        .find(|item| item.metadata.name.as_deref() == Some(reference));
    if let Some(item) = named.or_else(|| items.iter().find(|item| item.spec.key == reference)) {
        return Ok(Some(item));
    }
    let candidates: Vec<_> = items.iter().filter(|item| item.spec.item == reference).collect();
    if candidates.len() > 1 {
        let keys: Vec<_> = candidates.iter().map(|item| item.spec.key.as_str()).collect();
        let keys = keys.join(", ");
        bail!(UsageError(format!(
            "{reference} can be any of {keys}: name one of them"
        )));
    }
    Ok(candidates.first().copied())
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use taskgate_api::WorkItemSpec;

    use super::*;

    fn item(name: &str, key: &str, id: &str) -> WorkItem {
        let spec = WorkItemSpec {
            key: key.to_owned(),
            item: id.to_owned(),
            spawner: None,
        };
        WorkItem::new(name, spec)
    }

    #[test]
    fn an_item_is_found_by_name_by_key_and_by_an_unambiguous_id() {
        let items = [
            item("a-42-0", "a/42", "42"),
            item("b-42-0", "b/42", "42"),
            item("b-7-0", "b/7", "7"),
            // An item whose key is the name of another WorkItem.
            item("odd-0", "b-7-0", "b-7-0"),
        ];
        for (reference, name) in [
            ("a-42-0", "a-42-0"),
            ("a/42", "a-42-0"),
            ("b/42", "b-42-0"),
            ("7", "b-7-0"),
            ("b-7-0", "b-7-0"),
        ] {
            let found = find(&items, reference).unwrap().unwrap();
            assert_eq!(found.name_any(), name, "{reference}");
        }
        let ambiguous = find(&items, "42").unwrap_err();
        assert_eq!(ambiguous.to_string(), "42 can be any of a/42, b/42: name one of them");
        assert!(ambiguous.is::<UsageError>());
        assert!(find(&items, "43").unwrap().is_none());
    }
}
