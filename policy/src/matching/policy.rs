//! A compiled policy: checked once when it is read, then used without further checks.

use std::{fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize as _;
use serde_json::Value;
use taskgate_api::{
    ClusterTaskPolicySpec, Duration, InvalidDuration, Mode, Selector, SelectorExt as _, TaskPolicySpec,
    task_policy::{
        Backoff, CancellationPolicy, FailurePolicy, QueueOnDeactivation, QueueOnError, RetryPolicy, TaskSelector,
        TemplateEngine,
    },
};

use super::{SectionMatch, Sections, metadata_rule::MetadataRule, sections::Attributes};
use crate::{
    kubernetes::{Problem, Problems, clip},
    template::{Moment, Rendering, Roots, Templates, Text, Tried},
};

/// A policy that is valid and compiled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: PolicyName,
    enforced: bool,
    spec: TaskPolicySpec,
    selectors: Selectors,
    item_key: Option<Text>,
    queue: Option<QueueName>,
    priority_class: Option<QueueName>,
    metadata: Option<MetadataRule>,
    doubts: Vec<Problem>,
}

/// Which object a policy is. Orders by precedence among equals: a TaskSpawner, a `TaskPolicy`, a `ClusterTaskPolicy`, then by
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// The policy fields of a TaskSpawner, which govern its own Tasks.
    Spawner {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
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

impl PolicyName {
    /// The namespace whose objects the policy governs; `None` for a `ClusterTaskPolicy`.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Spawner { namespace, .. } | Self::Namespaced { namespace, .. } => Some(namespace),
            Self::Cluster { .. } => None,
        }
    }

    /// The kind and the name of the object with its namespace, such as `TaskPolicy team/agents`.
    pub fn title(&self) -> String {
        match self {
            Self::Spawner { namespace, name } => format!("TaskSpawner {namespace}/{name}"),
            Self::Namespaced { namespace, name } => format!("TaskPolicy {namespace}/{name}"),
            Self::Cluster { name } => format!("ClusterTaskPolicy {name}"),
        }
    }

    /// What there may be [`MAX_POLICIES`](super::MAX_POLICIES) of, in words. A TaskSpawner is not limited by it.
    pub fn group(&self) -> String {
        match self {
            Self::Spawner { namespace, .. } => format!("TaskSpawners in namespace {namespace}"),
            Self::Namespaced { namespace, .. } => format!("TaskPolicies in namespace {namespace}"),
            Self::Cluster { .. } => "ClusterTaskPolicies".to_owned(),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawner { name, .. } => write!(f, "TaskSpawner/{name}"),
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

impl QueueRule<'_> {
    /// Whether a Job whose queue has no legal name stays suspended. Never under a policy without a queue, whose author did not ask for
    /// that.
    pub(crate) fn suspends_on_error(&self) -> bool {
        self.queue.is_some() && self.on_error == QueueOnError::Suspend
    }
}

impl Policy {
    /// Compiles a `TaskPolicy`. Errors with every problem found, not only the first.
    pub fn namespaced(namespace: &str, name: &str, spec: &TaskPolicySpec) -> Result<Self, Vec<Problem>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self::compile(PolicyName::Namespaced { namespace, name }, spec, false, None)
    }

    /// Compiles a `ClusterTaskPolicy`. Errors with every problem found, not only the first.
    pub fn cluster(name: &str, spec: &ClusterTaskPolicySpec) -> Result<Self, Vec<Problem>> {
        let name = PolicyName::Cluster { name: name.to_owned() };
        Self::compile(name, &spec.policy, spec.enforced, spec.namespace_selector.as_ref())
    }

    /// Compiles the policy fields `spec` of the object `name`. Errors with every problem found.
    pub(super) fn of_fields(name: PolicyName, spec: &TaskPolicySpec) -> Result<Self, Vec<Problem>> {
        Self::compile(name, spec, false, None)
    }

    /// Compiles the stored policy `name`, a `TaskPolicy` or a `ClusterTaskPolicy`, whose spec is `spec`. Errors with every problem
    /// found; one of them may be that the spec cannot be read.
    pub fn of_spec(name: PolicyName, spec: &Value) -> Result<Self, Vec<Problem>> {
        let unreadable = |error: serde_json::Error| {
            vec![Problem {
                field: "spec".to_owned(),
                message: clip(&error.to_string(), 160),
            }]
        };
        match name {
            PolicyName::Spawner { .. } | PolicyName::Namespaced { .. } => {
                let spec = TaskPolicySpec::deserialize(spec).map_err(unreadable)?;
                Self::compile(name, &spec, false, None)
            }
            PolicyName::Cluster { name } => {
                let spec = ClusterTaskPolicySpec::deserialize(spec).map_err(unreadable)?;
                Self::cluster(&name, &spec)
            }
        }
    }

    fn compile(
        name: PolicyName,
        spec: &TaskPolicySpec,
        enforced: bool,
        namespaces: Option<&LabelSelector>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let selectors = Selectors::compile(namespaces, &spec.selector, &mut problems);
        let templates = match Templates::of(spec) {
            Ok(templates) => templates,
            Err(problem) => {
                problems.errors.push(problem);
                return Err(problems.errors);
            }
        };
        let metadata = spec.metadata.as_ref();
        let engine = metadata.and_then(|section| section.engine).unwrap_or_default();
        let mut queue_name = |field, source: &Option<String>| {
            let compiled = QueueName::compile(&templates, engine, source.as_ref()?);
            let (name, doubt) = problems.check(field, compiled)?;
            if let Some(doubt) = doubt {
                problems.doubt(field, doubt);
            }
            Some(name)
        };
        let queue = queue_name("spec.queueName", &spec.queue_name);
        let priority_class = queue_name("spec.queuePriorityClass", &spec.queue_priority_class);
        if spec.queue_name.is_none() && spec.queue_priority_class.is_some() {
            problems.add("spec.queuePriorityClass", "needs queueName");
        }
        let metadata = metadata.map(|section| MetadataRule::compile(section, &templates, &mut problems));
        let item_key = spec.failure_policy.as_ref().and_then(|section| {
            let text = templates.text(TemplateEngine::Tera, section.item_key.as_ref()?, Roots::ItemKey);
            problems.check("spec.failurePolicy.itemKey", text)
        });
        overlong_durations(spec, &mut problems);
        if !problems.errors.is_empty() {
            return Err(problems.errors);
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
            doubts: problems.doubts,
        })))
    }

    /// The templates that give nothing for a realistic sample: they may suit the author's Tasks nevertheless.
    pub fn doubts(&self) -> &[Problem] {
        &self.0.doubts
    }

    /// Which object the policy is.
    pub fn name(&self) -> &PolicyName {
        &self.0.name
    }

    /// The rank of the policy among those of its kind and of the other kind of policy: the smaller one wins.
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

    /// Whether the policy selects by labels of Tasks.
    pub(crate) fn selects_task_labels(&self) -> bool {
        self.0.selectors.tasks.is_some()
    }

    /// The section `rule` of the policy, whose own mode is `mode`.
    pub(super) fn section<T>(&self, mode: Option<Mode>, rule: T) -> SectionMatch<'_, T> {
        SectionMatch {
            policy: self,
            mode: mode.unwrap_or(self.0.spec.mode),
            rule,
            further: None,
        }
    }

    pub(crate) fn failure(&self) -> Option<SectionMatch<'_, &FailurePolicy>> {
        let section = self.0.spec.failure_policy.as_ref()?;
        Some(self.section(section.mode, section))
    }

    pub(crate) fn cancellation(&self) -> Option<SectionMatch<'_, &CancellationPolicy>> {
        let section = self.0.spec.cancellation_policy.as_ref()?;
        Some(self.section(section.mode, section))
    }

    pub(crate) fn retry(&self) -> Option<SectionMatch<'_, &RetryPolicy>> {
        let section = self.0.spec.retry.as_ref()?;
        Some(self.section(section.mode, section))
    }

    pub(crate) fn metadata(&self) -> Option<SectionMatch<'_, &MetadataRule>> {
        let section = self.0.spec.metadata.as_ref()?;
        Some(self.section(section.mode, self.0.metadata.as_ref()?))
    }

    pub(crate) fn queue(&self) -> Option<SectionMatch<'_, QueueRule<'_>>> {
        let spec = &self.0.spec;
        let rule = QueueRule {
            queue: Some(self.0.queue.as_ref()?),
            priority_class: self.0.priority_class.as_ref(),
            on_error: spec.queue_on_error.unwrap_or_default(),
            on_deactivation: spec.queue_on_deactivation.unwrap_or_default(),
        };
        Some(self.section(spec.queue_mode, rule))
    }

    /// All sections of the policy.
    pub(crate) fn sections(&self) -> Sections<'_> {
        Sections {
            any: None,
            failure: self.failure(),
            queue: self.queue(),
            metadata: self.metadata().into_iter().collect(),
            cancellation: self.cancellation(),
            retry: self.retry(),
        }
    }

    /// Whether a section needs data from the issue source.
    pub(crate) fn follows_sources(&self) -> bool {
        self.failure().is_some_and(|section| section.rule.reset_on_change)
            || self.cancellation().is_some_and(|section| section.rule.reacts())
            || self.metadata().is_some_and(|section| section.rule.follows_source())
    }

    /// The template for the identity of items (`failurePolicy.itemKey`): one WorkItem for what Kelos names anew each time, such as
    /// cron ticks and webhook deliveries.
    pub(crate) fn item_key(&self) -> Option<&Text> {
        self.0.item_key.as_ref()
    }

    /// Why the policy does not govern a Task with these attributes; `None` when it does.
    pub(crate) fn mismatch(&self, attributes: &Attributes<'_>) -> Option<Mismatch> {
        let Compiled { spec, selectors, .. } = &*self.0;
        if spec.mode == Mode::Off {
            return Some(Mismatch::Off);
        }
        selectors.mismatch(&spec.selector, attributes)
    }
}

