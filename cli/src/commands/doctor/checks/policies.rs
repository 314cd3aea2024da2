//! Checks of the policies: namespaces that are excluded, policies without effect or in conflict, and the queues that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};
use taskgate_api::{
    Mode, TaskPolicySpec,
    condition::Condition,
    keys,
    kueue::{self, ConfigRef, LocalQueue, Settings},
};
use taskgate_policy::{PolicyName, is_template};
use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

use super::{find, name_of, namespace_of, own_webhooks, some, text};
use crate::commands::{
    doctor::{
        report::{DoctorCheck, Findings, Level},
        state::ClusterState,
    },
    snapshot::{Collection, CompiledPolicies, CompiledPolicy, ReadError, Snapshot, labels, matches, sample_task},
};

/// The sections of which one policy wins. Those of `metadata` merge.
const SECTIONS: [&str; 4] = ["failurePolicy", "cancellationPolicy", "queueName", "retry"];

/// The policies, and what they select: Tasks, Workloads, and spawners, each of which stands for the Tasks that it creates.
pub(super) struct PolicySelections<'a> {
    policies: &'a CompiledPolicies,
    selections: Vec<Selection<'a>>,
    /// Whether there are more objects than were read.
    partial: bool,
}

/// An object and the policies that select it, strongest first.
struct Selection<'a> {
    namespace: &'a str,
    /// As `TaskSpawner/fixer`.
    object: String,
    policies: Vec<&'a CompiledPolicy>,
}

impl<'a> PolicySelections<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, policies: &'a CompiledPolicies) -> Self {
        let select = |kind: &str, object: &'a Value, task: &Value| {
            let namespace = namespace_of(object);
            let candidates = policies.candidates(namespace, task).into_iter();
            let selecting = candidates.filter(|candidate| candidate.mismatch.is_none());
            let compiled = |name: &PolicyName| policies.all.iter().find(|policy| policy.name == *name);
            Selection {
                namespace,
                object: format!("{kind}/{}", name_of(object)),
                policies: selecting.filter_map(|candidate| compiled(candidate.policy)).collect(),
            }
        };
        let spawners = snapshot.objects(Collection::Spawners).iter().map(|spawner| {
            let sample = sample_task(namespace_of(spawner), name_of(spawner), Some(spawner));
            select("TaskSpawner", spawner, &sample)
        });
        let others = [("Task", Collection::Tasks), ("Workload", Collection::Workloads)].into_iter();
        let others = others.flat_map(|(kind, collection)| {
            let objects = snapshot.objects(collection).iter();
            objects.map(move |object| select(kind, object, object))
        });
        Self {
            selections: spawners.chain(others).collect(),
            policies,
            partial: snapshot.is_partial(Collection::Tasks) || snapshot.is_partial(Collection::Workloads),
        }
    }

    fn selections_of(&self, policy: &CompiledPolicy) -> impl Iterator<Item = &Selection<'a>> {
        let selects = |selection: &&Selection<'_>| selection.policies.iter().any(|own| own.name == policy.name);
        self.selections.iter().filter(selects)
    }
}

impl<'a> Selection<'a> {
    /// The policies with `section`, strongest first.
    fn with_section(&self, section: &str) -> impl Iterator<Item = &'a CompiledPolicy> {
        let policies = self.policies.iter().copied();
        policies.filter(move |policy| !section_of(policy, section).is_null())
    }
}

/// Why the API server sends nothing of a namespace to taskgate.
pub(super) enum Exclusion {
    /// It is a system's, or taskgate's own.
    Always,
    /// By its label.
    Label,
    /// By the namespaceSelector of the webhooks.
    Selector,
}

