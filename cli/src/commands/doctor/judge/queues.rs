//! The queues that policies name: whether they are there, and work.

use std::collections::BTreeSet;

use serde_json::Value;
use taskgate_api::{
    Mode,
    condition::Condition,
    kueue::{self, ConfigRef, LocalQueue, Settings},
};

use super::{
    name_of, namespace_of,
    reach::{Reach, Written},
    text, unseen,
};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding, Level},
};

pub(super) fn check(facts: &Facts, reach: &Reach<'_>) -> Vec<Finding> {
    let queueing: Vec<_> = reach
        .written
        .iter()
        .filter(|written| mode(written) != Mode::Off)
        .collect();
    if queueing.is_empty() {
        return Vec::new();
    }
    if facts
        .groups
        .as_ref()
        .is_ok_and(|groups| !groups.contains_key(kueue::GROUP))
    {
        let names: Vec<_> = queueing.iter().map(|written| written.title()).collect();
        return vec![Finding::failure(
            Check::Queues,
            format!(
                "{} names a queue, and Kueue is not installed: Jobs stay suspended",
                super::some(&names)
            ),
            "install Kueue, or take queueName out",
        )];
    }
    let queues = match &facts.kueue.queues {
        Ok(queues) => queues,
        Err(refused) => return vec![unseen(Check::Queues, "LocalQueues", refused)],
    };
    let settings = settings(facts);
    let mut findings = Vec::new();
    let mut good = BTreeSet::new();
    for written in queueing {
        for namespace in places(reach, written) {
            let found = problem(facts, reach, written, namespace, queues, &settings);
            if found.is_empty() {
                good.insert(format!("{namespace}/{}", queue(written).unwrap_or_default()));
            }
            findings.extend(found);
        }
    }
    if findings.is_empty() && !good.is_empty() {
        let good: Vec<_> = good.into_iter().collect();
        findings.push(Finding::ok(
            Check::Queues,
            format!("{} admits Jobs", super::some(&good)),
        ));
    }
    findings
}

/// How far the queue section of a policy may go; `Off` where there is none, or its name is made by a template.
fn mode(written: &Written<'_>) -> Mode {
    match &written.spec {
        Some(spec) if written.is_on() && queue(written).is_some() => spec.queue_mode.unwrap_or(spec.mode),
        _ => Mode::Off,
    }
}

fn queue<'a>(written: &'a Written<'_>) -> Option<&'a str> {
    let spec = written.spec.as_ref()?;
    spec.queue_name.as_deref().filter(|name| !name.contains("{{"))
}

/// The namespaces in which a policy selects something; its own in any case.
fn places<'a>(reach: &'a Reach<'_>, written: &'a Written<'_>) -> BTreeSet<&'a str> {
    let selected = reach.selected.iter().filter(|found| found.by.contains(&written.name));
    let own = match &written.name {
        taskgate_policy::PolicyName::Namespaced { namespace, .. } => Some(namespace.as_str()),
        taskgate_policy::PolicyName::Cluster { .. } => None,
    };
    selected.map(|found| found.namespace).chain(own).collect()
}

fn settings(facts: &Facts) -> Settings {
    let ConfigRef { namespace, .. } = &facts.installation.kueue;
    let text = facts
        .kueue
        .config
        .as_ref()
        .ok()
        .and_then(|map| map["data"][ConfigRef::KEY].as_str());
    let read = text.and_then(|text| Settings::read(namespace, text).ok());
    read.unwrap_or_else(|| Settings::of_namespace(namespace))
}

fn problem(
    facts: &Facts,
    reach: &Reach<'_>,
    written: &Written<'_>,
    namespace: &str,
    queues: &[Value],
    settings: &Settings,
) -> Vec<Finding> {
    let (title, name) = (written.title(), queue(written).unwrap_or_default());
    let what = format!("LocalQueue {namespace}/{name}, which {title} names,");
    // A policy that only tells what it would do holds up no Job.
    let level = if mode(written) == Mode::Enforce {
        Level::Failure
    } else {
        Level::Warning
    };
    let bad = |message: String, advice: &str| Finding::bad(level, Check::Queues, message, advice);
    let mut findings = Vec::new();
    let labels = reach.namespaces.get(namespace);
    if labels.is_some_and(|labels| !settings.manages(labels)) {
        findings.push(bad(
            format!("Kueue does not look after namespace {namespace}, for which {title} names a queue"),
            "change managedJobsNamespaceSelector of Kueue's configuration, or the labels of the namespace",
        ));
        return findings;
    }
    let found = queues
        .iter()
        .find(|queue| (namespace_of(queue), name_of(queue)) == (namespace, name));
    match found.map(|found| (LocalQueue::of(found), found)) {
        None => findings.push(bad(
            format!("{what} does not exist: Jobs stay suspended"),
            "make it, or correct queueName",
        )),
        Some((queue, _)) if queue.is_held() => findings.push(Finding::warning(
            Check::Queues,
            format!("{what} is stopped by its stopPolicy"),
            "nothing, if it is meant; else set stopPolicy to None",
        )),
        Some((queue, found)) => {
            let inactive = queue.active().filter(|active: &Condition<'_>| !active.is_true());
            if let Some(active) = inactive {
                findings.push(bad(
                    format!("{what} is not active: {}", active.message()),
                    &format!("look at ClusterQueue {}", text(found, "/spec/clusterQueue")),
                ));
            }
        }
    }
    findings.extend(class(facts, written, &title));
    findings
}

/// Whether the priority class is there.
fn class(facts: &Facts, written: &Written<'_>, title: &str) -> Option<Finding> {
    let class = written
        .spec
        .as_ref()?
        .queue_priority_class
        .as_deref()
        .filter(|name| !name.contains("{{"))?;
    let classes = match &facts.kueue.classes {
        Ok(classes) => classes,
        Err(Unseen::Absent | Unseen::Refused(_)) => return None,
    };
    let there = classes.iter().any(|found| name_of(found) == class);
    (!there).then(|| {
        Finding::warning(
            Check::Queues,
            format!("WorkloadPriorityClass {class}, which {title} names, does not exist"),
            "make it, or correct queuePriorityClass",
        )
    })
}