/// Reports the durations of `spec` that are too long. The schema checks their form only.
fn overlong_durations(spec: &TaskPolicySpec, problems: &mut Problems) {
    let mut check = |field: &str, duration: Duration| {
        if duration.is_too_long() {
            problems.add(field, InvalidDuration::TooLong.to_string());
        }
    };
    let failure = spec.failure_policy.as_ref();
    if let Some(reset_after) = failure.and_then(|section| section.reset_after) {
        check("spec.failurePolicy.resetAfter", reset_after);
    }
    let of_failure = failure.and_then(|section| section.backoff.as_ref());
    let of_retry = spec.retry.as_ref().and_then(|section| section.backoff.as_ref());
    for (section, backoff) in [("failurePolicy", of_failure), ("retry", of_retry)] {
        if let Some(Backoff { initial, max, .. }) = backoff {
            check(&format!("spec.{section}.backoff.initial"), *initial);
            check(&format!("spec.{section}.backoff.max"), *max);
        }
    }
}

/// Why a policy does not govern a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Its mode is `Off`.
    #[error("its mode is Off")]
    Off,
    /// `selector.spawnerNames` does not have the Task's spawner.
    #[error("its selector.spawnerNames does not have the spawner")]
    SpawnerName,
    /// `selector.taskTypes` does not have its agent's type.
    #[error("its selector.taskTypes does not have the agent's type")]
    TaskType,
    /// `namespaceSelector` leaves its namespace out.
    #[error("its namespaceSelector leaves the namespace out")]
    Namespace,
    /// `selector.spawnerSelector` leaves its spawner out, or there is none.
    #[error("its selector.spawnerSelector leaves the spawner out")]
    SpawnerLabels,
    /// `selector.taskSelector` leaves it out.
    #[error("its selector.taskSelector leaves it out")]
    TaskLabels,
}

