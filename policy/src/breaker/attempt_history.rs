//! The status of a `WorkItem`, and how it changes: when a Task ends, by a reset, and with the policy and the time.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    kelos::Task,
    task_policy::FailurePolicy,
    work_item::{Attempt, Breaker, Outcome, Reset},
};

use super::{
    evaluate::{breaker_state, is_opened_manually, open_reason},
    failure_cause::Ending,
    task_state::TaskState,
};
use crate::{
    cancellation::{Cancellation, requester},
    decision::BreakerRefusal,
    issue_source::SourceItem,
    kubernetes::{clip, counted},
};

/// The attempt record for the end of the Task `object`, whose state is `state`. Times and usage are checked: no end is in the
/// future, a missing one is `now`, an invalid value counts as missing.
pub fn attempt(object: &Value, state: &TaskState, ending: Ending, now: Timestamp) -> Attempt {
    let task = Task::of(object);
    let used = Used::of(task);
    Attempt {
        uid: state.uid.clone(),
        name: state.name.clone(),
        outcome: ending.outcome,
        opened: false,
        reason: Some(ending.reason),
        cancelled_by: (ending.outcome == Outcome::Cancelled).then(|| cancelled_by(object)),
        start_time: task.status_time("startTime").map(Time),
        completion_time: Some(Time(state.ended_by(now, now))),
        cost_usd: used.cost_usd,
        input_tokens: used.input_tokens,
        output_tokens: used.output_tokens,
    }
}

