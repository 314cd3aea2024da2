//! The verdict on one review: gather, govern, recall, decide. The server's routes call it, and so does whatever wants the
//! same verdict without a server: there is no second way to one.

use std::borrow::Cow;

use jiff::Timestamp;
use taskgate_policy::{
    Decision, Kind, Phase, Request, Right, decide, govern, has_reserved_keys, required_rights, right_missing,
    without_reserved_keys,
};

use crate::{
    cancellation,
    facts::{Ask, FactError, Surroundings, gather, recall},
    off_reactor::off_reactor,
    review::{ReviewOperation, ReviewRequest},
    rules::{Endpoint, Guard},
};

/// Decides about `review`, which came to `endpoint` and is about an object of `kind`, as of `now`.
///
/// The same surroundings, review and time always give the same decision. Errors when something cannot be read that the
/// decision needs.
pub async fn judge<S: Surroundings>(
    surroundings: &S,
    endpoint: &Endpoint,
    kind: Kind,
    review: &ReviewRequest,
    now: Timestamp,
) -> Result<Decision, FactError> {
    if matches!(endpoint.guard, Guard::Cancellation | Guard::OwnKeys) {
        return cancellation::decide(surroundings, endpoint.phase, kind, review, now).await;
    }
    let own = matters_who(endpoint, kind, review) && is_own(surroundings, review).await?;
    let created = endpoint.phase == Phase::Mutating && review.operation == ReviewOperation::Create && !own;
    let object = if created {
        without_reserved_keys(kind, &review.object)
    } else {
        Cow::Borrowed(&review.object)
    };
    let request = Request {
        phase: endpoint.phase,
        kind,
        operation: review.operation.into(),
        namespace: &review.namespace,
        object: &object,
        sent: &review.object,
        old: &review.old_object,
        user: &review.user_info.username,
        own,
        dry_run: review.dry_run == Some(true),
    };
    let gathered = gather(surroundings, &request).await?;
    let facts = gathered.facts();
    // Templates are rendered in these two, and policies are compiled.
    let governed = off_reactor(|| govern(&request, &facts));
    let ask = Ask {
        namespace: &review.namespace,
        task: gathered.owner_task().unwrap_or(&object),
        for_job: kind == Kind::Job,
    };
    let recalled = recall(surroundings, &ask, &governed).await?;
    let mut decision = off_reactor(|| decide(&governed, recalled.memory(), now));
    if let (true, Some((field, rights))) = (decision.allowed(), required_rights(&request)) {
        for right in rights {
            if let Some(why) = lacks(surroundings, review, &right).await {
                decision = right_missing(&request, field, &right, &why);
                break;
            }
        }
    }
    Ok(decision)
}

/// Whether the decision turns on whether taskgate itself asks: where only it may write, and where an object carries what
/// only it sets.
fn matters_who(endpoint: &Endpoint, kind: Kind, review: &ReviewRequest) -> bool {
    match kind {
        Kind::Task | Kind::Job => endpoint.phase == Phase::Mutating && has_reserved_keys(kind, &review.object),
        Kind::WorkItem | Kind::WorkItemStatus => review.operation != ReviewOperation::Delete,
        Kind::TaskPolicy | Kind::ClusterTaskPolicy => false,
    }
}

/// Whether taskgate itself asks.
pub(crate) async fn is_own<S: Surroundings>(surroundings: &S, review: &ReviewRequest) -> Result<bool, FactError> {
    let own = surroundings.own_user().await?;
    Ok(own.is_some_and(|own| own == review.user_info.username))
}

/// Whether who asks lacks `right`: what there is to say about it. Where that cannot be found out, the answer is that they do.
async fn lacks<S: Surroundings>(surroundings: &S, review: &ReviewRequest, right: &Right) -> Option<String> {
    match surroundings.may(&review.user_info, right).await {
        Ok(permission) if permission.allowed => None,
        Ok(permission) => Some(permission.why),
        Err(error) => Some(format!("it cannot be checked: {}", error.reason)),
    }
}
