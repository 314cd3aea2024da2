//! Policies, compiled as they arrive.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec};
use taskgate_policy::{Policy, PolicySet, Problem};
use tracing::warn;

use super::table::Table;

/// The policies of both kinds, and the set that reviews read.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) namespaced: Table<Stored>,
    pub(super) cluster: Table<Stored>,
    set: ArcSwap<PolicySet>,
}

/// A policy as it is stored in the cluster.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// It is in force.
    Usable(Policy),
    /// It cannot be applied and is left out, also when an earlier generation of it could be: what is in force depends on
    /// what is stored, not on when this process started.
    Rejected {
        /// The generation that was told to be unusable.
        generation: i64,
    },
}

impl Policies {
    pub(super) fn new() -> Self {
        Self {
            namespaced: Table::new("taskpolicies"),
            cluster: Table::new("clustertaskpolicies"),
            set: ArcSwap::from_pointee(PolicySet::default()),
        }
    }

    pub(super) fn current(&self) -> Arc<PolicySet> {
        self.set.load_full()
    }

    /// Puts what the tables hold now before the next review.
    pub(super) fn rebuild(&self) {
        let usable = self.stored().into_iter().filter_map(|stored| match stored {
            Stored::Usable(policy) => Some(policy),
            Stored::Rejected { .. } => None,
        });
        self.set.store(Arc::new(PolicySet::new(usable)));
    }

    /// How many stored policies cannot be applied.
    pub(super) fn rejected(&self) -> usize {
        let rejected = |stored: &&Stored| matches!(stored, Stored::Rejected { .. });
        self.stored().iter().filter(rejected).count()
    }

    fn stored(&self) -> Vec<Stored> {
        [self.namespaced.values(), self.cluster.values()].concat()
    }

    pub(super) fn compile_namespaced(&self, object: DynamicObject) -> Stored {
        let compile = |namespace: &str, name: &str, spec: TaskPolicySpec| Policy::namespaced(namespace, name, &spec);
        stored(&self.namespaced, object, compile)
    }

    pub(super) fn compile_cluster(&self, object: DynamicObject) -> Stored {
        let compile = |_: &str, name: &str, spec: ClusterTaskPolicySpec| Policy::cluster(name, &spec);
        stored(&self.cluster, object, compile)
    }
}

/// Compiles one object. A generation that cannot be applied is told once, however often it is listed.
fn stored<S: DeserializeOwned>(
    table: &Table<Stored>,
    object: DynamicObject,
    compile: impl Fn(&str, &str, S) -> Result<Policy, Vec<Problem>>,
) -> Stored {
    let DynamicObject { metadata, mut data, .. } = object;
    let namespace = metadata.namespace.unwrap_or_default();
    let name = metadata.name.unwrap_or_default();
    let compiled = serde_json::from_value::<S>(data["spec"].take())
        .map_err(|error| error.to_string())
        .and_then(|spec| {
            compile(&namespace, &name, spec).map_err(|problems| {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                problems.join("; ")
            })
        });
    match compiled {
        Ok(policy) => Stored::Usable(policy),
        Err(problems) => {
            let generation = metadata.generation.unwrap_or_default();
            let told = matches!(table.get(&namespace, &name),
                Some(Stored::Rejected { generation: told }) if told == generation);
            if !told {
                warn!(
                    namespace,
                    name, generation, problems, "a policy cannot be applied; left out"
                );
            }
            Stored::Rejected { generation }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, spec: &serde_json::Value) -> DynamicObject {
        let metadata = json!({"namespace": "team", "name": "p", "generation": generation});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_policy_that_becomes_unusable_is_left_out_and_comes_back_when_mended() {
        let policies = Policies::new();
        let mut in_force = Vec::new();
        for (generation, spec) in [
            (1, json!({"queueName": "a"})),
            (2, json!({"queueName": "Not Legal"})),
            (3, json!({"mode": "Perhaps"})),
            (4, json!({"queueName": "b"})),
        ] {
            let stored = policies.compile_namespaced(object(generation, &spec));
            policies.namespaced.apply("team/p".to_owned(), Some(stored));
            policies.rebuild();
            in_force.push((policies.current().len(), policies.rejected()));
        }
        assert_eq!(in_force, [(1, 0), (0, 1), (0, 1), (1, 0)]);
    }
}