/// What a run used.
#[derive(Debug, Default, PartialEq)]
struct Used {
    cost_usd: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

impl Used {
    fn of(task: Task<'_>) -> Self {
        let tokens = |field| task.usage(field).and_then(Value::as_i64).filter(|count| *count >= 0);
        Self {
            cost_usd: task.usage("costUSD").and_then(micro_dollars).map(dollars),
            input_tokens: tokens("inputTokens"),
            output_tokens: tokens("outputTokens"),
        }
    }
}

/// `status` with the usage of the Task `object` where its end was recorded before Kelos reported the usage, which can take half a
/// minute (kelos §6.6). `None` when there is nothing to add.
pub fn add_late_usage(status: &WorkItemStatus, object: &Value) -> Option<WorkItemStatus> {
    let task = Task::of(object);
    let (used, uid) = (Used::of(task), task.metadata().uid()?);
    let is_blank =
        |known: &Attempt| known.cost_usd.is_none() && known.input_tokens.is_none() && known.output_tokens.is_none();
    let position = status
        .attempts
        .iter()
        .position(|known| known.uid == uid && is_blank(known))?;
    if used == Used::default() {
        return None;
    }
    let mut next = status.clone();
    next.total_cost_usd = add_costs(status.total_cost_usd.as_deref(), used.cost_usd.as_deref());
    let known = &mut next.attempts[position];
    (known.cost_usd, known.input_tokens, known.output_tokens) = (used.cost_usd, used.input_tokens, used.output_tokens);
    Some(next)
}

/// The longest `cancelledBy` in a `WorkItem`, in characters.
const MAX_BY: usize = 256;

/// The requester of the cancellation, cut: neither Kelos' field nor the annotation is bounded.
fn cancelled_by(object: &Value) -> String {
    let native = Task::of(object).cancelled_by();
    let cancellation = Cancellation::of(object);
    clip(native.unwrap_or_else(|| requester(&cancellation)), MAX_BY)
}

/// How many attempts the history keeps.
pub const HISTORY: usize = 50;

/// `status` after `attempt`, or `None` when the history has it already: an attempt counts once.
///
/// Without a `rule` the attempt is recorded, and no limit is applied.
pub fn record(
    status: &WorkItemStatus,
    mut attempt: Attempt,
    rule: Option<&FailurePolicy>,
    now: Timestamp,
) -> Option<WorkItemStatus> {
    if status.attempts.iter().any(|known| known.uid == attempt.uid) {
        return None;
    }
    let mut next = status.clone();
    next.total_cost_usd = add_costs(status.total_cost_usd.as_deref(), attempt.cost_usd.as_deref());
    match attempt.outcome {
        Outcome::Succeeded => succeed(&mut next, &attempt),
        // A success that came later is known already: Tasks that existed before are recorded in any order.
        Outcome::Failed | Outcome::Infrastructure if is_superseded(status, &attempt) => {}
        Outcome::Failed => {
            next.consecutive_failures = next.consecutive_failures.saturating_add(1);
            next.infrastructure_failures = 0;
            fail(&mut next, &mut attempt, rule, now);
        }
        Outcome::Infrastructure => {
            next.infrastructure_failures = next.infrastructure_failures.saturating_add(1);
            fail(&mut next, &mut attempt, rule, now);
        }
        Outcome::Cancelled | Outcome::Deleted | Outcome::Stopped => {}
    }
    next.attempts.push(attempt);
    let surplus = next.attempts.len().saturating_sub(HISTORY);
    next.attempts.drain(..surplus);
    Some(next)
}

/// A success ends the row of failures, except for those that came after it.
fn succeed(next: &mut WorkItemStatus, attempt: &Attempt) {
    let reset = next.last_reset.as_ref().map(|reset| reset.time.0);
    let later = next.attempts.iter().filter(|known| {
        known.outcome == Outcome::Failed
            && ended(known) > ended(attempt)
            && reset.is_none_or(|reset| ended(known) > Some(reset))
    });
    let later = u32::try_from(later.count()).unwrap_or(u32::MAX);
    if later == 0 || next.consecutive_failures == 0 {
        close(next, "Succeeded");
    } else {
        next.consecutive_failures = next.consecutive_failures.min(later);
    }
}

fn is_superseded(status: &WorkItemStatus, attempt: &Attempt) -> bool {
    status
        .attempts
        .iter()
        .any(|known| known.outcome == Outcome::Succeeded && ended(known) > ended(attempt))
}

fn ended(attempt: &Attempt) -> Option<Timestamp> {
    attempt.completion_time.as_ref().map(|time| time.0)
}

/// A failure opens the breaker when it reaches the limit, or when it was a probe.
fn fail(next: &mut WorkItemStatus, attempt: &mut Attempt, rule: Option<&FailurePolicy>, now: Timestamp) {
    next.last_failure_time = Some(Time(now));
    if let Some(why) = rule.and_then(|rule| open_reason(next, rule)) {
        attempt.opened = true;
        next.breaker = Some(Breaker::Open);
        next.opened_at = Some(Time(now));
        // The next change is compared with the item as it is now.
        next.content_hash = None;
        next.reason = Some(word(why).to_owned());
    } else {
        next.breaker = Some(Breaker::Closed);
        next.opened_at = None;
        next.reason.clone_from(&attempt.reason);
    }
}

/// `why` as the reason in `status.reason` and of Events.
fn word(why: BreakerRefusal) -> &'static str {
    match why {
        BreakerRefusal::Infrastructure { .. } => "MaxInfrastructureFailuresExceeded",
        BreakerRefusal::OpenedManually => "OpenedByHand",
        _ => "MaxRetriesExceeded",
    }
}

fn close(next: &mut WorkItemStatus, reason: &str) {
    next.consecutive_failures = 0;
    next.infrastructure_failures = 0;
    next.breaker = Some(Breaker::Closed);
    next.opened_at = None;
    next.content_hash = None;
    next.reason = Some(reason.to_owned());
    if let Some(retry) = &mut next.retry {
        retry.attempt = 0;
    }
}

/// `status` with the hash that later content is compared with.
pub fn baseline(status: &WorkItemStatus, content_hash: &str) -> WorkItemStatus {
    WorkItemStatus {
        content_hash: Some(content_hash.to_owned()),
        ..status.clone()
    }
}

/// `status` without its failures, or `None` when the deletion of the Task `task_uid` has reset it before.
pub fn reset(status: &WorkItemStatus, reason: &str, task_uid: Option<&str>, now: Timestamp) -> Option<WorkItemStatus> {
    let last = status.last_reset.as_ref().and_then(|reset| reset.task_uid.as_deref());
    if task_uid.is_some() && last == task_uid {
        return None;
    }
    let mut next = status.clone();
    close(&mut next, reason);
    next.last_reset = Some(Reset {
        time: Time(now),
        reason: reason.to_owned(),
        task_uid: task_uid.map(ToOwned::to_owned),
        by: None,
        message: None,
    });
    Some(next)
}

