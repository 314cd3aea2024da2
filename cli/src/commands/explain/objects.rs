//! The explanations of a Task, of a TaskSpawner, of Foreman's Workload, and of a Job without a Task.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{Mode, foreman, job::Job, kelos::Task, keys, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::{
    CancelState, Cancellation, Retrying, TaskAction, TaskContext, TaskPhase, TaskState, announcement, conclusion,
    next_action, requester,
    retry::{Retried, RunPhase},
};

use super::{
    blocker::{self, patch},
    explanation::{Explanation, Line, Topic},
    input::ExplainContext,
    item, policy,
};
use crate::{
    commands::snapshot::{DisplayState, TaskSummary},
    output::{age, time},
};

/// How many Tasks, and how many stopped items, are listed.
const NAMED: usize = 10;

/// A Task: its state, its policies, what it waits for, and its item.
pub(super) fn explain_task(context: &ExplainContext<'_>, task: &Value, now: Timestamp) -> Explanation {
    let item = context.item_of(task);
    let summary = TaskSummary::of(task, item);
    let mut lines = vec![state(task, &summary, now)];
    lines.extend(policy::of_task(context, task));
    lines.extend(policy::admission(context, task));
    lines.extend(cancellation(context, task));
    lines.extend(blocker::lines(context, task, &summary));
    lines.extend(next(context, task, &summary, now));
    lines.extend(item.into_iter().flat_map(|item| item::lines(context, item, now)));
    let name = Metadata::of(task).name().unwrap_or_default();
    context.explanation(&format!("Task {name}"), &summary.state.to_string(), lines)
}

fn state(task: &Value, summary: &TaskSummary, now: Timestamp) -> Line {
    let TaskSummary { state, since, why } = summary;
    let since = since.map_or_else(String::new, |since| format!(" for {}", age(since, now)));
    let colon = if why.is_empty() { "" } else { ": " };
    let phase = match (state, Task::of(task).phase()) {
        (DisplayState::Phase(_), _) => String::new(),
        (_, "") => " (no phase in Kelos yet)".to_owned(),
        (_, phase) => format!(" (phase in Kelos: {phase})"),
    };
    Line::new(Topic::State, format!("{state}{since}{phase}{colon}{why}"))
}

/// The state of a requested cancellation.
fn cancellation(context: &ExplainContext<'_>, task: &Value) -> Option<Line> {
    let cancellation = Cancellation::of(task);
    if cancellation.is_none() {
        return None;
    }
    let name = Metadata::of(task).name().unwrap_or_default();
    let by = requester(&cancellation);
    let Some(stamp) = &cancellation.stamp else {
        let remove = format!("{}-", keys::CANCEL);
        let command = context.kubectl(&["annotate", "tasks.kelos.dev", name, &remove]);
        let line =
            Line::waits("its cancellation was requested, but admission did not see the request: nothing is done");
        return Some(line.command(command, "patch on tasks.kelos.dev"));
    };
    let state = |text: &str| Line::new(Topic::State, text);
    Some(match cancellation.progress {
        None | Some(CancelState::Announced) if cancellation.is_pending() => {
            let withdraw = context.taskgate(&["cancel", name, "--withdraw"]);
            Line::waits(format!("for its end: it {}", announcement(stamp, &cancellation)))
                .advice("until then the request can be withdrawn")
                .command(withdraw, "patch and delete on tasks.kelos.dev")
        }
        None | Some(CancelState::Announced) => state(&format!("the cancellation that {by} requested was withdrawn")),
        Some(CancelState::Cancelling) => Line::waits(format!(
            "for its end: the cancellation that {by} requested is in progress, and cannot be withdrawn"
        )),
        Some(CancelState::Cancelled) => state(&format!(
            "{}: neither a failure nor a success of its item",
            conclusion(&cancellation)
        )),
        Some(CancelState::TooLate) => state(&format!("it ended before the cancellation that {by} requested")),
        Some(CancelState::Refused) => state("a cancellation was requested and refused, as the user is unknown"),
    })
}

