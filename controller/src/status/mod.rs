//! Conditions of policies: how one is built, and the condition `Accepted` (`policy`), which every replica writes.
//!
//! Imports `workqueue`. Called by `source` and by the `taskgate` binary.

mod policy;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy};
use taskgate_policy::PolicyName;

pub(crate) use policy::run as run_policy_status;

/// A condition that keeps the transition time of `current`, the stored one of its type, while the status stays the same.
pub(crate) fn condition(
    type_: &str,
    status: bool,
    reason: &str,
    message: String,
    generation: Option<i64>,
    current: Option<&Condition>,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: current
            .filter(|current| current.status == status)
            .map_or(Time(now), |current| current.last_transition_time.clone()),
        observed_generation: generation,
    }
}

/// The API and the kind of a policy, and its name there; `None` for the fields of a TaskSpawner, whose status is Kelos' own.
pub(crate) fn policy_api<'a>(
    client: &Client,
    policy: &'a PolicyName,
) -> Option<(Api<DynamicObject>, ApiResource, &'a str)> {
    match policy {
        PolicyName::Spawner { .. } => None,
        PolicyName::Namespaced { namespace, name } => {
            let kind = ApiResource::erase::<TaskPolicy>(&());
            Some((Api::namespaced_with(client.clone(), namespace, &kind), kind, name))
        }
        PolicyName::Cluster { name } => {
            let kind = ApiResource::erase::<ClusterTaskPolicy>(&());
            Some((Api::all_with(client.clone(), &kind), kind, name))
        }
    }
}
