//! A compiled policy: checked once when it is read, then used without further checks.

use std::{fmt, sync::Arc};

use taskgate_api::{
    ClusterTaskPolicySpec, Duration, InvalidDuration, Mode, Selector, TaskPolicySpec,
    task_policy::{
        Backoff, CancellationPolicy, FailurePolicy, QueueOnDeactivation, QueueOnError, RetryPolicy, TemplateEngine,
    },
};

use super::{
    item_key::ItemKey,
    metadata_rule::MetadataRule,
    queue_name::QueueName,
    sections::Attributes,
    selectors::{Mismatch, Selectors, selector},
};
use crate::{kubernetes::Problem, template::Templates};

/// A policy that is valid and compiled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: PolicyName,
    enforced: bool,
    spec: TaskPolicySpec,
    selectors: Selectors,
    item_key: Option<ItemKey>,
    queue: Option<QueueName>,
    priority_class: Option<QueueName>,
    metadata: Option<MetadataRule>,
}

/// Which object a policy is. Orders by precedence among equals: a `TaskPolicy` before a `ClusterTaskPolicy`, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// A `TaskPolicy`.
    Namespaced {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A `ClusterTaskPolicy`.
    Cluster {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced { name, .. } => write!(f, "TaskPolicy/{name}"),
            Self::Cluster { name } => write!(f, "ClusterTaskPolicy/{name}"),
        }
    }
}

/// The queue section of a policy. The default names no queue, so that only the Task itself can.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueRule<'a> {
    pub(crate) queue: Option<&'a QueueName>,
    pub(crate) priority_class: Option<&'a QueueName>,
    pub(crate) on_error: QueueOnError,
    pub(crate) on_deactivation: QueueOnDeactivation,
}

