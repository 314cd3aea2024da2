//! The explanation of a Task.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, keys, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::{
    CancelState, Cancellation, Retrying, TaskAction, TaskContext, TaskPhase, TaskState, announcement, conclusion,
    next_action, requester, retry::Retried,
};

use super::{
    blocker,
    context::ExplainContext,
    explanation::{Explanation, Line, Topic},
    item, policy,
};
use crate::{
    commands::snapshot::{DisplayState, TaskSummary},
    output::{age, time},
};

pub(super) fn explain(context: &ExplainContext<'_>, task: &Value, now: Timestamp) -> Explanation {
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
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let phase = match (state, Task::of(task).phase()) {
        (DisplayState::Phase(_), _) => String::new(),
        (_, "") => " (no phase in Kelos yet)".to_owned(),
        (_, phase) => format!(" (phase in Kelos: {phase})"),
    };
    Line::new(Topic::State, format!("{state}{since}{phase}{why}"))
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