/// The next action for a failed Task, from the function that the controller uses.
fn next(context: &ExplainContext<'_>, task: &Value, summary: &TaskSummary, now: Timestamp) -> Option<Line> {
    let state = TaskState::of(task)?;
    let is_shown_elsewhere = matches!(summary.state, DisplayState::Terminating | DisplayState::CircuitBroken);
    if state.phase != TaskPhase::Failed || is_shown_elsewhere {
        return None;
    }
    let rule = context.policies.failure(context.namespace, task)?;
    let retried = Retried::of(RetriedKind::Task, task);
    let retried = retried.and_then(|task| context.policies.retry(context.namespace, task));
    if rule.mode != Mode::Enforce || retried.is_some() {
        // Without enforcement Kelos alone decides; a retry is explained with the item.
        return None;
    }
    let item = context.item_of(task)?;
    let others: Vec<_> = context
        .tasks_of(item)
        .filter_map(TaskState::of)
        .filter(|other| other.uid != state.uid)
        .collect();
    let step = next_action(&TaskContext {
        task: &state,
        others: &others,
        rule: Some((rule.mode, rule.rule)),
        work_item: item.metadata.name.as_deref(),
        item_status: item.metadata.uid.as_deref().zip(item.status.as_ref()),
        retrying: Retrying::No,
        abandoned: false,
        now,
    });
    let successor = if Task::of(task).spawner().is_some() {
        "its spawner creates the next one"
    } else {
        "no other one follows"
    };
    let line = |text: &str| Line::new(Topic::Next, text);
    match step {
        TaskAction::Wait(until) => {
            let until = time(until);
            Some(line(&format!("taskgate deletes it at {until}, and {successor}")))
        }
        TaskAction::Record | TaskAction::Mark => Some(line("taskgate is about to record its end")),
        TaskAction::RemoveFinalizer | TaskAction::Delete => {
            Some(line(&format!("taskgate is about to delete it, and {successor}")))
        }
        TaskAction::Done => {
            let name = Metadata::of(task).name().unwrap_or_default();
            let reset = match summary.state {
                DisplayState::Cancelled => "",
                _ => "its item's failures are reset, and ",
            };
            let line = line("it stays as it is: it has no TTL, and its policy no backoff");
            let line = line.advice(format!("once it is deleted, {reset}{successor}:"));
            let delete = context.kubectl(&["delete", "tasks.kelos.dev", name]);
            Some(line.command(delete, "delete on tasks.kelos.dev"))
        }
        TaskAction::AddFinalizer
        | TaskAction::Stop
        | TaskAction::StopMarked
        | TaskAction::Reset
        | TaskAction::Refresh(_) => None,
    }
}

/// A spawner: its Tasks, its policies, and the items that get no Task.
pub(super) fn explain_spawner(context: &ExplainContext<'_>, spawner: &Value, now: Timestamp) -> Explanation {
    let name = Metadata::of(spawner).name().unwrap_or_default();
    let mut lines = tasks(context, name);
    lines.extend(policy::of_task(context, &item::sample(context, name)));
    lines.extend(limits(context, spawner, name));
    let items = context.items.iter();
    let items = items.filter(|item| item.spec.spawner.as_deref() == Some(name));
    let stopped: Vec<_> = items.filter(|item| item::is_stopped(context, item, now)).collect();
    let state = if stopped.is_empty() {
        "NoItemStopped"
    } else {
        "ItemsStopped"
    };
    let named = stopped.iter().take(NAMED);
    lines.extend(named.flat_map(|item| item::lines(context, item, now)));
    if let Some(more) = stopped.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let line = Line::new(Topic::Item, format!("{more} more items are stopped"));
        lines.push(line.command(context.taskgate(&["status"]), "list on workitems"));
    }
    context.explanation(&format!("TaskSpawner {name}"), state, lines)
}

/// The Tasks of a spawner. Those that succeeded are only counted.
fn tasks(context: &ExplainContext<'_>, spawner: &str) -> Vec<Line> {
    let (done, others): (Vec<_>, Vec<_>) = context.tasks_of_spawner(spawner).partition(|task| {
        let state = TaskSummary::of(task, context.item_of(task)).state;
        state == DisplayState::Phase("Succeeded".to_owned())
    });
    let named = others.iter().take(NAMED);
    let mut lines: Vec<_> = named.map(|task| item::task_line(context, task)).collect();
    let more = others.len().saturating_sub(NAMED);
    for (count, what) in [(more, "further Tasks"), (done.len(), "Tasks that succeeded")] {
        lines.extend((count > 0).then(|| Line::new(Topic::State, format!("{count} {what}"))));
    }
    lines
}

