//! Which Tasks a policy is about: its selectors, compiled.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use taskgate_api::{Selector, SelectorExt as _, task_policy::TaskSelector};

use crate::{policy::Problem, select::Features};

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
pub(crate) struct Reach {
    namespaces: Selector,
    spawners: Option<Selector>,
    tasks: Option<Selector>,
}

impl Reach {
    /// What is wrong with the selectors is noted.
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

    /// Whether a Task's labels decide.
    pub(crate) fn depends_on_task_labels(&self) -> bool {
        self.tasks.is_some()
    }

    /// Why a Task with these features is out of reach. What is cheap to compare comes first.
    pub(crate) fn mismatch(&self, of: &TaskSelector, features: &Features<'_>) -> Option<Mismatch> {
        let named = |names: &[String], value: Option<&str>| {
            names.is_empty() || value.is_some_and(|value| names.iter().any(|name| name == value))
        };
        let selects_spawner =
            |selector: &Selector| features.spawner_labels.is_some_and(|labels| selector.matches(labels));
        if !named(&of.spawner_names, features.spawner) {
            Some(Mismatch::SpawnerName)
        } else if !named(&of.task_types, features.agent_type) {
            Some(Mismatch::TaskType)
        } else if !(self.namespaces.selects_all() || self.namespaces.matches(features.namespace_labels)) {
            Some(Mismatch::Namespace)
        } else if !self.spawners.as_ref().is_none_or(selects_spawner) {
            Some(Mismatch::SpawnerLabels)
        } else if !self
            .tasks
            .as_ref()
            .is_none_or(|selector| selector.matches(&features.labels))
        {
            Some(Mismatch::TaskLabels)
        } else {
            None
        }
    }
}

/// The selector in `field`; what is wrong with it is noted.
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