/// `status` without its failures because the user `by` asked for it, with the reason `why`; `None` when there are none.
pub fn reset_by(status: &WorkItemStatus, by: &str, why: &str, now: Timestamp) -> Option<WorkItemStatus> {
    failures_to_reset(status)?;
    let mut next = reset(status, "ResetByUser", None, now)?;
    if let Some(reset) = &mut next.last_reset {
        reset.task_uid = status.last_reset.as_ref().and_then(|last| last.task_uid.clone());
        reset.by = Some(clip(by, MAX_BY));
        reset.message = Some(clip(why, MAX_BY)).filter(|why| !why.is_empty());
    }
    Some(next)
}

/// The failures that a reset of `status` removes, in words; `None` when there are none.
pub fn failures_to_reset(status: &WorkItemStatus) -> Option<String> {
    let closed = matches!(status.breaker, None | Some(Breaker::Closed));
    let failures = status
        .consecutive_failures
        .saturating_add(status.infrastructure_failures);
    let failures = match failures {
        0 if closed => return None,
        0 => "the open breaker".to_owned(),
        failures => counted(failures, "failure"),
    };
    Some(match &status.total_cost_usd {
        Some(cost) => format!("{failures} (cost ${cost} so far)"),
        None => failures,
    })
}

/// `status` with its breaker as `rule` and the time make it, or `None` when it is so already. Decisions do not depend on it; it is
/// for users.
pub fn refresh(status: &WorkItemStatus, rule: Option<&FailurePolicy>, now: Timestamp) -> Option<WorkItemStatus> {
    if is_opened_manually(status) {
        return None;
    }
    let breaker = rule.map_or(Breaker::Closed, |rule| breaker_state(status, rule, now));
    if status.breaker.unwrap_or(Breaker::Closed) == breaker {
        return None;
    }
    let mut next = status.clone();
    next.breaker = Some(breaker);
    let (reason, opened_at) = match breaker {
        Breaker::Closed => ("PolicyAllows", None),
        Breaker::HalfOpen => ("ResetAfterElapsed", status.opened_at.clone()),
        Breaker::Open => {
            let since = status.opened_at.clone().or_else(|| status.last_failure_time.clone());
            let why = rule.and_then(|rule| open_reason(status, rule)).map_or("Open", word);
            (why, since.or(Some(Time(now))))
        }
    };
    next.opened_at = opened_at;
    next.reason = Some(reason.to_owned());
    Some(next)
}

/// Micro-dollars in a dollar. Costs are summed without rounding: Kelos reports them as Kubernetes quantities, and a sum of floats
/// would drift.
const MICRO: u128 = 1_000_000;
/// The largest amount: a million million dollars. Whatever is more is that much.
const MAX_COST: u128 = 1_000_000_000_000 * MICRO;

/// The cost behind a JSON value (`"1.5"`, `"1500m"`, `1.5`), in micro-dollars, rounded up, at most [`MAX_COST`]. `None` for garbage
/// and anything negative.
fn micro_dollars(value: &Value) -> Option<u128> {
    match value {
        Value::String(text) => parse_cost(text.trim()),
        Value::Number(number) => parse_cost(&number.to_string()),
        _ => None,
    }
}

/// The sum of two decimal amounts of dollars, as text with two to six decimals. Garbage counts as nothing.
fn add_costs(total: Option<&str>, more: Option<&str>) -> Option<String> {
    let amount = |text: Option<&str>| text.and_then(parse_cost);
    match (amount(total), amount(more)) {
        (None, None) => None,
        (a, b) => Some(dollars(a.unwrap_or(0).saturating_add(b.unwrap_or(0)).min(MAX_COST))),
    }
}

/// Micro-dollars as dollars with two to six decimals.
fn dollars(micro: u128) -> String {
    let text = format!("{}.{:06}", micro / MICRO, micro % MICRO);
    let (whole, cents) = text.split_at(text.len() - 4);
    format!("{whole}{}", cents.trim_end_matches('0'))
}

