//! Reviews of writes that touch the cancellation of a Task: who asks is known here, and whether they may.

use jiff::Timestamp;
use taskgate_policy::{CancelDetail, CancelReview, Decision, Phase, admit, asks_permission};

use crate::{
    facts::{FactError, Surroundings},
    review::ReviewRequest,
};

/// Decides about the write.
///
/// To cancel a Task takes the right to delete it, asked of the API server in the name of who asks. Where that cannot be
/// found out, the answer is no.
pub(crate) async fn decide<S: Surroundings>(
    surroundings: &S,
    phase: Phase,
    review: &ReviewRequest,
    now: Timestamp,
) -> Result<Decision, FactError> {
    let own = surroundings.own_user().await?;
    let mut request = CancelReview {
        phase,
        operation: review.operation.into(),
        object: &review.object,
        old: &review.old_object,
        user: &review.user_info.username,
        own: own.is_some_and(|own| own == review.user_info.username),
        permission: None,
        now,
    };
    let decision = admit(&request);
    if !decision.allowed() || !asks_permission(&request) {
        return Ok(decision);
    }
    let user = review.user_info.username.clone();
    let may = surroundings.may_delete_task(&review.user_info, &review.namespace, &review.name);
    let permission = match may.await {
        Ok(Permission { allowed: true, .. }) => Ok(()),
        Ok(Permission { why, .. }) => Err(CancelDetail::Forbidden { user, why }),
        Err(error) => Err(CancelDetail::Unknown { why: error.reason }),
    };
    request.permission = Some(&permission);
    Ok(admit(&request))
}

/// What the API server says of a user's right.
#[derive(Clone, Debug, Default)]
pub struct Permission {
    /// Whether there is such a right.
    pub allowed: bool,
    /// What the API server adds; mostly nothing.
    pub why: String,
}
