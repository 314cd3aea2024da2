//! What a Task waits for, who can let it go on, and with which command.

use serde_json::Value;
use taskgate_api::{
    job::Job,
    kelos::{self, Task},
    keys,
    metadata::Metadata,
};

use super::{command::command, queue, scene::Scene, story::Line};
use crate::commands::snapshot::{Kind, Standing, State};

/// The phase of a Task whose Job has not started.
const PENDING: &str = "Pending";
/// The right that cancelling takes.
pub(super) const MAY_CANCEL: &str = "patch and delete on tasks.kelos.dev";

/// What `task` waits for, which stands as `standing` says.
pub(super) fn lines(scene: &Scene<'_>, task: &Value, standing: &Standing) -> Vec<Line> {
    match &standing.state {
        State::Queued => queue::waiting(scene, task),
        State::Terminating => terminating(scene, task),
        State::Phase(phase) if phase == kelos::WAITING => waiting(scene, task),
        State::Phase(phase) if phase.is_empty() || phase == PENDING => pending(scene, task),
        State::Phase(_) if Task::of(task).is_terminal() => Vec::new(),
        State::Phase(_) | State::Cancelling => queue::stuck(scene, task).into_iter().collect(),
        State::CircuitBroken | State::Cancelled => Vec::new(),
    }
}

/// Whether the Task may wait because no Job can be made, or noticed.
pub(super) fn may_blame_kueue(scene: &Scene<'_>, task: &Value) -> bool {
    let view = Task::of(task);
    let unmade = matches!(view.phase(), "" | PENDING) && view.worker_pool().is_none() && scene.job_of(task).is_none();
    let deleted = Metadata::of(task).is_terminating();
    (unmade && !deleted) || queue::is_unnoticed(task)
}

/// Kelos itself lets it wait: for other Tasks, for its branch, or for a budget (kelos §6.2, §6.5, S25).
fn waiting(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    let view = Task::of(task);
    let depends = view.spec().and_then(|spec| spec.get("dependsOn")?.as_array());
    let depends = depends.into_iter().flatten().filter_map(Value::as_str);
    let mut lines: Vec<_> = depends.filter_map(|name| dependency(scene, name)).collect();
    // Kelos looks at the branch once no dependency is left.
    if lines.is_empty() {
        lines.extend(branch(scene, task));
    }
    if lines.is_empty() {
        lines.push(Line::waits(format!("as Kelos says: {}", view.message())));
    }
    lines
}

fn dependency(scene: &Scene<'_>, name: &str) -> Option<Line> {
    let Some(other) = scene.named(Kind::Tasks, name) else {
        let line = Line::waits(format!("for Task {name}, which does not exist"));
        return Some(line.advice("whoever may create Tasks can make it, or cancel this one"));
    };
    if Task::of(other).phase() == kelos::SUCCEEDED {
        return None;
    }
    let state = Standing::of(other, scene.item_of(other)).state;
    let explain = command(["taskgate", "explain", &format!("task/{name}"), "-n", scene.namespace]);
    let line = Line::waits(format!("for Task {name} to succeed; it is {state}"));
    Some(line.command(explain, "get on tasks.kelos.dev"))
}

/// Who holds its branch: as Kelos says, which may be a Task of another namespace, since the lock knows none (kelos §6.5).
fn branch(scene: &Scene<'_>, task: &Value) -> Option<Line> {
    let view = Task::of(task);
    let branch = view.branch()?;
    let holder = said(view.message()).or_else(|| holder(scene, task))?;
    let Some(other) = scene.named(Kind::Tasks, holder) else {
        let text = format!("for branch {branch}, which Task {holder} holds, and that one is not in this namespace");
        let all = command([
            "kubectl",
            "get",
            "tasks.kelos.dev",
            "-A",
            "--field-selector",
            &format!("metadata.name={holder}"),
        ]);
        let advice = "Kelos' locks know no namespaces: Workspaces of the same name share their branches";
        return Some(
            Line::waits(text)
                .advice(advice)
                .command(all, "list on tasks.kelos.dev everywhere"),
        );
    };
    let state = Standing::of(other, scene.item_of(other)).state;
    let cancel = command(["taskgate", "cancel", holder, "-n", scene.namespace]);
    let line = Line::waits(format!(
        "for branch {branch}, which Task {holder} holds; that one is {state}"
    ));
    Some(
        line.advice("it goes on when that one ends; to end it now:")
            .command(cancel, MAY_CANCEL),
    )
}

