//! The verdict on one review: gather, govern, recall, decide. The server's routes call it, and so does whatever wants the
//! same verdict without a server: there is no second way to one.

use jiff::Timestamp;
use taskgate_policy::{Decision, Kind, Request, decide, govern};

use crate::{
    cancellation,
    facts::{Ask, FactError, Surroundings, gather, recall},
    off_reactor::off_reactor,
    review::ReviewRequest,
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
    if endpoint.guard == Guard::Cancellation {
        return cancellation::decide(surroundings, endpoint.phase, review, now).await;
    }
    let request = Request {
        phase: endpoint.phase,
        kind,
        operation: review.operation.into(),
        namespace: &review.namespace,
        object: &review.object,
        user: &review.user_info.username,
        dry_run: review.dry_run == Some(true),
    };
    let gathered = gather(surroundings, &request).await?;
    let facts = gathered.facts();
    // Templates are rendered in these two, and policies are compiled.
    let governed = off_reactor(|| govern(&request, &facts));
    let ask = Ask {
        namespace: &review.namespace,
        task: gathered.owner_task().unwrap_or(&review.object),
        for_job: kind == Kind::Job,
    };
    let recalled = recall(surroundings, &ask, &governed).await?;
    Ok(off_reactor(|| decide(&governed, recalled.memory(), now)))
}
