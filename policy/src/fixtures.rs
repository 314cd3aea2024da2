//! Policies for the tests beside the code.

use serde_json::Value;

use crate::matching::{Policy, PolicySet};

/// The `TaskPolicy` called `name` in namespace `team`.
pub(crate) fn policy(name: &str, spec: Value) -> Policy {
    let spec = serde_json::from_value(spec).expect("a spec");
    Policy::namespaced("team", name, &spec).expect("it compiles")
}

/// The policies of namespace `team`, called `p0`, `p1` and so on.
pub(crate) fn policies(specs: impl IntoIterator<Item = Value>) -> PolicySet {
    let specs = specs.into_iter().enumerate();
    PolicySet::new(specs.map(|(index, spec)| policy(&format!("p{index}"), spec)))
}