/// The selectors of a policy that are more than lists of names.
#[derive(Debug)]
struct Selectors {
    namespaces: Selector,
    spawners: Option<Selector>,
    tasks: Option<Selector>,
}

impl Selectors {
    /// Compiles the selectors; errors go to `problems`.
    fn compile(namespaces: Option<&LabelSelector>, of: &TaskSelector, problems: &mut Problems) -> Self {
        let mut compile =
            |field: &str, source: Option<&LabelSelector>| problems.check(field, Selector::try_from(source?.clone()));
        Self {
            namespaces: compile("spec.namespaceSelector", namespaces).unwrap_or_default(),
            spawners: compile("spec.selector.spawnerSelector", of.spawner_selector.as_ref()),
            tasks: compile("spec.selector.taskSelector", of.task_selector.as_ref()),
        }
    }

    /// Why the selectors do not match these attributes. The cheapest comparisons come first.
    fn mismatch(&self, of: &TaskSelector, attributes: &Attributes<'_>) -> Option<Mismatch> {
        let named = |names: &[String], value: Option<&str>| {
            names.is_empty() || value.is_some_and(|value| names.iter().any(|name| name == value))
        };
        let selects_spawner =
            |selector: &Selector| attributes.spawner_labels.is_some_and(|labels| selector.matches(labels));
        let selects_task = |selector: &Selector| selector.matches(&attributes.labels);
        if !named(&of.spawner_names, attributes.spawner) {
            Some(Mismatch::SpawnerName)
        } else if !named(&of.task_types, attributes.agent_type) {
            Some(Mismatch::TaskType)
        } else if !(self.namespaces.selects_all() || self.namespaces.matches(attributes.namespace_labels)) {
            Some(Mismatch::Namespace)
        } else if !self.spawners.as_ref().is_none_or(selects_spawner) {
            Some(Mismatch::SpawnerLabels)
        } else if !self.tasks.as_ref().is_none_or(selects_task) {
            Some(Mismatch::TaskLabels)
        } else {
            None
        }
    }
}

