//! Writes to policies: what the schema cannot check is checked here, so that a policy that is stored can
//! be applied.

use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec, metadata::Metadata};

use crate::{
    Detail, Kind, Operation, Policy, Problem, Request,
    decision::{Effect, Finding},
};

/// What is wrong with the object of `request`, a policy.
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
        _ => Vec::new(),
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
