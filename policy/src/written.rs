//! Writes to taskgate's own objects: what the schema cannot check is checked here, so that a policy that is stored can
//! be applied.

use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec, WorkItemSpec, metadata::Metadata};

use crate::{
    Detail, Kind, Operation, Policy, Problem, Request,
    decision::{Effect, Finding},
    identity::ItemIdentity,
};

/// What is wrong with the object of `request`, one of taskgate's own kinds.
pub(crate) fn findings(request: &Request<'_>) -> Vec<Finding<'static>> {
    let metadata = Metadata::of(request.object);
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || metadata.is_terminating() {
        return Vec::new();
    }
    // A generated name is not known yet; any legal one does for checking the rest.
    let name = metadata.name().unwrap_or("generated");
    match request.kind {
        Kind::TaskPolicy => match spec::<TaskPolicySpec>(request.object) {
            Ok(spec) => policy(Policy::namespaced(request.namespace, name, &spec)),
            Err(error) => unreadable(&error),
        },
        Kind::ClusterTaskPolicy => match spec::<ClusterTaskPolicySpec>(request.object) {
            Ok(spec) => policy(Policy::cluster(name, &spec)),
            Err(error) => unreadable(&error),
        },
        Kind::WorkItem => match spec::<WorkItemSpec>(request.object) {
            Ok(spec) => work_item(metadata.name(), &spec),
            Err(error) => unreadable(&error),
        },
        Kind::Task | Kind::Job => Vec::new(),
    }
}

fn spec<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object.get("spec").unwrap_or(&Value::Null))
}

fn unreadable(error: &serde_json::Error) -> Vec<Finding<'static>> {
    let message = format!("spec: {error}");
    vec![Finding::own(Detail::Unreadable { message }, Effect::Reject)]
}

fn policy(compiled: Result<Policy, Vec<Problem>>) -> Vec<Finding<'static>> {
    match compiled {
        Ok(policy) if policy.has_sections() => Vec::new(),
        Ok(_) => vec![Finding::own(Detail::PolicyEmpty, Effect::Tell)],
        Err(problems) => vec![Finding::own(Detail::PolicyInvalid { problems }, Effect::Reject)],
    }
}

/// A `WorkItem` is found by its name, so a wrong name would be a memory that nobody reads.
fn work_item(name: Option<&str>, spec: &WorkItemSpec) -> Vec<Finding<'static>> {
    let expected = ItemIdentity {
        key: spec.key.clone(),
        item: String::new(),
        spawner: None,
    }
    .work_item_name();
    if name == Some(expected.as_str()) {
        return Vec::new();
    }
    vec![Finding::own(Detail::WorkItemMisnamed { expected }, Effect::Reject)]
}
