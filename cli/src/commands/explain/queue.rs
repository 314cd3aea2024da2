//! Where a Task's Job stands in its queue, in the words that its condition keeps: Kueue's own, or the trap that Kueue is silent
//! about.

use serde_json::Value;
use taskgate_api::{
    condition::{Condition, QUEUED},
    job::Job,
    kueue::Workload,
    metadata::Metadata,
};

use super::{command::command, scene::Scene, story::Line, waits::MAY_CANCEL};
use crate::commands::snapshot::Kind;

/// How many Jobs are named that run from the same queue.
const NAMED: usize = 5;
const MAY_PATCH_QUEUES: &str = "patch on localqueues.kueue.x-k8s.io";

/// Whether Kueue has not taken notice of the Task's Job.
pub(super) fn is_unnoticed(task: &Value) -> bool {
    Condition::find(task, QUEUED).is_some_and(|queued| queued.is_true() && queued.reason() == "NotNoticed")
}

/// What a Task waits for whose Job is in a queue.
pub(super) fn waiting(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    let Some(condition) = Condition::find(task, QUEUED) else {
        return Vec::new();
    };
    let job = scene.job_of(task);
    let queue = job.and_then(|job| Job::of(job).queue());
    let place = queue.map_or_else(|| "for its turn".to_owned(), |queue| format!("in LocalQueue {queue}"));
    let line = Line::waits(format!("{place}: {}: {}", condition.reason(), condition.message()));
    let mut lines = vec![helped(scene, task, condition.reason(), line)];
    lines.extend(scene.kueue.culprit());
    lines
}

/// What keeps a Job from running although it does not wait: Kueue has put it aside.
pub(super) fn stuck(scene: &Scene<'_>, task: &Value) -> Option<Line> {
    let condition = Condition::find(task, QUEUED).filter(|condition| condition.is_false())?;
    let aside = matches!(condition.reason(), "Deactivated" | "CannotStart");
    let line = || Line::waits(format!("as Kueue put its Job aside: {}", condition.message()));
    aside.then(|| helped(scene, task, condition.reason(), line()))
}

/// `line`, with what helps against `reason`.
fn helped(scene: &Scene<'_>, task: &Value, reason: &str, line: Line) -> Line {
    let namespace = scene.namespace;
    let name = Metadata::of(task).name().unwrap_or_default();
    let job = scene.job_of(task);
    let queue = job.and_then(|job| Job::of(job).queue()).unwrap_or("?");
    let kubectl = |words: &[&str]| command(["kubectl", "-n", namespace].iter().chain(words).copied());
    let cancel = || command(["taskgate", "cancel", name, "-n", namespace]);
    match reason {
        "KueueNotInstalled" => line.advice("whoever installs Kueue starts it; taskgate notices without a restart"),
        "NoSuchLocalQueue" => line.advice(format!(
            "whoever may create localqueues.kueue.x-k8s.io can make {queue} in namespace {namespace}"
        )),
        "LocalQueueHeld" => {
            let go_on = [
                "patch",
                "localqueues.kueue.x-k8s.io",
                queue,
                "--type=merge",
                "-p",
                r#"{"spec":{"stopPolicy":"None"}}"#,
            ];
            line.command(kubectl(&go_on), MAY_PATCH_QUEUES)
        }
        "LocalQueueInactive" => {
            let look = kubectl(&["describe", "localqueues.kueue.x-k8s.io", queue]);
            line.advice("its ClusterQueue is missing or does not work: Kueue's administrators can repair it")
                .command(look, "get on localqueues.kueue.x-k8s.io")
        }
        "UnknownPriorityClass" => {
            let class = job.and_then(|job| Job::of(job).priority_class()).unwrap_or("?");
            line.advice(format!(
                "whoever may create workloadpriorityclasses.kueue.x-k8s.io can make {class}"
            ))
        }
        "NamespaceNotManaged" => line
            .advice(
                "Kueue's administrators can let it manage the namespace (managedJobsNamespaceSelector); to give up:",
            )
            .command(cancel(), MAY_CANCEL),
        "QueueNameInvalid" => line
            .advice("correct queueName of the policy, or the Task's label, for Tasks to come; to give this one up:")
            .command(cancel(), MAY_CANCEL),
        "QueueLabelRemoved" => {
            let line = line.advice("Kelos makes the Job anew, and taskgate queues it again");
            line.command(kubectl(&["delete", "job", name]), "delete on jobs")
        }
        "Deactivated" => match job.and_then(|job| scene.workload_of(job)) {
            Some(workload) => {
                let workload = workload.metadata().name().unwrap_or_default();
                let go_on = [
                    "patch",
                    "workloads.kueue.x-k8s.io",
                    workload,
                    "--type=merge",
                    "-p",
                    r#"{"spec":{"active":true}}"#,
                ];
                line.command(kubectl(&go_on), "patch on workloads.kueue.x-k8s.io")
            }
            None => line,
        },
        "CannotStart" => line.advice("to give it up:").command(cancel(), MAY_CANCEL),
        "WaitingForAdmission" | "Preempted" | "Evicted" => quota(scene, queue, line),
        _ => line,
    }
}

/// Quota is taken: by whom, as far as this namespace tells.
fn quota(scene: &Scene<'_>, queue: &str, line: Line) -> Line {
    let running: Vec<_> = scene
        .objects(Kind::QueuedWorkloads)
        .filter(|workload| workload.pointer("/spec/queueName").and_then(Value::as_str) == Some(queue))
        .map(Workload::of)
        .filter(|workload| workload.is("Admitted") && !workload.is("Finished"))
        .filter_map(|workload| Some(workload.job()?.name))
        .filter(|job| scene.named(Kind::Tasks, job).is_some())
        .collect();
    let Some(first) = running.first() else {
        return line.advice("quota comes free as other Jobs of its ClusterQueue end, or by raising nominalQuota");
    };
    let named = running.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if running.len() > NAMED { " and others" } else { "" };
    let cancel = command(["taskgate", "cancel", first, "-n", scene.namespace]);
    line.advice(format!(
        "quota comes free as Jobs of its ClusterQueue end ({named}{more} run from here), or by raising nominalQuota; to end \
         one now:"
    ))
    .command(cancel, MAY_CANCEL)
}