/// The longest name. Kueue's objects may have longer ones, but a Job names them by label, and a label value ends here.
const MAX_NAME: usize = 63;

/// The name of a queue or a priority class: as it is written, or as a template gives it for a Task.
#[derive(Debug)]
pub(crate) struct QueueName(Text);

impl QueueName {
    /// Reads `source`, one of `templates`, whose language is `engine`. Errors with what is wrong with it, in one line.
    ///
    /// With it comes why it gives nothing for a sample, if so.
    fn compile(templates: &Templates, engine: TemplateEngine, source: &str) -> Result<(Self, Option<String>), String> {
        let Tried { text, doubt } = templates.tried(engine, source, Text::MAX_NAME, Moment::Job)?;
        if let Text::Literal(name) = &text {
            legal_queue_name(name)?;
        }
        Ok((Self(text), doubt))
    }

    /// The name, a legal one. Errors with why there is none, in one line.
    pub(crate) fn render(&self, rendering: &mut Rendering<'_>) -> Result<String, String> {
        let name = rendering.name(&self.0)?;
        legal_queue_name(&name).map(|()| name)
    }
}

/// Whether `name` may be the name of a queue or a priority class. Kueue refuses a Job with any other (kueue §2), and a
/// Job that is refused keeps Kelos' branch lock.
pub(crate) fn legal_queue_name(name: &str) -> Result<(), String> {
    if taskgate_api::is_object_name(name) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a DNS-1123 subdomain of at most {MAX_NAME} characters, which Kueue demands",
        clip(name, 64)
    ))
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

#[cfg(test)]
mod queue_name_tests {
    use taskgate_api::{TaskPolicySpec, task_policy::MetadataPolicy};

    use super::*;

