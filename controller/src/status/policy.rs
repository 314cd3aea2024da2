//! The condition `Accepted` of each policy: whether it is in force. Admission reviews a policy when it is written, but can miss it
//! (while taskgate is unavailable, with an older release, in an excluded namespace), and decisions ignore a policy that is invalid:
//! its author must be able to see that.
//!
//! Every replica runs this: the condition follows from the object alone, so replicas agree, and one that is as it should be is not
//! written.

use std::sync::Arc;

use futures::future::join3;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::task_policy::PolicyStatus;
use taskgate_cache::{Clock, ClusterCache, Store, StoredPolicy};
use taskgate_policy::{Acceptance, MAX_POLICIES, PolicyName, clip};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{condition, policy_api};
use crate::{
    error::{Error, is_absent},
    workqueue::{self, PanicMetrics, Reconciled},
};

/// The field manager of the status.
const MANAGER: &str = "taskgate-policy-status";
/// The condition's type.
const ACCEPTED: &str = "Accepted";
/// The longest condition message, in characters: enough for a dozen problems.
const MAX_MESSAGE: usize = 2048;

/// Updates the status of all policies, as `cache` has them, until `shutdown`.
///
/// RBAC: `patch` on the `status` of both kinds.
pub(crate) async fn run(client: Client, cache: Arc<ClusterCache>, panics: &PanicMetrics, shutdown: CancellationToken) {
    let (client, cache) = (&client, &*cache);
    let (enqueue, enqueued) = mpsc::unbounded_channel();
    let reconcile = |name| reconcile(client, cache, name);
    let reconciling = workqueue::run("policy_status", panics, enqueued, reconcile);
    tokio::select! {
        () = shutdown.cancelled() => {}
        ((), (), ()) = join3(
            follow(cache.task_policies(), cache.clock(), &enqueue),
            follow(cache.cluster_task_policies(), cache.clock(), &enqueue),
            reconciling,
        ) => {}
    }
}

/// Enqueues each policy whose status is not as it should be. A change of the status, such as taskgate's own write, only leads to a
/// comparison.
async fn follow(policies: &Store<StoredPolicy>, clock: &Clock, enqueue: &mpsc::UnboundedSender<PolicyName>) {
    let mut policies = policies.subscribe();
    while let Some(changes) = policies.next().await {
        for policy in changes.into_iter().filter_map(|change| change.new) {
            if wanted(&policy, clock.now()).is_some() {
                // The queue is dropped with this.
                let _ = enqueue.send(policy.name().clone());
            }
        }
    }
}

/// Writes the status of a policy if it is not as it should be.
async fn reconcile(client: &Client, cache: &ClusterCache, name: PolicyName) -> Reconciled {
    let policy = match &name {
        PolicyName::Spawner { .. } => None,
        PolicyName::Namespaced { namespace, name } => cache.task_policies().get(namespace, name),
        PolicyName::Cluster { name } => cache.cluster_task_policies().get("", name),
    };
    let Some(status) = policy.and_then(|policy| wanted(&policy, cache.clock().now())) else {
        return Ok(None);
    };
    let Some((api, kind, object)) = policy_api(client, &name) else {
        return Ok(None);
    };
    let patch = json!({"apiVersion": kind.api_version, "kind": kind.kind, "status": status});
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(object, &params, &Patch::Apply(&patch)).await {
        // Deleted meanwhile.
        Err(error) if !is_absent(&error) => {
            let namespace = name.namespace().unwrap_or_default();
            let kind = if namespace.is_empty() {
                "ClusterTaskPolicy"
            } else {
                "TaskPolicy"
            };
            Err(Error::new("writing the status of", kind, namespace, object, error))
        }
        _ => Ok(None),
    }
}

/// The status that `policy` should have; `None`: it has it.
fn wanted(policy: &StoredPolicy, now: Timestamp) -> Option<PolicyStatus> {
    let (current, generation) = (policy.status(), Some(policy.generation()));
    let mut condition = accepted(policy.name(), &policy.acceptance(), current, generation, now);
    if !policy.doubts().is_empty() {
        let doubts: Vec<_> = policy.doubts().iter().map(ToString::to_string).collect();
        let message = format!(
            "{} For a sample Task, templates fail: {}",
            condition.message,
            doubts.join("; ")
        );
        condition.message = clip(&message, MAX_MESSAGE);
    }
    let is_current = current
        .is_some_and(|status| status.observed_generation == generation && status.conditions.contains(&condition));
    (!is_current).then(|| PolicyStatus {
        observed_generation: generation,
        conditions: vec![condition],
    })
}

/// The condition for `acceptance`; `current` is the stored status.
fn accepted(
    name: &PolicyName,
    acceptance: &Acceptance,
    current: Option<&PolicyStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason, message) = match acceptance {
        Acceptance::InForce => (true, "InForce", "The policy is in force.".to_owned()),
        Acceptance::Invalid(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            let message = format!("The policy is ignored: {}", problems.join("; "));
            (false, "Invalid", message)
        }
        Acceptance::TooMany => {
            let message = format!(
                "The policy is ignored: of {} the {MAX_POLICIES} oldest are in force. Delete others.",
                name.group()
            );
            (false, "TooManyPolicies", message)
        }
    };
    let previous = current.and_then(|current| current.conditions.iter().find(|condition| condition.type_ == ACCEPTED));
    let message = clip(&message, MAX_MESSAGE);
    condition(ACCEPTED, status, reason, message, generation, previous, now)
}

#[cfg(test)]
mod tests {
    use taskgate_policy::Problem;

    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let problem = Problem {
            field: "spec.x".into(),
            message: "is wrong".into(),
        };
        let invalid = Acceptance::Invalid([problem].into());
        let name = PolicyName::Cluster { name: "p".into() };
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let first = accepted(&name, &Acceptance::InForce, None, Some(1), early);
        assert_eq!((first.status.as_str(), first.last_transition_time.0), ("True", early));
        let status = PolicyStatus {
            observed_generation: Some(1),
            conditions: vec![first],
        };
        let second = accepted(&name, &Acceptance::InForce, Some(&status), Some(2), late);
        assert_eq!(
            (second.observed_generation, second.last_transition_time.0),
            (Some(2), early)
        );
        let third = accepted(&name, &invalid, Some(&status), Some(3), late);
        assert_eq!((third.status.as_str(), third.last_transition_time.0), ("False", late));
        assert_eq!(third.message, "The policy is ignored: spec.x: is wrong");
        let fourth = accepted(&name, &Acceptance::TooMany, Some(&status), Some(3), late);
        assert_eq!(
            (fourth.status.as_str(), fourth.reason.as_str()),
            ("False", "TooManyPolicies")
        );
        assert_eq!(
            fourth.message,
            "The policy is ignored: of ClusterTaskPolicies the 64 oldest are in force. Delete others."
        );
    }
}
