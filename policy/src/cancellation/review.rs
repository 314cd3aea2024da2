//! The admission review of a write to the annotations of a cancellation: who may cancel, and what is recorded. The API server's
//! match conditions send no other write here. And the Job of a cancelled Task, which is admitted but never runs.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{job::Job, kelos, keys, kueue, metadata::Metadata};

use super::{CancelState, Cancellation, Stamp, Trigger, conclusion};
use crate::{
    decision::{CancelDetail, Decision, Effect, Finding, MAX_GRACE, MAX_REASON, Operation, Phase, assemble},
    kubernetes::{Edit, clip},
};

/// How far the clocks of two replicas may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// A write to the annotations of a cancellation.
#[derive(Clone, Copy, Debug)]
pub struct CancelReview<'a> {
    /// The admission phase.
    pub phase: Phase,
    /// CREATE or UPDATE.
    pub operation: Operation,
    /// The Task as it would be stored.
    pub object: &'a Value,
    /// The Task as it is stored; null on CREATE.
    pub old: &'a Value,
    /// The user.
    pub user: &'a str,
    /// Whether the user is taskgate itself.
    pub own: bool,
    /// Whether the user may delete the Task, or why not. `None`: not checked yet.
    pub permission: Option<&'a Result<(), CancelDetail>>,
    /// What time it is.
    pub now: Timestamp,
}

/// Whether the decision depends on the user's permissions. They are checked in the validating phase, once the object is final.
pub fn needs_permission_check(review: &CancelReview<'_>) -> bool {
    review.phase == Phase::Validating && review.operation == Operation::Update && !review.own
}

/// Decides about the write.
pub fn review_cancellation(review: &CancelReview<'_>) -> Decision {
    let findings = match review.operation {
        Operation::Create => left_out(review.object),
        Operation::Update => match update(review) {
            Ok(findings) => findings,
            Err(refused) => {
                let effect = match refused {
                    CancelDetail::GraceInvalid(_) => Effect::Reject,
                    _ => Effect::Deny,
                };
                vec![Finding::cancellation(refused, effect)]
            }
        },
        Operation::Delete | Operation::Connect => Vec::new(),
    };
    assemble(review.object, review.phase, findings)
}

/// A Task that is made from the manifest of a cancelled one is a new Task.
fn left_out(object: &Value) -> Vec<Finding<'static>> {
    let metadata = Metadata::of(object);
    let there = keys::CANCELLATION.into_iter();
    let there: Vec<_> = there.filter(|key| metadata.annotation(key).is_some()).collect();
    if there.is_empty() {
        return Vec::new();
    }
    let edits = there.iter().map(|key| Edit::RemoveAnnotation((*key).into())).collect();
    let detail = CancelDetail::LeftOut(there);
    vec![
        Finding::cancellation(detail.clone(), Effect::Change(edits)),
        Finding::cancellation(detail, Effect::Warn),
    ]
}

fn update(review: &CancelReview<'_>) -> Result<Vec<Finding<'static>>, CancelDetail> {
    if let Some(Err(refused)) = review.permission {
        return Err(refused.clone());
    }
    let (old, new) = (Cancellation::of(review.old), Cancellation::of(review.object));
    let wanted_before = old
        .reason
        .as_ref()
        .filter(|_| old.progress != Some(CancelState::Refused));
    match (wanted_before, &new.reason) {
        (None, Some(reason)) => request(review, reason, old.stamp.as_ref()),
        (Some(before), Some(reason)) if before != reason => {
            Err(ended(review).err().unwrap_or_else(|| already(&old, before)))
        }
        (Some(_), None) => withdraw(review, &old),
        _ => untouched(review),
    }
}

/// A new request: stamped with who asks and when it is due.
fn request(
    review: &CancelReview<'_>,
    reason: &str,
    before: Option<&Stamp>,
) -> Result<Vec<Finding<'static>>, CancelDetail> {
    ended(review)?;
    let grace = grace(review.object)?;
    let by = clip(&format!("user:{}", review.user), 256);
    let fresh = Stamp::new(by, Trigger::ByHand, review.now, grace);
    // A second pass over our own stamp, perhaps in another replica, leaves it; what taskgate itself asks for it stamps
    // itself.
    let is_ours = |stamp: &Stamp| {
        review.own
            || stamp.by == fresh.by
                && stamp.trigger == fresh.trigger
                && stamp.requested.duration_since(fresh.requested).abs() <= SKEW
                && stamp.deadline.duration_since(stamp.requested) == fresh.deadline.duration_since(fresh.requested)
    };
    let stamp = match Cancellation::of(review.object).stamp {
        Some(stamp) if Some(&stamp) != before && is_ours(&stamp) => stamp,
        _ => {
            forged(review)?;
            fresh
        }
    };
    let mut findings = Vec::new();
    let length = reason.chars().count();
    let mut edits: Vec<_> = stamp
        .annotations()
        .into_iter()
        .map(|(key, value)| Edit::Annotation(key.into(), value))
        .collect();
    edits.push(Edit::RemoveAnnotation(keys::CANCEL_STATE.into()));
    if length > MAX_REASON {
        edits.push(Edit::Annotation(keys::CANCEL.into(), clip(reason, MAX_REASON)));
        findings.push(Finding::cancellation(CancelDetail::ReasonCut(length), Effect::Warn));
    }
    let requested = CancelDetail::Requested {
        by: stamp.by,
        deadline: stamp.deadline,
    };
    findings.push(Finding::cancellation(requested, Effect::Change(edits)));
    Ok(findings)
}