/// Why the namespace `name` is excluded; `None`: it is not.
pub(super) fn exclusion(state: &ClusterState, name: &str) -> Option<Exclusion> {
    if EXCLUDED_NAMESPACES.contains(&name) || name == state.installation.namespace {
        return Some(Exclusion::Always);
    }
    let namespaces = state.snapshot.objects(Collection::Namespaces);
    let labels = labels(find(namespaces, |namespace| name_of(namespace) == name)?);
    if keys::is_opted_out(&labels) {
        return Some(Exclusion::Label);
    }
    let mut selectors = own_webhooks(state)
        .filter_map(|webhook| serde_json::from_value::<LabelSelector>(webhook["namespaceSelector"].clone()).ok());
    let is_excluded = selectors.any(|selector| !matches(Some(selector), &labels));
    is_excluded.then_some(Exclusion::Selector)
}

/// Namespaces that are excluded although they have policies or governed spawners.
pub(super) fn namespaces(state: &ClusterState, policies: &PolicySelections<'_>, findings: &mut Findings) {
    findings.begin(DoctorCheck::Namespaces);
    let namespaces = match state.snapshot.read(Collection::Namespaces) {
        Ok(namespaces) => namespaces,
        Err(error) => return findings.unreadable("namespaces", error),
    };
    let mut opted_out = Vec::new();
    for namespace in namespaces {
        let name = name_of(namespace);
        let label = labels(namespace).remove(keys::ADMISSION);
        if let Some(value) = label.filter(|value| value != keys::ADMISSION_DISABLED) {
            let (key, disabled) = (keys::ADMISSION, keys::ADMISSION_DISABLED);
            findings.warning(
                format!("namespace {name} has the label {key}={value}, which means nothing"),
                format!("{key}={disabled} excludes a namespace; without the label it is governed"),
            );
        }
        let Some(exclusion) = exclusion(state, name) else {
            continue;
        };
        let own = policies.policies.all.iter();
        let own = own.filter(|policy| policy.namespace() == Some(name));
        let mut affected: Vec<_> = own.map(|policy| policy.name.to_string()).collect();
        let has_own = !affected.is_empty();
        let spawners = policies.selections.iter().filter(|selection| {
            selection.namespace == name
                && !selection.policies.is_empty()
                && selection.object.starts_with("TaskSpawner/")
        });
        for spawner in spawners {
            // It is there already by its own policy fields.
            if !affected.contains(&spawner.object) {
                affected.push(spawner.object.clone());
            }
        }
        let (reason, advice) = match exclusion {
            // The label exempts a namespace from the policies of the cluster.
            Exclusion::Label if !has_own => {
                opted_out.push(name.to_owned());
                continue;
            }
            _ if affected.is_empty() => continue,
            Exclusion::Always => (
                "taskgate never touches it",
                "move them to a namespace of their own".to_owned(),
            ),
            Exclusion::Label => (
                "its label opts it out",
                format!(
                    "remove the label, or the policies: kubectl label namespace {name} {}-",
                    keys::ADMISSION
                ),
            ),
            Exclusion::Selector => (
                "the namespaceSelector of the webhooks excludes it",
                "change the selector, or the labels of the namespace".to_owned(),
            ),
        };
        let message = format!("nothing in namespace {name} is governed, {reason}: {}", some(&affected));
        findings.warning(message, advice);
    }
    if findings.is_clean() {
        let opted_out = match some(&opted_out) {
            names if names.is_empty() => names,
            names => format!("; opted out: {names}"),
        };
        findings.ok(format!("none is excluded by mistake{opted_out}"));
    }
}

