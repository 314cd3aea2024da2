//! What an answer of the tracker means for the memory of an item (seed 000: resetOnChange, pruning).

use taskgate_api::{WorkItemStatus, task_policy::FailurePolicy};

use super::SourceItem;
use crate::{Refusal, breaker::why_open};

/// How often in a row, an interval apart, the tracker must say that an item is not there before it is believed.
const CONFIRMATIONS: u32 = 2;

/// Whether the spawner still finds the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence<'a> {
    /// It does, and this is the item.
    Found(&'a SourceItem),
    /// It does not: the item is gone, closed, or no longer passes the spawner's filters. So many answers in a row said so.
    Missing(u32),
}

/// What is to be done about the memory of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceVerdict {
    /// Nothing.
    Keep,
    /// Remember this hash: the item's content is first seen since it opened.
    Baseline(String),
    /// Forget the failures: the content is another one than when the item opened.
    Reset,
    /// Forget the item: the spawner will not come back to it.
    Prune,
}

/// Holds what the tracker says against `status`. Only what opened by itself is reset: who opened an item by hand closes it
/// by hand.
pub fn judge(status: &WorkItemStatus, rule: &FailurePolicy, presence: Presence<'_>) -> SourceVerdict {
    match presence {
        _ if !rule.reset_on_change || is_held_by_hand(status, rule) => SourceVerdict::Keep,
        Presence::Missing(times) if times >= CONFIRMATIONS => SourceVerdict::Prune,
        Presence::Missing(_) => SourceVerdict::Keep,
        Presence::Found(_) if why_open(status, rule).is_none() => SourceVerdict::Keep,
        Presence::Found(item) => {
            let hash = item.content_hash();
            match status.content_hash.as_ref() {
                None => SourceVerdict::Baseline(hash),
                Some(known) if *known == hash => SourceVerdict::Keep,
                Some(_) => SourceVerdict::Reset,
            }
        }
    }
}

fn is_held_by_hand(status: &WorkItemStatus, rule: &FailurePolicy) -> bool {
    why_open(status, rule) == Some(Refusal::ByHand)
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
        let found = Presence::Found(&item);
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
                Presence::Missing(1),
                SourceVerdict::Keep,
            ),
            (
                status(2, Some("other")),
                &rule,
                Presence::Missing(2),
                SourceVerdict::Prune,
            ),
            (status(1, None), &rule, Presence::Missing(2), SourceVerdict::Prune),
            (status(2, None), &off, Presence::Missing(2), SourceVerdict::Keep),
            (by_hand.clone(), &rule, found, SourceVerdict::Keep),
            (by_hand, &rule, Presence::Missing(9), SourceVerdict::Keep),
        ] {
            assert_eq!(judge(&status, rule, presence), expected, "{status:?} {presence:?}");
        }
    }
}