/// The Task that Kelos names: `Waiting for branch "b" (locked by t)`, or `(queued behind t)`.
fn said(message: &str) -> Option<&str> {
    let (_, rest) = message
        .split_once("(locked by ")
        .or_else(|| message.split_once("(queued behind "))?;
    rest.strip_suffix(')')
}

/// The Task of this namespace that holds the lock: one that has begun, else an older one that waits too.
fn holder<'a>(scene: &Scene<'a>, task: &Value) -> Option<&'a str> {
    let lock = |task: Task<'_>| {
        Some((
            task.workspace().unwrap_or_default().to_owned(),
            task.branch()?.to_owned(),
        ))
    };
    let wanted = lock(Task::of(task))?;
    let own = Metadata::of(task).uid();
    let others = || {
        scene.objects(Kind::Tasks).filter(|other| {
            let view = Task::of(other);
            Metadata::of(other).uid() != own && !view.is_terminal() && lock(view).as_ref() == Some(&wanted)
        })
    };
    let begun = others().find(|other| Task::of(other).phase() != kelos::WAITING);
    let created = Task::of(task).created();
    let older = || others().filter(|other| Task::of(other).created() < created);
    let holder = begun.or_else(|| older().min_by_key(|other| Task::of(other).created()))?;
    Metadata::of(holder).name()
}

/// Kelos has made no Job, or it has not started.
fn pending(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    let metadata = Metadata::of(task);
    if metadata.uid().is_none() {
        let line = Line::waits("to be created: it is in a file, and not in the cluster");
        return vec![line.advice("taskgate check tells what admission would make of it")];
    }
    if let Some(pool) = Task::of(task).worker_pool() {
        return vec![Line::waits(format!("for a free runner of WorkerPool {pool}"))];
    }
    let Some(job) = scene.job_of(task) else {
        if !scene.is_known(Kind::Jobs) {
            return vec![Line::waits("for its Job, which may not be read")];
        }
        let mut lines = vec![Line::waits("for Kelos to make its Job")];
        lines.extend(scene.kueue.culprit());
        return lines;
    };
    if let Some(line) = queue::stuck(scene, task) {
        return vec![line];
    }
    let view = Job::of(job);
    if view.is_stopped() {
        return vec![Line::waits("for Kelos to see that its Job was failed")];
    }
    if view.is_suspended() && view.queue().is_none() {
        let name = metadata.name().unwrap_or_default();
        let start = [
            "kubectl",
            "-n",
            scene.namespace,
            "patch",
            "job",
            name,
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":false}}"#,
        ];
        let line = Line::waits("as its Job is suspended, by somebody else than taskgate and without a queue");
        return vec![line.command(command(start), "patch on jobs")];
    }
    vec![Line::waits("for the pod of its Job to start")]
}

/// It is being deleted, and somebody holds it.
fn terminating(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    let line = |finalizer: &str| match finalizer {
        keys::ACCOUNTING => {
            let status = command(["taskgate", "status", "-n", scene.namespace]);
            Line::waits("for taskgate's controller to write down its end: finalizer taskgate.dev/accounting")
                .advice("it does so at once where a replica leads; this tells whether one does:")
                .command(status, "get on taskgate's Lease")
        }
        kelos::FINALIZER => Line::waits("for Kelos' controller to clean up: finalizer kelos.dev/finalizer"),
        other => Line::waits(format!("for whoever put finalizer {other} on it to let go")),
    };
    Metadata::of(task).finalizers().map(line).collect()
}
