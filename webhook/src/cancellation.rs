//! Reviews of writes that touch the cancellation of a Task, or what else only taskgate writes: who asks is known here, and
//! whether they may.

use jiff::Timestamp;
use taskgate_policy::{
    CancelDetail, CancelReview, Decision, Kind, Phase, Right, needs_permission_check, reserved_keys_changed,
    review_cancellation,
};

use crate::{
    facts::{FactError, Surroundings},
    judge::is_own,
    review::ReviewRequest,
};

/// Decides about the write.
///
/// To cancel a Task takes the right to delete it, asked of the API server in the name of who asks. Where that cannot be
/// found out, the answer is no.
pub(crate) async fn decide<S: Surroundings>(
    surroundings: &S,
    phase: Phase,
    kind: Kind,
    review: &ReviewRequest,
    now: Timestamp,
) -> Result<Decision, FactError> {
    let own = is_own(surroundings, review).await?;
    let forged = || reserved_keys_changed(kind, &review.old_object, &review.object);
    if let Some(denied) = (phase == Phase::Validating && !own).then(forged).flatten() {
        return Ok(denied);
    }
    if kind != Kind::Task {
        return Ok(Decision::default());
    }
    let mut request = CancelReview {
        phase,
        operation: review.operation.into(),
        object: &review.object,
        old: &review.old_object,
        user: &review.user_info.username,
        own,
        permission: None,
        now,
    };
    let decision = review_cancellation(&request);
    if !decision.allowed() || !needs_permission_check(&request) {
        return Ok(decision);
    }
    let user = review.user_info.username.clone();
    let right = Right::delete_task(&review.namespace, &review.name);
    let permission = match surroundings.may(&review.user_info, &right).await {
        Ok(Permission { allowed: true, .. }) => Ok(()),
        Ok(Permission { why, .. }) => Err(CancelDetail::Forbidden { user, why }),
        Err(error) => Err(CancelDetail::Unknown { why: error.reason }),
    };
    request.permission = Some(&permission);
    Ok(review_cancellation(&request))
}

/// What the API server says of a user's right.
#[derive(Clone, Debug, Default)]
pub struct Permission {
    /// Whether there is such a right.
    pub allowed: bool,
    /// What the API server adds; mostly nothing.
    pub why: String,
}
