//! The selectors of a policy, compiled.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use taskgate_api::{Selector, SelectorExt as _, task_policy::TaskSelector};

use super::sections::Attributes;
use crate::kubernetes::Problem;

/// Why a policy does not govern a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Its mode is `Off`.
    Off,
    /// `selector.spawnerNames` does not have the Task's spawner.
    SpawnerName,
    /// `selector.taskTypes` does not have its agent's type.
    TaskType,
    /// `namespaceSelector` leaves its namespace out.
    Namespace,
    /// `selector.spawnerSelector` leaves its spawner out, or there is none.
    SpawnerLabels,
    /// `selector.taskSelector` leaves it out.
    TaskLabels,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "its mode is Off",
            Self::SpawnerName => "its selector.spawnerNames does not have the spawner",
            Self::TaskType => "its selector.taskTypes does not have the agent's type",
            Self::Namespace => "its namespaceSelector leaves the namespace out",
            Self::SpawnerLabels => "its selector.spawnerSelector leaves the spawner out",
            Self::TaskLabels => "its selector.taskSelector leaves it out",
        })
    }
}

/// The selectors of a policy that are more than lists of names.
#[derive(Debug)]
pub(crate) struct Selectors {
    namespaces: Selector,
    spawners: Option<Selector>,
    tasks: Option<Selector>,
}

impl Selectors {
    /// Compiles the selectors; errors go to `problems`.
    pub(crate) fn compile(namespaces: Selector, of: &TaskSelector, problems: &mut Vec<Problem>) -> Self {
        let mut compile = |name: &str, source: Option<&LabelSelector>| {
            let field = format!("spec.selector.{name}");
            selector(&field, source, problems)
        };
        Self {
            namespaces,
            spawners: compile("spawnerSelector", of.spawner_selector.as_ref()),
            tasks: compile("taskSelector", of.task_selector.as_ref()),
        }
    }

    /// Whether they depend on a Task's labels.
    pub(crate) fn depends_on_task_labels(&self) -> bool {
        self.tasks.is_some()
    }

    /// Why the selectors do not match these attributes. The cheapest comparisons come first.
    pub(crate) fn mismatch(&self, of: &TaskSelector, attributes: &Attributes<'_>) -> Option<Mismatch> {
        let named = |names: &[String], value: Option<&str>| {
            names.is_empty() || value.is_some_and(|value| names.iter().any(|name| name == value))
        };
        let selects_spawner =
            |selector: &Selector| attributes.spawner_labels.is_some_and(|labels| selector.matches(labels));
        if !named(&of.spawner_names, attributes.spawner) {
            Some(Mismatch::SpawnerName)
        } else if !named(&of.task_types, attributes.agent_type) {
            Some(Mismatch::TaskType)
        } else if !(self.namespaces.selects_all() || self.namespaces.matches(attributes.namespace_labels)) {
            Some(Mismatch::Namespace)
        } else if !self.spawners.as_ref().is_none_or(selects_spawner) {
            Some(Mismatch::SpawnerLabels)
        } else if !self
            .tasks
            .as_ref()
            .is_none_or(|selector| selector.matches(&attributes.labels))
        {
            Some(Mismatch::TaskLabels)
        } else {
            None
        }
    }
}

/// The selector in `field`; its error goes to `problems`.
pub(crate) fn selector(field: &str, selector: Option<&LabelSelector>, problems: &mut Vec<Problem>) -> Option<Selector> {
    match Selector::try_from(selector?.clone()) {
        Ok(compiled) => Some(compiled),
        Err(error) => {
            problems.push(Problem {
                field: field.to_owned(),
                message: error.to_string(),
            });
            None
        }
    }
}
