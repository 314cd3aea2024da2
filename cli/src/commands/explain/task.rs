//! The story of a Task.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::{Retrying, TaskAction, TaskContext, TaskPhase, TaskState, next_action, retry::Retried};

use super::{
    admission, cancellation,
    command::command,
    item, policy,
    scene::Scene,
    story::{Line, Story, Topic},
    waits,
};
use crate::{
    commands::snapshot::{Standing, State},
    output::age,
};

pub(super) fn story(scene: &Scene<'_>, task: &Value, now: Timestamp) -> Story {
    let item = scene.item_of(task);
    let standing = Standing::of(task, item);
    let mut lines = vec![state(task, &standing, now)];
    lines.extend(policy::of_task(scene, task));
    lines.extend(admission::lines(scene, task));
    lines.extend(cancellation::line(scene, task));
    lines.extend(waits::lines(scene, task, &standing));
    lines.extend(next(scene, task, &standing, now));
    lines.extend(item.into_iter().flat_map(|item| item::lines(scene, item, now)));
    let name = Metadata::of(task).name().unwrap_or_default();
    Story::new(scene, &format!("Task {name}"), &standing.state.to_string(), lines)
}

fn state(task: &Value, standing: &Standing, now: Timestamp) -> Line {
    let since = standing.since.map_or_else(String::new, |since| {
        format!(" for {}", age(now.duration_since(since).as_secs()))
    });
    let why = if standing.why.is_empty() {
        String::new()
    } else {
        format!(": {}", standing.why)
    };
    let phase = Task::of(task).phase();
    let kelos = match &standing.state {
        State::Phase(_) => String::new(),
        _ if phase.is_empty() => " (Kelos says nothing yet)".to_owned(),
        _ => format!(" (Kelos says {phase})"),
    };
    Line::new(Topic::State, format!("{}{since}{kelos}{why}", standing.state))
}

/// What becomes of a failed Task, as the controller would find it: the same function says so.
fn next(scene: &Scene<'_>, task: &Value, standing: &Standing, now: Timestamp) -> Option<Line> {
    let state = TaskState::of(task)?;
    if state.phase != TaskPhase::Failed || matches!(standing.state, State::Terminating | State::CircuitBroken) {
        return None;
    }
    let rule = scene.policies.failure(scene.namespace, task)?;
    let retried = Retried::of(RetriedKind::Task, task).and_then(|task| scene.policies.retry(scene.namespace, task));
    if rule.mode != Mode::Enforce || retried.is_some() {
        // What only is observed stays as Kelos has it, and what is retried is told with its item.
        return None;
    }
    let item = scene.item_of(task)?;
    let memory = item.metadata.uid.as_deref().zip(item.status.as_ref());
    let others: Vec<_> = scene
        .tasks_of(item)
        .filter_map(TaskState::of)
        .filter(|other| other.uid != state.uid)
        .collect();
    let step = next_action(&TaskContext {
        task: &state,
        others: &others,
        rule: Some((rule.mode, rule.rule)),
        work_item: item.metadata.name.as_deref(),
        item_status: memory,
        retrying: Retrying::No,
        abandoned: false,
        now,
    });
    let maker = if Task::of(task).spawner().is_some() {
        "its spawner makes the next one"
    } else {
        "no other one follows"
    };
    let line = |text: &str| Line::new(Topic::Next, text);
    match step {
        TaskAction::Wait(until) => Some(line(&format!(
            "taskgate deletes it at {}, and {maker}",
            item::at(until)
        ))),
        TaskAction::Record | TaskAction::Mark => Some(line("taskgate is about to write down its end")),
        TaskAction::RemoveFinalizer | TaskAction::Delete => {
            Some(line(&format!("taskgate is about to delete it, and {maker}")))
        }
        TaskAction::Done => {
            let name = Metadata::of(task).name().unwrap_or_default();
            let delete = command(["kubectl", "-n", scene.namespace, "delete", "tasks.kelos.dev", name]);
            let forgets = match standing.state {
                State::Cancelled => "",
                _ => "its item's failures are forgotten, and ",
            };
            let stays = line("it stays as it is: it has no TTL, and its policy no backoff");
            let stays = stays.advice(format!("once it is deleted, {forgets}{maker}:"));
            Some(stays.command(delete, "delete on tasks.kelos.dev"))
        }
        TaskAction::AddFinalizer
        | TaskAction::Stop
        | TaskAction::StopMarked
        | TaskAction::Reset
        | TaskAction::Refresh(_) => None,
    }
}
