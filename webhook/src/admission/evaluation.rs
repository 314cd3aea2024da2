//! The decision on one review: read the inputs, find the policy match (`govern`), load the item's status, decide.
//!
//! The server's routes and the offline check both call [`evaluate`]: there is no second path to a decision.

use std::borrow::Cow;

use jiff::Timestamp;
use taskgate_api::kelos::Task;
use taskgate_cache::block_in_place;
use taskgate_policy::{
    CancelDetail, CancelReview, Decision, ItemSnapshot, Kind, Operation, Phase, Request, Right, decide, govern,
    has_reserved_keys,
    kelos_fields::{FieldsReview, FieldsWriter, review_kelos_fields},
    needs_permission_check, required_rights, reserved_keys_changed, review_cancellation, review_task_update,
    right_missing, without_reserved_keys,
};

use super::{
    inputs::{AccessDecision, ClusterContext, ClusterReadError, ReviewedTask, load_item, read_inputs},
    review::ReviewRequest,
};
use crate::registration::rules::{Endpoint, RequestFilter};

/// Decides on `review`, which was sent to `endpoint` for an object of `kind`, as of `now`.
///
/// The same cluster, review and time always give the same decision. Errors when an input of the decision cannot be read.
pub async fn evaluate<C: ClusterContext>(
    cluster: &C,
    endpoint: &Endpoint,
    kind: Kind,
    review: &ReviewRequest,
    now: Timestamp,
) -> Result<Decision, ClusterReadError> {
    match endpoint.filter {
        RequestFilter::Cancellation | RequestFilter::OwnKeys => {
            return evaluate_own_keys(cluster, endpoint.phase, kind, review, now).await;
        }
        RequestFilter::KelosFields | RequestFilter::KelosDrops => return evaluate_kelos_fields(cluster, review).await,
        _ => {}
    }
    if endpoint.filter == RequestFilter::NewOrAppliedAgain && review.operation == Operation::Update {
        // The controller, which removes its own keys, sends nothing again.
        let own = is_own(cluster, review).await?;
        let decision = || review_task_update(&review.old_object, &review.object);
        return Ok((!own).then(decision).unwrap_or_default());
    }
    let own = depends_on_user(endpoint, kind, review) && is_own(cluster, review).await?;
    let created = endpoint.phase == Phase::Mutating && review.operation == Operation::Create && !own;
    let object = if created {
        without_reserved_keys(kind, &review.object)
    } else {
        Cow::Borrowed(&review.object)
    };
    let request = Request {
        phase: endpoint.phase,
        kind,
        operation: review.operation,
        namespace: &review.namespace,
        object: &object,
        sent: &review.object,
        old: &review.old_object,
        user: review.username(),
        own,
        dry_run: review.dry_run == Some(true),
    };
    let inputs = read_inputs(cluster, &request).await?;
    let context = inputs.context();
    // `govern` and `decide` render templates.
    let governed = block_in_place(|| govern(&request, &context));
    let reviewed = ReviewedTask {
        namespace: &review.namespace,
        task: inputs.owner_task().unwrap_or(&object),
        for_job: kind == Kind::Job,
    };
    let (item, active) = load_item(cluster, &reviewed, &governed, now).await?;
    let item = ItemSnapshot {
        status: item.status(),
        active,
    };
    let mut decision = block_in_place(|| decide(&governed, item, now));
    if !decision.allowed() && kind == Kind::Task && is_taken(cluster, review).await {
        return Ok(Decision::default());
    }
    if let (true, Some((field, rights))) = (decision.allowed(), required_rights(&request)) {
        for right in rights {
            if let Some(why) = access_denial(cluster, review, &right).await {
                decision = right_missing(&request, field, &right, &why);
                break;
            }
        }
    }
    Ok(decision)
}