fn parse_cost(text: &str) -> Option<u128> {
    let (number, exponent) = split_exponent(text)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Further decimals are cut, so that the number fits.
    let (fraction, cut) = fraction.split_at_checked(18).unwrap_or((fraction, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().chain(cut.bytes()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let shift = 6 + exponent - i32::try_from(fraction.len()).ok()?;
    let digits: u128 = match digits.trim_start_matches('0') {
        "" => return Some(0),
        digits => digits.parse().unwrap_or(u128::MAX),
    };
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    let amount = match (shift >= 0, power) {
        (true, power) => digits.saturating_mul(power.unwrap_or(u128::MAX)),
        (false, Some(power)) if digits < u128::MAX => digits.div_ceil(power),
        (false, Some(_)) => MAX_COST,
        (false, None) => 1,
    };
    Some(amount.min(MAX_COST))
}

/// A number and the power of ten behind it: a quantity's decimal suffix or an exponent.
fn split_exponent(text: &str) -> Option<(&str, i32)> {
    for (suffix, exponent) in [('n', -9), ('u', -6), ('m', -3), ('k', 3), ('M', 6), ('G', 9)] {
        if let Some(number) = text.strip_suffix(suffix) {
            return Some((number, exponent));
        }
    }
    match text.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            let digits = exponent.trim_start_matches(['+', '-']);
            if digits.is_empty() || digits.len() + 1 < exponent.len() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return None;
            }
            // What is beyond is saturated as well.
            let most = if exponent.starts_with('-') { -1000 } else { 1000 };
            Some((number, exponent.parse().unwrap_or(most).clamp(-1000, 1000)))
        }
        None => Some((text, 0)),
    }
}

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