/// Policies that are not in force, that select nothing, that another one always overrules, or that only their names order.
pub(super) fn policies(state: &ClusterState, policies: &PolicySelections<'_>, findings: &mut Findings) {
    findings.begin(DoctorCheck::Policies);
    for (what, collection) in [
        ("TaskPolicies", Collection::Policies),
        ("ClusterTaskPolicies", Collection::ClusterPolicies),
    ] {
        let error = state.snapshot.error(collection);
        if let Some(error) = error.filter(|error| **error != ReadError::Absent) {
            return findings.unreadable(what, error);
        }
    }
    let all = &policies.policies.all;
    if all.is_empty() {
        let message = "there is none: nothing is governed";
        return findings.warning(message, "write one: docs/quickstart.md");
    }
    for policy in all {
        acceptance(policy, findings);
    }
    let in_force = || all.iter().filter(|policy| policy.policy.is_ok() && policy.is_on());
    let mut collections = [Collection::Spawners, Collection::Tasks, Collection::Workloads].into_iter();
    // Objects that cannot be read may still be selected.
    if collections.any(|collection| state.snapshot.read(collection).is_ok()) {
        for policy in in_force() {
            selects_nothing(policies, policy, findings);
        }
    }
    for policy in in_force() {
        overruled(policies, policy, findings);
    }
    conflicts(policies, findings);
    if findings.is_clean() {
        let objects = policies.selections.len();
        let selected = policies.selections.iter();
        let selected = selected.filter(|selection| !selection.policies.is_empty()).count();
        findings.ok(format!(
            "{} in force; {selected} of {objects} Tasks, Workloads and spawners are selected",
            all.len()
        ));
    }
}

fn acceptance(policy: &CompiledPolicy, findings: &mut Findings) {
    let title = policy.title();
    let condition = Condition::find(&policy.object, "Accepted");
    if policy.is_spawner() && policy.problem().is_none() {
        return;
    }
    if let Some(problem) = policy.problem() {
        return findings.failure(
            format!("{title} is ignored: {problem}"),
            "correct it: admission denies it while taskgate is available",
        );
    }
    if let Some(condition) = condition.filter(|condition| condition.is_false()) {
        return findings.failure(
            format!("{title}: {}", condition.message()),
            "correct it; if this command finds no problem in it, the pods run another release",
        );
    }
    let generation = &policy.object["metadata"]["generation"];
    let observed = &policy.object["status"]["observedGeneration"];
    if condition.is_none() || (!generation.is_null() && generation != observed) {
        findings.warning(
            format!("{title} has not been reconciled"),
            "this is so a moment after it was written; else see replicas and rights",
        );
    }
}

fn selects_nothing(policies: &PolicySelections<'_>, policy: &CompiledPolicy, findings: &mut Findings) {
    if policies.selections_of(policy).next().is_some() {
        return;
    }
    let title = policy.title();
    let included = |name: &str| {
        let labels = policies.policies.namespaces.get(name);
        policy.includes(name, labels.unwrap_or(&BTreeMap::new()))
    };
    if policy.is_cluster() && !policies.policies.namespaces.keys().any(|name| included(name)) {
        return findings.warning(
            format!("{title} selects no namespace"),
            "compare its namespaceSelector with the labels of the namespaces",
        );
    }
    let objects = policies.selections.iter();
    let count = objects.filter(|selection| included(selection.namespace)).count();
    // Without any object yet it may be written for later ones.
    if count > 0 || policies.partial {
        let read = if policies.partial { "that were read " } else { "" };
        findings.warning(
            format!("{title} selects none of the {count} Tasks, Workloads and spawners {read}in its namespaces"),
            "check its selector: spawnerNames, spawnerSelector, taskSelector, taskTypes",
        );
    }
}

/// A policy that selects objects, and whose every section another one overrules for all of them.
fn overruled(policies: &PolicySelections<'_>, policy: &CompiledPolicy, findings: &mut Findings) {
    let has_metadata = policy.spec.as_ref().is_none_or(|spec| spec.metadata.is_some());
    if has_metadata || policies.selections_of(policy).next().is_none() {
        return;
    }
    let mut own = SECTIONS.to_vec();
    own.retain(|section| !section_of(policy, section).is_null());
    let title = policy.title();
    if own.is_empty() {
        let message = format!("{title} has no section: it does nothing");
        return findings.warning(message, "give it one: docs/reference.md");
    }
    let (mut winners, mut enforced) = (BTreeSet::new(), false);
    for selection in policies.selections_of(policy) {
        for section in &own {
            let winner = selection.with_section(section).next();
            let Some(winner) = winner.filter(|winner| winner.name != policy.name) else {
                return;
            };
            enforced |= winner.enforced;
            winners.insert(winner.name.to_string());
        }
    }
    let winners: Vec<_> = winners.into_iter().collect();
    let advice = if enforced {
        "only its stricter limits apply, as the other one is enforced: docs/policies.md"
    } else {
        "give it a higher priority or narrow the other one: docs/policies.md"
    };
    let message = format!("{title} has no effect: {} overrules it everywhere", some(&winners));
    findings.warning(message, advice);
}

