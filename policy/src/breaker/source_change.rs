//! `resetOnChange`: whether an answer of the issue source resets or deletes the `WorkItem` of an item.

use taskgate_api::{WorkItemStatus, task_policy::FailurePolicy};

use super::evaluate::open_reason;
use crate::{decision::BreakerRefusal, issue_source::SourceItem};

/// How many answers in a row, an interval apart, confirm that an item was removed.
const CONFIRMATIONS: u32 = 2;

/// Whether the spawner still finds the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemPresence<'a> {
    /// It does: the item.
    Found(&'a SourceItem),
    /// It does not: the item was deleted or closed, or no longer passes the spawner's filters. The number of such answers in a row.
    Missing(u32),
}

/// What is to be done with the `WorkItem` of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceVerdict {
    /// Nothing.
    Keep,
    /// Record this hash: the item's content was read for the first time since the breaker opened.
    Baseline(String),
    /// Reset the failures: the content changed since the breaker opened.
    Reset,
    /// Delete the `WorkItem`: the spawner will not create another Task for the item.
    Prune,
}

/// Compares the answer of the issue source with `status`. Only a breaker that failures opened is reset; a user closes a breaker
/// that a user opened.
pub fn evaluate_source(status: &WorkItemStatus, rule: &FailurePolicy, presence: ItemPresence<'_>) -> SourceVerdict {
    match presence {
        _ if !rule.reset_on_change || open_reason(status, rule) == Some(BreakerRefusal::OpenedManually) => {
            SourceVerdict::Keep
        }
        ItemPresence::Missing(times) if times >= CONFIRMATIONS => SourceVerdict::Prune,
        ItemPresence::Missing(_) => SourceVerdict::Keep,
        ItemPresence::Found(_) if open_reason(status, rule).is_none() => SourceVerdict::Keep,
        ItemPresence::Found(item) => {
            let hash = item.content_hash();
            match status.content_hash.as_ref() {
                None => SourceVerdict::Baseline(hash),
                Some(known) if *known == hash => SourceVerdict::Keep,
                Some(_) => SourceVerdict::Reset,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskgate_api::work_item::Breaker;

    #[test]
    fn what_an_answer_leads_to() {
        let rule = FailurePolicy {
            max_retries_per_item: 2,
            reset_on_change: true,
            ..FailurePolicy::default()
        };
        let off = FailurePolicy {
            reset_on_change: false,
            ..rule.clone()
        };
        let item = SourceItem::default();
        let status = |failures, hash: Option<&str>| WorkItemStatus {
            consecutive_failures: failures,
            content_hash: hash.map(ToOwned::to_owned),
            ..WorkItemStatus::default()
        };
        let hash = item.content_hash();
        let found = ItemPresence::Found(&item);
        let by_hand = WorkItemStatus {
            breaker: Some(Breaker::Open),
            ..status(0, Some("other"))
        };
        for (status, rule, presence, expected) in [
            (status(2, None), &rule, found, SourceVerdict::Baseline(hash.clone())),
            (status(2, Some(&hash)), &rule, found, SourceVerdict::Keep),
            (status(2, Some("other")), &rule, found, SourceVerdict::Reset),
            (status(1, Some("other")), &rule, found, SourceVerdict::Keep),
            (status(2, Some("other")), &off, found, SourceVerdict::Keep),
            (
                status(2, Some("other")),
                &rule,
                ItemPresence::Missing(1),
                SourceVerdict::Keep,
            ),
            (
                status(2, Some("other")),
                &rule,
                ItemPresence::Missing(2),
                SourceVerdict::Prune,
            ),
            (status(1, None), &rule, ItemPresence::Missing(2), SourceVerdict::Prune),
            (status(2, None), &off, ItemPresence::Missing(2), SourceVerdict::Keep),
            (by_hand.clone(), &rule, found, SourceVerdict::Keep),
            (by_hand, &rule, ItemPresence::Missing(9), SourceVerdict::Keep),
        ] {
            assert_eq!(
                evaluate_source(&status, rule, presence),
                expected,
                "{status:?} {presence:?}"
            );
        }
    }
}