/// The limits of Kelos that keep the spawner from creating Tasks.
fn limits(context: &ExplainContext<'_>, spawner: &Value, name: &str) -> Vec<Line> {
    let number = |pointer: &str| {
        let number = spawner.pointer(pointer).and_then(Value::as_u64);
        number.filter(|number| *number > 0)
    };
    let mut lines = Vec::new();
    if spawner.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        let resume = patch(context, "taskspawners.kelos.dev", name, r#"{"spec":{"suspend":false}}"#);
        let line = Line::waits("as it is suspended (spec.suspend)");
        lines.push(line.command(resume, "patch on taskspawners.kelos.dev"));
    }
    let tasks = context.tasks_of_spawner(name);
    let active = tasks.filter(|task| !Task::of(task).is_terminal()).count();
    if let Some(limit) = number("/spec/maxConcurrency")
        && u64::try_from(active).is_ok_and(|active| active >= limit)
    {
        lines.push(Line::waits(format!(
            "for the end of a Task: {active} are active, and maxConcurrency is {limit}; queued ones count"
        )));
    }
    if let Some((limit, created)) = number("/spec/maxTotalTasks").zip(number("/status/totalTasksCreated"))
        && created >= limit
    {
        let text = format!("as it has created {created} Tasks in all, and maxTotalTasks is {limit}; retries count");
        lines.push(Line::waits(text).advice("a user who may patch the TaskSpawner can raise it"));
    }
    lines
}

/// Foreman's Workload: its policy, and its retry.
pub(super) fn explain_workload(context: &ExplainContext<'_>, workload: &Value, now: Timestamp) -> Explanation {
    let metadata = Metadata::of(workload);
    let name = metadata.name().unwrap_or_default();
    let phase = foreman::Workload::of(workload).phase();
    let state = if phase.is_empty() { "New" } else { phase };
    let mut lines = vec![Line::new(Topic::State, format!("phase in Foreman: {state}"))];
    let created_by = metadata.label(foreman::CREATED_BY);
    lines.extend(created_by.map(|creator| Line::new(Topic::State, format!("it was created by {creator}"))));
    let retry_of = metadata.annotation(keys::RETRY_OF);
    lines.extend(retry_of.map(|uid| Line::new(Topic::Admission, policy::retry_of(uid))));
    lines.extend(policy::of_workload(context, workload));
    let retried = Retried::of(RetriedKind::Workload, workload);
    let item = retried.and_then(|retried| {
        let label = metadata.label(keys::WORK_ITEM).map(ToOwned::to_owned);
        context.item_named(&label.unwrap_or_else(|| retried.item().work_item_name()))
    });
    let has_failed = retried.is_some_and(|retried| retried.phase() == RunPhase::Failed);
    if let Some(item) = item {
        lines.extend(item::lines(context, item, now));
    } else if has_failed {
        let line = Line::new(Topic::Next, not_recorded(context, retried));
        let retry = context.taskgate(&["retry", &format!("workload/{name}")]);
        lines.push(line.command(retry, "create on workitems; delete and create on workloads"));
    }
    context.explanation(&format!("Workload {name}"), state, lines)
}

/// Why a failed Workload has no WorkItem.
fn not_recorded(context: &ExplainContext<'_>, retried: Option<Retried<'_>>) -> String {
    let rule = retried.and_then(|retried| Some((retried, context.policies.retry(context.namespace, retried)?)));
    match rule {
        Some((retried, rule)) if retried.is_left_to_bridge(rule.rule) => format!(
            "taskgate leaves it to the dispatch bridge, which retries it: takeOver of {} is false; a manual retry takes it over",
            rule.policy
        ),
        Some((_, rule)) => format!("taskgate is about to record its failure, for {}", rule.policy),
        None => "it stays as it is: it has no WorkItem, and taskgate does not retry it".to_owned(),
    }
}

/// A Job that has no Task.
pub(super) fn explain_job(context: &ExplainContext<'_>, job: &Value) -> Explanation {
    let name = Metadata::of(job).name().unwrap_or_default();
    let (state, line) = if let Some(owner) = Job::of(job).task() {
        let text = format!("it runs for Task {}, which does not exist any more", owner.name);
        let line = Line::new(Topic::State, text);
        ("Orphaned", line.advice("Kubernetes deletes it with its Task"))
    } else {
        let text = "no Kelos Task owns it, so that the API server does not send it to taskgate";
        ("NotGoverned", Line::new(Topic::Policy, text))
    };
    context.explanation(&format!("Job {name}"), state, vec![line])
}