/// Pairs of policies of one kind and priority with different sections for the same Tasks: only their names order them.
fn conflicts(policies: &PolicySelections<'_>, findings: &mut Findings) {
    let mut pairs: BTreeMap<(&PolicyName, &PolicyName, &str), Vec<String>> = BTreeMap::new();
    for selection in &policies.selections {
        for section in SECTIONS {
            let mut with = selection.with_section(section);
            let (Some(first), Some(second)) = (with.next(), with.next()) else {
                continue;
            };
            let rank = |policy: &CompiledPolicy| {
                let priority = policy.spec.as_ref().map(|spec| spec.priority);
                (policy.is_cluster(), policy.is_spawner(), policy.enforced, priority)
            };
            if rank(first) == rank(second) && section_of(first, section) != section_of(second, section) {
                let object = format!("{}/{}", selection.namespace, selection.object);
                let pair = (&first.name, &second.name, section);
                pairs.entry(pair).or_default().push(object);
            }
        }
    }
    for ((winner, loser, section), objects) in pairs {
        let objects = some(&objects);
        findings.warning(
            format!("{winner} and {loser} disagree on {section} of {objects}; {winner} wins by its name alone"),
            "give one of them a higher priority",
        );
    }
}

/// A section of a policy; null where it has none.
fn section_of(policy: &CompiledPolicy, section: &str) -> Value {
    let Some(spec) = &policy.spec else {
        return Value::Null;
    };
    match section {
        "failurePolicy" => json!(spec.failure_policy),
        "cancellationPolicy" => json!(spec.cancellation_policy),
        "retry" => json!(spec.retry),
        _ if spec.queue_name.is_none() => Value::Null,
        _ => json!([
            spec.queue_name,
            spec.queue_priority_class,
            spec.queue_on_error,
            spec.queue_on_deactivation
        ]),
    }
}

/// The queues that policies name.
pub(super) fn queues(state: &ClusterState, policies: &PolicySelections<'_>, findings: &mut Findings) {
    findings.begin(DoctorCheck::Queues);
    let queueing = policies.policies.all.iter().filter_map(|policy| {
        let spec = policy.spec.as_ref().filter(|_| policy.is_on())?;
        let mode = spec.queue_mode.unwrap_or(spec.mode);
        let queue = literal(spec.queue_name.as_deref()).filter(|_| mode != Mode::Off)?;
        Some((policy, spec, mode, queue))
    });
    let queueing: Vec<_> = queueing.collect();
    if queueing.is_empty() {
        return;
    }
    let groups = state.groups.as_ref();
    if groups.is_ok_and(|groups| !groups.contains_key(kueue::GROUP)) {
        let names: Vec<_> = queueing.iter().map(|(policy, ..)| policy.title()).collect();
        let message = format!(
            "{} names a queue, and Kueue is not installed: Jobs stay suspended",
            some(&names)
        );
        return findings.failure(message, "install Kueue, or remove queueName");
    }
    let queues = match state.snapshot.read(Collection::LocalQueues) {
        Ok(queues) => queues,
        Err(error) => return findings.unreadable("LocalQueues", error),
    };
    let kueue = KueueState {
        queues,
        settings: settings(state, findings),
        classes: state.snapshot.read(Collection::PriorityClasses).ok(),
    };
    let mut good = BTreeSet::new();
    for (policy, spec, mode, queue) in queueing {
        let own = policy.namespace();
        let selected = policies.selections_of(policy).map(|selection| selection.namespace);
        for namespace in selected.chain(own).collect::<BTreeSet<_>>() {
            let labels = policies.policies.namespaces.get(namespace);
            let before = findings.len();
            // A policy that is not enforced delays no Job.
            let level = if mode == Mode::Enforce {
                Level::Failure
            } else {
                Level::Warning
            };
            kueue.check(&policy.title(), spec, level, (namespace, labels, queue), findings);
            if findings.len() == before {
                good.insert(format!("{namespace}/{queue}"));
            }
        }
    }
    if findings.is_clean() && !good.is_empty() {
        let good: Vec<_> = good.into_iter().collect();
        findings.ok(format!("{} admits Jobs", some(&good)));
    }
}

