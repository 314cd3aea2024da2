//! Tells in each policy's status whether it is in force. A policy is checked when it is written, but that check can be
//! missed (taskgate away, an older release, another namespace's rules), and a policy that cannot be applied is left out of
//! decisions: its author has to be able to see that.
//!
//! Every replica runs this: what is written follows from the object alone, so replicas agree, and a status that says
//! the right thing already is not written.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{Controller, controller::Action, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, task_policy::PolicyStatus};
use taskgate_policy::{Policy, Problem, clip};
use tokio_util::sync::CancellationToken;

/// The field manager of the status.
const MANAGER: &str = "taskgate-policy-status";
/// The condition's type.
const ACCEPTED: &str = "Accepted";
/// The longest condition message, in characters: enough for a dozen problems.
const MAX_MESSAGE: usize = 2048;

/// The status of a policy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing the status of {kind} {name}")]
struct Error {
    kind: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// A kind of policy.
trait Written: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: &'static str;
    fn compile(&self) -> Result<Policy, Vec<Problem>>;
    fn status(&self) -> Option<&PolicyStatus>;
    fn api(&self, client: Client) -> Api<Self>;
}

impl Written for TaskPolicy {
    const KIND: &'static str = "TaskPolicy";

    fn compile(&self) -> Result<Policy, Vec<Problem>> {
        Policy::namespaced(&self.namespace().unwrap_or_default(), &self.name_any(), &self.spec)
    }

    fn status(&self) -> Option<&PolicyStatus> {
        self.status.as_ref()
    }

    fn api(&self, client: Client) -> Api<Self> {
        Api::namespaced(client, &self.namespace().unwrap_or_default())
    }
}

impl Written for ClusterTaskPolicy {
    const KIND: &'static str = "ClusterTaskPolicy";

    fn compile(&self) -> Result<Policy, Vec<Problem>> {
        Policy::cluster(&self.name_any(), &self.spec)
    }

    fn status(&self) -> Option<&PolicyStatus> {
        self.status.as_ref()
    }

    fn api(&self, client: Client) -> Api<Self> {
        Api::all(client)
    }
}

/// Keeps the status of all policies, until `shutdown`.
///
/// RBAC: `list`, `watch` on both kinds, `patch` on their `status`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    tokio::join!(
        keep::<TaskPolicy>(client.clone(), shutdown.clone()),
        keep::<ClusterTaskPolicy>(client, shutdown)
    );
}

async fn keep<P: Written>(client: Client, shutdown: CancellationToken) {
    // Our own status write comes back once, and then says the right thing already.
    Controller::new(Api::<P>::all(client.clone()), watcher::Config::default())
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile::<P>, retry::<P>, Arc::new(client))
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    kind = P::KIND,
                    "policy status not written"
                );
            }
        })
        .await;
}

async fn reconcile<P: Written>(policy: Arc<P>, client: Arc<Client>) -> Result<Action, Error> {
    let generation = policy.meta().generation;
    let current = policy.status();
    let condition = accepted(policy.compile(), current, generation, Timestamp::now());
    let is_current = current
        .is_some_and(|status| status.observed_generation == generation && status.conditions.contains(&condition));
    if is_current {
        return Ok(Action::await_change());
    }
    let patch = json!({
        "apiVersion": P::api_version(&()),
        "kind": P::kind(&()),
        "status": PolicyStatus { observed_generation: generation, conditions: vec![condition] },
    });
    match policy
        .api(client.as_ref().clone())
        .patch_status(
            &policy.name_any(),
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&patch),
        )
        .await
    {
        // Deleted meanwhile: nothing to tell anybody.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Action::await_change()),
        Err(source) => Err(Error {
            kind: P::KIND,
            name: policy.name_any(),
            source: Box::new(source),
        }),
        Ok(_) => Ok(Action::await_change()),
    }
}

fn retry<P: Written>(_: Arc<P>, _: &Error, _: Arc<Client>) -> Action {
    Action::requeue(Duration::from_secs(10))
}

/// The condition that says what `compiled` is, keeping the transition time of `current` where the status stays the same.
fn accepted(
    compiled: Result<Policy, Vec<Problem>>,
    current: Option<&PolicyStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason, message) = match compiled {
        Ok(_) => ("True", "InForce", "The policy is in force.".to_owned()),
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (
                "False",
                "Invalid",
                format!("The policy is ignored: {}", problems.join("; ")),
            )
        }
    };
    let previous = current.and_then(|current| current.conditions.iter().find(|condition| condition.type_ == ACCEPTED));
    let since = previous
        .filter(|previous| previous.status == status)
        .map_or(Time(now), |previous| previous.last_transition_time.clone());
    Condition {
        type_: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: clip(&message, MAX_MESSAGE),
        last_transition_time: since,
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let good = || Policy::namespaced("a", "b", &taskgate_api::TaskPolicySpec::default());
        let bad = || {
            Err(vec![Problem {
                field: "spec.x".into(),
                message: "is wrong".into(),
            }])
        };
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let first = accepted(good(), None, Some(1), early);
        assert_eq!((first.status.as_str(), first.last_transition_time.0), ("True", early));
        let status = PolicyStatus {
            observed_generation: Some(1),
            conditions: vec![first],
        };
        let second = accepted(good(), Some(&status), Some(2), late);
        assert_eq!(
            (second.observed_generation, second.last_transition_time.0),
            (Some(2), early)
        );
        let third = accepted(bad(), Some(&status), Some(3), late);
        assert_eq!((third.status.as_str(), third.last_transition_time.0), ("False", late));
        assert_eq!(third.message, "The policy is ignored: spec.x: is wrong");
    }
}