/// The request is withdrawn. The controller's annotations stay until it has cleaned up.
fn withdraw(review: &CancelReview<'_>, old: &Cancellation) -> Result<Vec<Finding<'static>>, CancelDetail> {
    if old.is_carried_out() {
        return Err(CancelDetail::NoWayBack);
    }
    let before = Metadata::of(review.old);
    let now = Metadata::of(review.object);
    let mut edits = Vec::new();
    for key in keys::CANCELLATION_OWN.into_iter().filter(|_| !review.own) {
        match (before.annotation(key), now.annotation(key)) {
            (Some(value), None) => edits.push(Edit::Annotation(key.into(), value.into())),
            (before, now) if before != now => return Err(CancelDetail::Forged(key)),
            _ => {}
        }
    }
    if now.annotation(keys::CANCEL_GRACE).is_some() {
        edits.push(Edit::RemoveAnnotation(keys::CANCEL_GRACE.into()));
    }
    Ok(vec![Finding::cancellation(
        CancelDetail::Withdrawn,
        Effect::Change(edits),
    )])
}

/// The request does not change, so nothing else about it may change either.
fn untouched(review: &CancelReview<'_>) -> Result<Vec<Finding<'static>>, CancelDetail> {
    forged(review)?;
    let (before, now) = (Metadata::of(review.old), Metadata::of(review.object));
    let pending = before.annotation(keys::CANCEL).is_some();
    if pending && before.annotation(keys::CANCEL_GRACE) != now.annotation(keys::CANCEL_GRACE) {
        return Err(CancelDetail::GraceFixed);
    }
    Ok(Vec::new())
}

fn forged(review: &CancelReview<'_>) -> Result<(), CancelDetail> {
    if review.own {
        return Ok(());
    }
    let (before, now) = (Metadata::of(review.old), Metadata::of(review.object));
    let differs = |key: &&str| before.annotation(key) != now.annotation(key);
    match keys::CANCELLATION_OWN.into_iter().find(|key| differs(key)) {
        Some(key) => Err(CancelDetail::Forged(key)),
        None => Ok(()),
    }
}

fn grace(object: &Value) -> Result<u32, CancelDetail> {
    let Some(value) = Metadata::of(object).annotation(keys::CANCEL_GRACE) else {
        return Ok(0);
    };
    let grace = value.trim().parse::<u32>().ok().filter(|grace| *grace <= MAX_GRACE);
    grace.ok_or_else(|| CancelDetail::GraceInvalid(value.to_owned()))
}

fn ended(review: &CancelReview<'_>) -> Result<(), CancelDetail> {
    let task = kelos::Task::of(review.old);
    if task.is_terminal() || task.phase() == kelos::CANCELLED {
        let phase = task.phase().to_owned();
        return Err(CancelDetail::Ended(phase));
    }
    Ok(())
}

fn already(old: &Cancellation, reason: &str) -> CancelDetail {
    match &old.stamp {
        Some(stamp) => CancelDetail::Already {
            by: stamp.by.clone(),
            reason: reason.to_owned(),
            deadline: stamp.deadline,
        },
        None => CancelDetail::NoWayBack,
    }
}

/// Stops the Job of the cancelled `task`: it is created suspended, without a queue, and marked; the controller fails it. Denying
/// it would keep Kelos' branch lock.
pub(crate) fn job_finding(task: Option<&Value>, job: Job<'_>, now: Timestamp) -> Option<Finding<'static>> {
    let cancellation = Cancellation::of(task?);
    if !cancellation.stops_jobs(now) {
        return None;
    }
    let message = conclusion(&cancellation);
    let mut edits = vec![Edit::Suspend, Edit::Annotation(keys::STOPPED.into(), message.clone())];
    if job.queue().is_some() {
        edits.push(Edit::RemoveLabel(kueue::QUEUE_NAME.into()));
    }
    Some(Finding::cancellation(
        CancelDetail::JobStopped(message),
        Effect::Change(edits),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(annotations: &Value) -> Value {
        json!({"metadata": {"name": "t", "annotations": annotations}, "status": {"phase": "Running"}})
    }

    fn write<'a>(phase: Phase, old: &'a Value, object: &'a Value, own: bool) -> CancelReview<'a> {
        CancelReview {
            phase,
            operation: Operation::Update,
            object,
            old,
            user: "ann",
            own,
            permission: None,
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
        }
    }

    fn patched(old: &Value, mut object: Value) -> Value {
        let decision = review_cancellation(&write(Phase::Mutating, old, &object, false));
        assert!(decision.allowed(), "{decision:?}");
        json_patch::patch(&mut object, &decision.patch).unwrap();
        object
    }

    #[test]
    fn a_second_pass_over_our_own_stamp_changes_nothing() {
        let old = task(&json!({"note": "kept"}));
        let object = patched(
            &old,
            task(&json!({"note": "kept", keys::CANCEL: "x", keys::CANCEL_GRACE: "30"})),
        );
        let stamp = Cancellation::of(&object).stamp.unwrap();
        assert_eq!((stamp.by.as_str(), stamp.trigger), ("user:ann", Trigger::ByHand));
        assert_eq!(stamp.deadline.to_string(), "2026-11-21T12:00:30Z");
        assert_eq!(patched(&old, object.clone()), object);
        assert!(review_cancellation(&write(Phase::Validating, &old, &object, false)).allowed());
    }

    #[test]
    fn a_request_after_a_withdrawal_is_stamped_anew() {
        let mut old = patched(&task(&json!({})), task(&json!({keys::CANCEL: "x"})));
        old["metadata"]["annotations"][keys::CANCEL_REQUESTED] = "2026-11-21T11:59:50Z".into();
        old["metadata"]["annotations"][keys::CANCEL_DEADLINE] = "2026-11-21T11:59:50Z".into();
        let withdrawn = patched(&old, task(&json!({})));
        assert!(
            Cancellation::of(&withdrawn).stamp.is_some(),
            "what the controller has to clean up stays"
        );
        let mut again = withdrawn.clone();
        again["metadata"]["annotations"][keys::CANCEL] = "y".into();
        let stamp = Cancellation::of(&patched(&withdrawn, again)).stamp.unwrap();
        assert_eq!(stamp.deadline.to_string(), "2026-11-21T12:00:00Z");
    }

    #[test]
    fn only_taskgate_writes_its_own_annotations() {
        let old = task(&json!({keys::CANCEL: "x"}));
        for (key, value) in [(keys::CANCELLED_BY, "user:root"), (keys::CANCEL_STATE, "Cancelled")] {
            let object = task(&json!({keys::CANCEL: "x", key: value}));
            let denial = review_cancellation(&write(Phase::Validating, &old, &object, false))
                .denial
                .unwrap();
            assert!(denial.message.contains("is written by taskgate alone"), "{denial:?}");
            assert!(review_cancellation(&write(Phase::Validating, &old, &object, true)).allowed());
        }
        // Not even taskgate withdraws a cancellation that is being carried out.
        let mut old = patched(&task(&json!({})), task(&json!({keys::CANCEL: "x"})));
        old["metadata"]["annotations"][keys::CANCEL_STATE] = "Cancelling".into();
        assert!(!review_cancellation(&write(Phase::Validating, &old, &task(&json!({})), true)).allowed());
    }

    #[test]
    fn an_unknown_permission_is_denied() {
        let old = task(&json!({}));
        let object = patched(&old, task(&json!({keys::CANCEL: "x"})));
        let review = write(Phase::Validating, &old, &object, false);
        assert!(needs_permission_check(&review));
        let (user, why) = ("ann".to_owned(), "timed out".to_owned());
        for (permission, part) in [
            (Ok(()), None),
            (
                Err(CancelDetail::Forbidden {
                    user,
                    why: String::new(),
                }),
                Some("ann may not cancel"),
            ),
            (Err(CancelDetail::Unknown(why)), Some("cannot be checked: timed out")),
        ] {
            let permission = Some(&permission);
            let denial = review_cancellation(&CancelReview { permission, ..review }).denial;
            let message = denial.map(|denial| denial.message);
            assert_eq!(message.is_some(), part.is_some(), "{message:?}");
            assert!(part.is_none_or(|part| message.is_some_and(|message| message.contains(part))));
        }
    }

    #[test]
    fn every_message_is_whole_however_long_what_it_names() {
        let long = "x".repeat(2000);
        let deadline = "2026-11-21T12:00:00Z".parse().unwrap();
        for detail in [
            CancelDetail::Already {
                by: long.clone(),
                reason: long.clone(),
                deadline,
            },
            CancelDetail::Forbidden {
                user: long.clone(),
                why: long.clone(),
            },
            CancelDetail::Unknown(long.clone()),
            CancelDetail::GraceInvalid(long.clone()),
            CancelDetail::Ended("Failed".into()),
            CancelDetail::Forged(keys::CANCEL_REQUESTED),
        ] {
            let text = detail.to_string();
            assert!(text.chars().count() <= 240, "{}: {text}", text.chars().count());
        }
    }
}