/// Decides on an update that changes a Task's cancellation, or another key that only taskgate sets.
///
/// To cancel a Task, its user needs the right to delete it, which the API server confirms. Where that fails, the request is denied.
async fn evaluate_own_keys<C: ClusterContext>(
    cluster: &C,
    phase: Phase,
    kind: Kind,
    review: &ReviewRequest,
    now: Timestamp,
) -> Result<Decision, ClusterReadError> {
    let own = is_own(cluster, review).await?;
    let forged = || reserved_keys_changed(kind, &review.old_object, &review.object);
    if let Some(denied) = (phase == Phase::Validating && !own).then(forged).flatten() {
        return Ok(denied);
    }
    if kind != Kind::Task {
        return Ok(Decision::default());
    }
    let mut request = CancelReview {
        phase,
        operation: review.operation,
        object: &review.object,
        old: &review.old_object,
        user: review.username(),
        own,
        permission: None,
        now,
    };
    let decision = review_cancellation(&request);
    if !decision.allowed() || !needs_permission_check(&request) {
        return Ok(decision);
    }
    let user = review.username().to_owned();
    let right = Right::delete_task(&review.namespace, &review.name);
    let permission = match cluster.check_access(&review.user_info, &right).await {
        Ok(AccessDecision { allowed: true, .. }) => Ok(()),
        Ok(AccessDecision { reason, .. }) => Err(CancelDetail::Forbidden { user, why: reason }),
        Err(error) => Err(CancelDetail::Unknown(error.reason)),
    };
    request.permission = Some(&permission);
    Ok(review_cancellation(&request))
}

/// Decides on a write that changes or drops a field that taskgate adds to Kelos' kinds.
async fn evaluate_kelos_fields<C: ClusterContext>(
    cluster: &C,
    review: &ReviewRequest,
) -> Result<Decision, ClusterReadError> {
    let user = review.username();
    let writer = if is_own(cluster, review).await? {
        FieldsWriter::Taskgate
    } else if cluster.kelos_writers().include(user, &review.namespace) {
        FieldsWriter::Kelos
    } else {
        FieldsWriter::User(user)
    };
    Ok(review_kelos_fields(&FieldsReview {
        kind: &review.kind.kind,
        status: review.sub_resource == "status",
        writer,
        fields: &cluster.kelos_fields(),
        object: &review.object,
        old: &review.old_object,
    }))
}

/// Whether the decision depends on whether the user is taskgate itself: where only taskgate may write, and where an object
/// carries keys that only taskgate sets.
fn depends_on_user(endpoint: &Endpoint, kind: Kind, review: &ReviewRequest) -> bool {
    match kind {
        Kind::Task | Kind::Job => endpoint.phase == Phase::Mutating && has_reserved_keys(kind, &review.object),
        Kind::WorkItem | Kind::WorkItemStatus => review.operation != Operation::Delete,
        Kind::TaskSpawner | Kind::TaskPolicy | Kind::ClusterTaskPolicy => false,
    }
}

/// Whether the spawner of the Task that is created has a Task of its name, possibly one that is being deleted.
///
/// The API server answers such a create with `AlreadyExists`, which Kelos takes for success. A denial would make the whole cycle of
/// the spawner fail: a trigger comment on a tombstone deletes the Task and creates it again in one cycle, before the item is reset.
/// If the old Task disappears in between, the review of the Job decides.
async fn is_taken<C: ClusterContext>(cluster: &C, review: &ReviewRequest) -> bool {
    let Some(spawner) = Task::of(&review.object).spawner_owner() else {
        return false;
    };
    let taken = cluster
        .spawner_has_task(&review.namespace, spawner.uid, &review.name)
        .await;
    // Without an answer, the denial stands.
    taken.unwrap_or(false)
}

/// Whether the user of the review is taskgate itself.
async fn is_own<C: ClusterContext>(cluster: &C, review: &ReviewRequest) -> Result<bool, ClusterReadError> {
    let own = cluster.own_user().await?;
    Ok(own.is_some_and(|own| own == review.username()))
}

/// Why the user of the review lacks `right`; `None` if they have it. A failed check counts as a denial.
async fn access_denial<C: ClusterContext>(cluster: &C, review: &ReviewRequest, right: &Right) -> Option<String> {
    match cluster.check_access(&review.user_info, right).await {
        Ok(access) if access.allowed => None,
        Ok(access) => Some(access.reason),
        Err(error) => Some(format!("it cannot be checked: {}", error.reason)),
    }
}
