//! The condition `Accepted` of each policy: whether it is in force. Admission reviews a policy when it is written, but can miss it
//! (while taskgate is unavailable, with an older release, in an excluded namespace), and decisions ignore a policy that is invalid:
//! its author must be able to see that.
//!
//! Every replica runs this: the condition follows from the object alone, so replicas agree, and one that is as it should be is not
//! written.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, Patch, PatchParams},
    runtime::{Controller, controller::Action, watcher},
};
use serde_json::json;
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, task_policy::PolicyStatus};
use taskgate_policy::{Acceptance, MAX_POLICIES, PolicyName, PolicyState, clip};
use tokio_util::sync::CancellationToken;

use super::condition;
use crate::policies::{PolicyHead, SharedPolicies, changes};

/// The field manager of the status.
const MANAGER: &str = "taskgate-policy-status";
/// The condition's type.
const ACCEPTED: &str = "Accepted";
/// The longest condition message, in characters: enough for a dozen problems.
const MAX_MESSAGE: usize = 2048;

/// The status of a policy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing the status of {name}")]
struct StatusError {
    name: PolicyName,
    source: Box<kube::Error>,
}

/// The reconciler of one kind of policies.
struct PolicyStatusReconciler {
    client: Client,
    kind: ApiResource,
    policies: SharedPolicies,
}

/// Updates the status of all policies, as `policies` knows them, until `shutdown`.
///
/// RBAC: `list`, `watch` on both kinds, `patch` on their `status`.
pub async fn run(client: Client, policies: SharedPolicies, shutdown: CancellationToken) {
    let keep = |kind| {
        let (client, policies) = (client.clone(), policies.clone());
        keep(PolicyStatusReconciler { client, kind, policies }, shutdown.clone())
    };
    tokio::join!(
        keep(ApiResource::erase::<TaskPolicy>(&())),
        keep(ApiResource::erase::<ClusterTaskPolicy>(&()))
    );
}

async fn keep(reconciler: PolicyStatusReconciler, shutdown: CancellationToken) {
    let api = Api::<PolicyHead>::all_with(reconciler.client.clone(), &reconciler.kind);
    // A change of the status, such as taskgate's own write, only leads to a comparison.
    Controller::new_with(api, watcher::Config::default(), reconciler.kind.clone())
        .reconcile_all_on(changes(reconciler.policies.clone()))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, retry, Arc::new(reconciler))
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the status of a policy was not written"
                );
            }
        })
        .await;
}

async fn reconcile(policy: Arc<PolicyHead>, reconciler: Arc<PolicyStatusReconciler>) -> Result<Action, StatusError> {
    let PolicyStatusReconciler { client, kind, policies } = &*reconciler;
    let name = policy.name_any();
    let (api, name) = match policy.namespace() {
        Some(namespace) => (
            Api::<PolicyHead>::namespaced_with(client.clone(), &namespace, kind),
            PolicyName::Namespaced { namespace, name },
        ),
        None => (Api::all_with(client.clone(), kind), PolicyName::Cluster { name }),
    };
    let generation = policy.metadata.generation;
    let state = policies.borrow().states.get(&name).cloned();
    let same =
        |state: &PolicyState| Some(state.generation) == generation && Some(&state.uid) == policy.metadata.uid.as_ref();
    let Some(state) = state.filter(same) else {
        // Not compiled yet: all policies are reconciled when it is.
        return Ok(Action::await_change());
    };
    let current = policy.status.as_ref();
    let condition = accepted(&name, &state.acceptance, current, generation, Timestamp::now());
    let is_current = current
        .is_some_and(|status| status.observed_generation == generation && status.conditions.contains(&condition));
    if is_current {
        return Ok(Action::await_change());
    }
    let patch = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "status": PolicyStatus { observed_generation: generation, conditions: vec![condition] },
    });
    let params = PatchParams::apply(MANAGER).force();
    match api
        .patch_status(&policy.name_any(), &params, &Patch::Apply(&patch))
        .await
    {
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Action::await_change()),
        Err(source) => Err(StatusError {
            name,
            source: Box::new(source),
        }),
        Ok(_) => Ok(Action::await_change()),
    }
}

fn retry(_: Arc<PolicyHead>, _: &StatusError, _: Arc<PolicyStatusReconciler>) -> Action {
    Action::requeue(Duration::from_secs(10))
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