/// `resetOnChange`: compares the answer of the issue source with `status`. Only a breaker that failures opened is reset; a user
/// closes a breaker that a user opened.
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
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn late_usage_is_added_once() {
        let mut blank = ended("late", Outcome::Failed, 1);
        blank.cost_usd = None;
        let first = record(
            &WorkItemStatus::default(),
            ended("early", Outcome::Failed, 0),
            None,
            at(0),
        )
        .unwrap();
        let status = record(&first, blank, None, at(1)).unwrap();
        let task = |uid: &str, usage: Value| serde_json::json!({"metadata": {"uid": uid}, "status": {"usage": usage}});
        let usage = serde_json::json!({"costUSD": "0.25", "inputTokens": 7});
        assert_eq!(add_late_usage(&status, &task("late", Value::Null)), None);
        assert_eq!(
            add_late_usage(&status, &task("early", usage.clone())),
            None,
            "it was reported in time"
        );
        assert_eq!(add_late_usage(&status, &task("unknown", usage.clone())), None);
        let filled = add_late_usage(&status, &task("late", usage.clone())).unwrap();
        assert_eq!(filled.total_cost_usd.as_deref(), Some("0.35"));
        let known = &filled.attempts[1];
        assert_eq!((known.cost_usd.as_deref(), known.input_tokens), (Some("0.25"), Some(7)));
        assert_eq!(filled.consecutive_failures, status.consecutive_failures);
        assert_eq!(add_late_usage(&filled, &task("late", usage)), None, "once");
    }

    fn ended(uid: &str, outcome: Outcome, second: i64) -> Attempt {
        Attempt {
            uid: uid.into(),
            name: "fixer-42".into(),
            outcome,
            opened: false,
            reason: Some("BackoffLimitExceeded".into()),
            cancelled_by: None,
            start_time: None,
            completion_time: Some(Time(at(second))),
            cost_usd: Some("0.10".into()),
            input_tokens: None,
            output_tokens: None,
        }
    }

    fn policy(limit: u32) -> FailurePolicy {
        FailurePolicy {
            max_retries_per_item: limit,
            ..FailurePolicy::default()
        }
    }

    #[test]
    fn the_requester_fits_into_a_work_item() {
        let long = "ä".repeat(MAX_BY + 1);
        let clipped = |by: String| by.chars().count() == MAX_BY && by.contains("ää") && by.ends_with('…');
        assert!(clipped(cancelled_by(&json!({"status": {"cancelledBy": long}}))));
        let annotations = json!({
            "taskgate.dev/cancel": "r", "taskgate.dev/cancelled-by": format!("user:{long}"), "taskgate.dev/cancel-trigger": "ByHand",
            "taskgate.dev/cancel-requested": "2026-11-21T12:00:00Z",
            "taskgate.dev/cancel-deadline": "2026-11-21T12:00:00Z",
        });
        assert!(clipped(cancelled_by(
            &json!({"metadata": {"annotations": annotations}})
        )));
    }

    #[test]
    fn the_limit_opens_and_a_success_closes() {
        let rule = policy(2);
        let mut status = WorkItemStatus::default();
        for (uid, outcome, failures, breaker) in [
            ("a", Outcome::Failed, 1, Breaker::Closed),
            ("b", Outcome::Deleted, 1, Breaker::Closed),
            ("c", Outcome::Cancelled, 1, Breaker::Closed),
            ("d", Outcome::Infrastructure, 1, Breaker::Closed),
            ("e", Outcome::Failed, 2, Breaker::Open),
            ("f", Outcome::Stopped, 2, Breaker::Open),
            ("g", Outcome::Succeeded, 0, Breaker::Closed),
        ] {
            let second = i64::try_from(status.attempts.len()).unwrap();
            status = record(&status, ended(uid, outcome, second), Some(&rule), at(second)).unwrap();
            assert_eq!(
                (status.consecutive_failures, status.breaker),
                (failures, Some(breaker)),
                "{uid}"
            );
            assert_eq!(
                record(&status, ended(uid, outcome, second), Some(&rule), at(second)),
                None
            );
        }
        assert_eq!(status.total_cost_usd.as_deref(), Some("0.70"));
        assert!(status.attempts[4].opened && status.opened_at.is_none());
    }

    #[test]
    fn old_tasks_may_be_recorded_in_any_order() {
        let rule = policy(3);
        let orders = [
            ["f1", "s2", "f3"],
            ["f1", "f3", "s2"],
            ["s2", "f1", "f3"],
            ["s2", "f3", "f1"],
            ["f3", "s2", "f1"],
            ["f3", "f1", "s2"],
        ];
        for order in orders {
            let mut status = WorkItemStatus::default();
            for uid in order {
                let outcome = if uid.starts_with('f') {
                    Outcome::Failed
                } else {
                    Outcome::Succeeded
                };
                let second = i64::from(uid.as_bytes()[1] - b'0');
                status = record(&status, ended(uid, outcome, second), Some(&rule), at(9)).unwrap();
            }
            assert_eq!(status.consecutive_failures, 1, "{order:?}");
        }
    }

    #[test]
    fn a_deletion_resets_once() {
        let status = record(
            &WorkItemStatus::default(),
            ended("a", Outcome::Failed, 1),
            Some(&policy(1)),
            at(1),
        )
        .unwrap();
        let reset_once = reset(&status, "TombstoneDeleted", Some("a"), at(2)).unwrap();
        assert_eq!(
            (reset_once.consecutive_failures, reset_once.breaker),
            (0, Some(Breaker::Closed))
        );
        assert_eq!(reset(&reset_once, "TombstoneDeleted", Some("a"), at(3)), None);
    }

    #[test]
    fn the_breaker_follows_the_policy_and_the_time() {
        let status = record(
            &WorkItemStatus::default(),
            ended("a", Outcome::Failed, 1),
            Some(&policy(1)),
            at(1),
        )
        .unwrap();
        assert_eq!(refresh(&status, Some(&policy(1)), at(2)), None);
        let raised = refresh(&status, Some(&policy(2)), at(2)).unwrap();
        assert_eq!(
            (raised.breaker, raised.consecutive_failures),
            (Some(Breaker::Closed), 1)
        );
        let lowered = refresh(&raised, Some(&policy(1)), at(3)).unwrap();
        assert_eq!(lowered.breaker, Some(Breaker::Open));
        assert_eq!(refresh(&status, None, at(2)).unwrap().breaker, Some(Breaker::Closed));
        let opened = WorkItemStatus {
            breaker: Some(Breaker::Open),
            ..WorkItemStatus::default()
        };
        assert_eq!(refresh(&opened, Some(&policy(1)), at(2)), None);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut status = WorkItemStatus::default();
        for second in 0..60 {
            status = record(
                &status,
                ended(&second.to_string(), Outcome::Failed, second),
                None,
                at(second),
            )
            .unwrap();
        }
        assert_eq!((status.attempts.len(), status.consecutive_failures), (HISTORY, 60));
        assert_eq!(status.attempts[0].uid, "10");
    }

    #[test]
    fn a_reset_counts_the_failures_and_records_the_user() {
        let status = |failures, infrastructure, cost: Option<&str>| WorkItemStatus {
            consecutive_failures: failures,
            infrastructure_failures: infrastructure,
            total_cost_usd: cost.map(ToOwned::to_owned),
            ..WorkItemStatus::default()
        };
        let words = |status: &WorkItemStatus| failures_to_reset(status);
        assert_eq!(words(&status(1, 0, None)).as_deref(), Some("1 failure"));
        assert_eq!(
            words(&status(3, 2, Some("1.50"))).as_deref(),
            Some("5 failures (cost $1.50 so far)")
        );
        assert_eq!(words(&status(0, 0, Some("1.50"))), None);
        assert_eq!(reset_by(&status(0, 0, None), "ann", "x", at(1)), None);
        let before = reset(&status(2, 0, None), "TombstoneDeleted", Some("uid"), at(0)).unwrap();
        let failed = WorkItemStatus {
            consecutive_failures: 1,
            ..before
        };
        let next = reset_by(&failed, "ann", &"x".repeat(9_999), at(1)).unwrap();
        assert_eq!(next.consecutive_failures, 0);
        let last = next.last_reset.unwrap();
        assert_eq!((last.reason.as_str(), last.by.as_deref()), ("ResetByUser", Some("ann")));
        // The deletion that has reset the item does not reset it again.
        assert_eq!(last.task_uid.as_deref(), Some("uid"));
        assert_eq!(last.message.map(|message| message.chars().count()), Some(256));
    }
}