impl Policy {
    /// Compiles a `TaskPolicy`. Errors with every problem found, not only the first.
    pub fn namespaced(namespace: &str, name: &str, spec: &TaskPolicySpec) -> Result<Self, Vec<Problem>> {
        let name = PolicyName::Namespaced {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Self::compile(name, spec, false, Selector::default(), Vec::new())
    }

    /// Compiles a `ClusterTaskPolicy`. Errors with every problem found, not only the first.
    pub fn cluster(name: &str, spec: &ClusterTaskPolicySpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let namespaces = selector(
            "spec.namespaceSelector",
            spec.namespace_selector.as_ref(),
            &mut problems,
        );
        let name = PolicyName::Cluster { name: name.to_owned() };
        Self::compile(
            name,
            &spec.policy,
            spec.enforced,
            namespaces.unwrap_or_default(),
            problems,
        )
    }

    fn compile(
        name: PolicyName,
        spec: &TaskPolicySpec,
        enforced: bool,
        namespaces: Selector,
        mut problems: Vec<Problem>,
    ) -> Result<Self, Vec<Problem>> {
        let selectors = Selectors::compile(namespaces, &spec.selector, &mut problems);
        let templates = match Templates::of(spec) {
            Ok(templates) => templates,
            Err(problem) => {
                problems.push(problem);
                return Err(problems);
            }
        };
        let metadata = spec.metadata.as_ref();
        let engine = metadata.and_then(|section| section.engine).unwrap_or_default();
        let queue = queue_name(
            "spec.queueName",
            &templates,
            engine,
            spec.queue_name.as_ref(),
            &mut problems,
        );
        let field = "spec.queuePriorityClass";
        let priority_class = queue_name(
            field,
            &templates,
            engine,
            spec.queue_priority_class.as_ref(),
            &mut problems,
        );
        if spec.queue_name.is_none() && spec.queue_priority_class.is_some() {
            problems.push(Problem {
                field: field.to_owned(),
                message: "needs queueName".to_owned(),
            });
        }
        let metadata = metadata.map(|section| MetadataRule::compile(section, &templates, &mut problems));
        let item_key = spec
            .failure_policy
            .as_ref()
            .and_then(|section| section.item_key.as_ref());
        let item_key = item_key.and_then(|template| {
            let field = "spec.failurePolicy.itemKey".to_owned();
            ItemKey::compile(&templates, template)
                .map_err(|message| problems.push(Problem { field, message }))
                .ok()
        });
        problems.extend(overlong_durations(spec));
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut spec = spec.clone();
        // The templates are compiled: their sources are not needed any more.
        if let Some(section) = &mut spec.metadata {
            section.labels.clear();
            section.annotations.clear();
        }
        Ok(Self(Arc::new(Compiled {
            name,
            enforced,
            spec,
            selectors,
            item_key,
            queue,
            priority_class,
            metadata,
        })))
    }

    /// Which object the policy is.
    pub fn name(&self) -> &PolicyName {
        &self.0.name
    }

    /// The rank of the policy: the smaller one wins.
    pub(crate) fn rank(&self) -> (bool, i64, &PolicyName) {
        (!self.0.enforced, -i64::from(self.0.spec.priority), &self.0.name)
    }

    /// Whether its sections take precedence over every policy that is not enforced.
    pub(crate) fn is_enforced(&self) -> bool {
        self.0.enforced
    }

    /// Its `spec.priority`.
    pub(crate) fn priority(&self) -> i32 {
        self.0.spec.priority
    }

    /// The policy's own mode.
    pub(crate) fn mode(&self) -> Mode {
        self.0.spec.mode
    }

    /// Whether the policy selects by labels of Tasks.
    pub(crate) fn selects_task_labels(&self) -> bool {
        self.0.selectors.depends_on_task_labels()
    }

    /// Whether the policy has any section.
    pub(crate) fn has_sections(&self) -> bool {
        self.failure().is_some()
            || self.queue().is_some()
            || self.metadata().is_some()
            || self.cancellation().is_some()
            || self.retry().is_some()
    }

    pub(crate) fn failure(&self) -> Option<(Option<Mode>, &FailurePolicy)> {
        let section = self.0.spec.failure_policy.as_ref()?;
        Some((section.mode, section))
    }

    pub(crate) fn cancellation(&self) -> Option<(Option<Mode>, &CancellationPolicy)> {
        let section = self.0.spec.cancellation_policy.as_ref()?;
        Some((section.mode, section))
    }

    pub(crate) fn retry(&self) -> Option<(Option<Mode>, &RetryPolicy)> {
        let section = self.0.spec.retry.as_ref()?;
        Some((section.mode, section))
    }

    /// Whether a section needs data from the issue source.
    pub(crate) fn follows_sources(&self) -> bool {
        self.failure().is_some_and(|(_, section)| section.reset_on_change)
            || self.cancellation().is_some_and(|(_, section)| section.reacts())
            || self.metadata().is_some_and(|(_, rule)| rule.follows_source())
    }

    /// The template for the identity of items.
    pub(crate) fn item_key(&self) -> Option<&ItemKey> {
        self.0.item_key.as_ref()
    }

    pub(crate) fn metadata(&self) -> Option<(Option<Mode>, &MetadataRule)> {
        let section = self.0.spec.metadata.as_ref()?;
        Some((section.mode, self.0.metadata.as_ref()?))
    }

    pub(crate) fn queue(&self) -> Option<(Option<Mode>, QueueRule<'_>)> {
        let Compiled {
            spec,
            queue,
            priority_class,
            ..
        } = &*self.0;
        let rule = QueueRule {
            queue: Some(queue.as_ref()?),
            priority_class: priority_class.as_ref(),
            on_error: spec.queue_on_error.unwrap_or_default(),
            on_deactivation: spec.queue_on_deactivation.unwrap_or_default(),
        };
        Some((spec.queue_mode, rule))
    }

    /// Whether the policy governs a Task with these attributes.
    pub(crate) fn matches(&self, attributes: &Attributes<'_>) -> bool {
        self.mismatch(attributes).is_none()
    }

    /// Why the policy does not govern a Task with these attributes.
    pub(crate) fn mismatch(&self, attributes: &Attributes<'_>) -> Option<Mismatch> {
        let Compiled { spec, selectors, .. } = &*self.0;
        if spec.mode == Mode::Off {
            return Some(Mismatch::Off);
        }
        selectors.mismatch(&spec.selector, attributes)
    }
}

fn queue_name(
    field: &str,
    templates: &Templates,
    engine: TemplateEngine,
    source: Option<&String>,
    problems: &mut Vec<Problem>,
) -> Option<QueueName> {
    let field = field.to_owned();
    QueueName::compile(templates, engine, source?)
        .map_err(|message| problems.push(Problem { field, message }))
        .ok()
}

/// The durations of `spec` that are too long. The schema checks their form only.
fn overlong_durations(spec: &TaskPolicySpec) -> impl Iterator<Item = Problem> {
    let failure = spec.failure_policy.as_ref();
    let of_failure = failure.and_then(|section| section.backoff.as_ref());
    let of_retry = spec.retry.as_ref().and_then(|section| section.backoff.as_ref());
    let initial = |backoff: &Backoff| backoff.initial;
    let max = |backoff: &Backoff| backoff.max;
    [
        (
            "spec.failurePolicy.resetAfter",
            failure.and_then(|section| section.reset_after),
        ),
        ("spec.failurePolicy.backoff.initial", of_failure.map(initial)),
        ("spec.failurePolicy.backoff.max", of_failure.map(max)),
        ("spec.retry.backoff.initial", of_retry.map(initial)),
        ("spec.retry.backoff.max", of_retry.map(max)),
    ]
    .into_iter()
    .filter(|(_, duration)| duration.is_some_and(Duration::is_too_long))
    .map(|(field, _)| Problem {
        field: field.to_owned(),
        message: InvalidDuration::TooLong.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Policy;

    #[test]
    fn a_duration_that_is_too_long_is_a_problem_of_its_policy() {
        let hours = format!("{}h", "9".repeat(30));
        let backoff = json!({"initial": hours, "max": hours});
        let spec = json!({
            "failurePolicy": {"resetAfter": hours, "backoff": backoff},
            "retry": {"maxAttempts": 2, "backoff": backoff},
        });
        let spec = serde_json::from_value(spec).unwrap();
        let problems = Policy::namespaced("team", "long", &spec).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.failurePolicy.resetAfter",
                "spec.failurePolicy.backoff.initial",
                "spec.failurePolicy.backoff.max",
                "spec.retry.backoff.initial",
                "spec.retry.backoff.max",
            ]
        );
        assert_eq!(problems[0].message, "longer than 2562047h");
        let spec = json!({"failurePolicy": {"resetAfter": "2562047h"}});
        assert!(Policy::namespaced("team", "fits", &serde_json::from_value(spec).unwrap()).is_ok());
    }
}