    #[test]
    fn names_are_checked_when_they_are_read() {
        let compile = |engine, source: &str| {
            let section = MetadataPolicy {
                engine: Some(engine),
                ..MetadataPolicy::default()
            };
            let spec = TaskPolicySpec {
                queue_name: Some(source.to_owned()),
                metadata: Some(section),
                ..TaskPolicySpec::default()
            };
            QueueName::compile(&Templates::of(&spec).unwrap(), engine, source)
        };
        let (tera, go) = (TemplateEngine::Tera, TemplateEngine::GoTemplate);
        for good in ["agents", "a.b-c", "7", &"q".repeat(63)] {
            for engine in [tera, go] {
                let name = compile(engine, good).unwrap();
                assert!(matches!(&name.0.0, Text::Literal(name) if name == good));
            }
        }
        for (engine, bad, part) in [
            (tera, "", "not a DNS-1123 subdomain"),
            (tera, "two words", "not a DNS-1123 subdomain"),
            (tera, "Agents", "not a DNS-1123 subdomain"),
            (go, "-a", "not a DNS-1123 subdomain"),
            (go, &"q".repeat(64), "at most 63 characters"),
            (tera, &"q".repeat(300), "at most 63 characters"),
            (tera, "{{ open", "line 1, column"),
            (
                tera,
                "a-\n{{ task.spec.model | nope }}",
                "line 2, column 22: the filter nope is not supported",
            ),
            (tera, "{{ nothing }}", "nothing is not known"),
            (tera, "{{ user }}", "is not defined"),
            (tera, "{{ item.title }}", "is not defined"),
            (tera, "{{.task.spec.model}}", "line 1, column"),
            (go, "{{ .open", "line 1"),
            (go, "{{.user}}", "user"),
            (go, "{{.Title}}", "Title"),
        ] {
            let error = compile(engine, bad).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{bad}: {error}");
        }
    }
}

#[cfg(test)]
mod item_key_tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use taskgate_api::TaskPolicySpec;

    use super::*;
    use crate::{
        issue_source::SpawnerInfo,
        kubernetes::Edit,
        template::{Budget, Sees, TemplateInput},
    };

    fn compile(template: &str) -> Result<Policy, String> {
        let spec = json!({"failurePolicy": {"itemKey": template}});
        let spec: TaskPolicySpec = serde_json::from_value(spec).unwrap();
        Policy::namespaced("team", "p", &spec).map_err(|problems| problems[0].message.clone())
    }

    fn render(template: &str) -> Result<String, String> {
        let task = json!({
            "metadata": {"name": "nightly-20261121-0300", "labels": {"kelos.dev/taskspawner": "nightly"},
                "annotations": {"issue": "7"}},
            "spec": {"model": "x".repeat(5_000)},
        });
        let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let spawner = SpawnerInfo {
            labels: labels.clone(),
            ..SpawnerInfo::default()
        };
        let input = TemplateInput {
            object: &task,
            namespace: "agents",
            namespace_labels: &labels,
            spawner: Some(&spawner),
            workspace: None,
            user: None,
            source_fields: None,
        };
        let planned = [Edit::Label("size".into(), "xl".into())];
        let mut rendering = Rendering::new(input, Sees::Planned(&planned), Budget::default());
        rendering.name(compile(template)?.item_key().unwrap())
    }

    #[test]
    fn the_inputs_of_a_template() {
        for (template, expected) in [
            ("{{ spawner.metadata.name }}", "nightly"),
            ("{{ task.metadata.annotations.issue }}", "7"),
            (
                "{{ task.metadata.annotations[\"issue\"] }}/{{ namespace.metadata.name }}",
                "7/agents",
            ),
            ("{{ spawner.metadata.labels.team | upper }}", "BLUE"),
            ("{% if task.metadata.labels.size == \"xl\" %}large{% endif %}", "large"),
            (" literal ", "literal"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_refused_template_has_a_reason() {
        for (template, part) in [
            ("{% for i in range(end=9) %}x{% endfor %}", "{% for %} is not supported"),
            ("{{ unknown }}", "unknown is not known"),
            ("{{ item.id }}", "item is not known; there are task, spawner, namespace"),
            ("{{ task.", ""),
            ("{{ task.metadata.annotations.missing }}", ""),
            ("  ", "gives nothing"),
            ("{{ task.spec.model }}", "longer than 1024 bytes"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{template}: {error}");
        }
    }

    /// Nine such filters asked for more memory than there is, in the controller of every new leader.
    #[test]
    fn a_key_that_would_fill_the_memory_is_left_out() {
        let grow = "| replace(from='a', to='aaaaaaaaaa')".repeat(9);
        let error = render(&format!("{{{{ 'aaaaaaaaaa' {grow} }}}}")).unwrap_err();
        assert!(error.contains("larger than a template may make it"), "{error}");
    }
}