/// A name that is no template.
fn literal(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !is_template(name)).map(str::trim)
}

/// Kueue's settings. Those that cannot be read are a finding: the server queues no Job then.
fn settings(state: &ClusterState, findings: &mut Findings) -> Settings {
    let namespace = &state.installation.serve.kueue_config.namespace;
    let map = state.snapshot.one(Collection::KueueConfig).ok();
    let text = map.and_then(|map| map["data"][ConfigRef::KEY].as_str());
    let default = || Settings::of_namespace(namespace);
    text.map_or_else(default, |text| {
        Settings::read(namespace, text).unwrap_or_else(|error| {
            findings.warning(
                format!("Kueue's configuration cannot be read: {error}: no Job is queued"),
                format!(
                    "correct {} in ConfigMap {}",
                    ConfigRef::KEY,
                    state.installation.serve.kueue_config
                ),
            );
            default()
        })
    })
}

/// Kueue's objects.
struct KueueState<'a> {
    queues: &'a [Arc<Value>],
    settings: Settings,
    /// `None` where they cannot be read.
    classes: Option<&'a [Arc<Value>]>,
}

impl KueueState<'_> {
    /// Checks the queue and the priority class that the policy `title` names, in one namespace.
    fn check(
        &self,
        title: &str,
        spec: &TaskPolicySpec,
        level: Level,
        (namespace, labels, name): (&str, Option<&BTreeMap<String, String>>, &str),
        findings: &mut Findings,
    ) {
        if labels.is_some_and(|labels| !self.settings.manages(labels)) {
            let message = format!("Kueue does not manage namespace {namespace}, for which {title} names a queue");
            let advice = "change managedJobsNamespaceSelector of Kueue's configuration, or the labels of the namespace";
            return findings.add(level, message, advice);
        }
        let what = format!("LocalQueue {namespace}/{name}, which {title} names,");
        let found = find(self.queues, |queue| {
            (namespace_of(queue), name_of(queue)) == (namespace, name)
        });
        match found.map(|found| (found, LocalQueue::of(found))) {
            None => {
                let message = format!("{what} does not exist: Jobs stay suspended");
                let advice = "create it, or correct queueName";
                findings.add(level, message, advice);
            }
            Some((_, queue)) if queue.is_held() => findings.warning(
                format!("{what} is stopped by its stopPolicy"),
                "nothing, if that is intended; else set stopPolicy to None",
            ),
            Some((found, queue)) => {
                if let Some(active) = queue.active().filter(|active| !active.is_true()) {
                    let message = format!("{what} is not active: {}", active.message());
                    let advice = format!("see ClusterQueue {}", text(found, "/spec/clusterQueue"));
                    findings.add(level, message, advice);
                }
            }
        }
        let class = literal(spec.queue_priority_class.as_deref());
        if let (Some(class), Some(classes)) = (class, self.classes)
            && find(classes, |found| name_of(found) == class).is_none()
        {
            findings.warning(
                format!("WorkloadPriorityClass {class}, which {title} names, does not exist"),
                "create it, or correct queuePriorityClass",
            );
        }
    }
}