#[cfg(test)]
mod cost_tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn amounts_as_kelos_and_people_write_them() {
        for (value, expected) in [
            (json!("1.50"), Some(1_500_000)),
            (json!("1500m"), Some(1_500_000)),
            (json!("250u"), Some(250)),
            (json!("1n"), Some(1)),
            (json!("2k"), Some(2_000_000_000)),
            (json!(0.1), Some(100_000)),
            (json!("1e-3"), Some(1_000)),
            (json!(".5"), Some(500_000)),
            (json!("0.0000001"), Some(1)),
            (json!("-1"), None),
            (json!(""), None),
            (json!("NaN"), None),
            (json!("1e999"), Some(MAX_COST)),
            (json!("1e99999999999"), Some(MAX_COST)),
            (json!("1e-99999999999"), Some(1)),
            (json!("0e999"), Some(0)),
            (json!(1e30), Some(MAX_COST)),
            (json!(1e300), Some(MAX_COST)),
            (json!("9".repeat(60)), Some(MAX_COST)),
            (json!(format!("{}m", "9".repeat(60))), Some(MAX_COST)),
            (json!(format!("0.{}", "1".repeat(60))), Some(111_112)),
            (json!(format!("{}1", "0".repeat(60))), Some(1_000_000)),
            (json!("1e--3"), None),
            (json!("1e"), None),
            (json!(-1e30), None),
            (json!({}), None),
        ] {
            assert_eq!(micro_dollars(&value), expected, "{value}");
        }
    }

    #[test]
    fn sums_are_exact_and_readable() {
        for (total, more, expected) in [
            (None, None, None),
            (None, Some("1.5"), Some("1.50")),
            (Some("0.10"), Some("0.2"), Some("0.30")),
            (Some("1"), Some("0.000001"), Some("1.000001")),
            (Some("garbage"), Some("2"), Some("2.00")),
            (Some("3"), None, Some("3.00")),
            (Some("999999999999.99"), Some("1e30"), Some("1000000000000.00")),
        ] {
            assert_eq!(add_costs(total, more).as_deref(), expected, "{total:?} + {more:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micro in 0..10_u128.pow(15)) {
            prop_assert_eq!(parse_cost(&dollars(micro)), Some(micro));
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,40}") {
            let _ = parse_cost(&text);
        }
    }
}

#[cfg(test)]
mod source_change_tests {
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
