//! The story of a spawner: its Tasks, and why an item of it gets none.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{kelos::Task, metadata::Metadata};

use super::{
    command::command,
    item, policy,
    scene::Scene,
    story::{Line, Story, Topic},
};
use crate::commands::snapshot::{Standing, State};

/// How many Tasks, and how many stopped items, are told.
const NAMED: usize = 10;

pub(super) fn story(scene: &Scene<'_>, spawner: &Value, now: Timestamp) -> Story {
    let name = Metadata::of(spawner).name().unwrap_or_default();
    let mut lines = tasks(scene, name);
    lines.extend(policy::of_task(scene, &item::specimen_of(scene, name)));
    lines.extend(limits(scene, spawner, name));
    let of_spawner = scene
        .items
        .iter()
        .filter(|item| item.spec.spawner.as_deref() == Some(name));
    let stopped: Vec<_> = of_spawner.filter(|found| item::is_stopped(scene, found, now)).collect();
    let state = if stopped.is_empty() {
        "NoItemStopped"
    } else {
        "ItemsStopped"
    };
    lines.extend(
        stopped
            .iter()
            .take(NAMED)
            .flat_map(|found| item::lines(scene, found, now)),
    );
    if let Some(more) = stopped.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let line = Line::new(Topic::Item, format!("{more} more items are stopped"));
        let all = command(["taskgate", "status", "-n", scene.namespace]);
        lines.push(line.command(all, "list on workitems"));
    }
    Story::new(scene, &format!("TaskSpawner {name}"), state, lines)
}

/// Those that succeeded are counted.
fn tasks(scene: &Scene<'_>, spawner: &str) -> Vec<Line> {
    let (done, others): (Vec<_>, Vec<_>) = scene.tasks_of_spawner(spawner).partition(|task| {
        let state = Standing::of(task, scene.item_of(task)).state;
        state == State::Phase("Succeeded".to_owned())
    });
    let mut lines: Vec<_> = others
        .iter()
        .take(NAMED)
        .map(|task| item::line_of_task(scene, task))
        .collect();
    let more = others.len().saturating_sub(NAMED);
    for (count, what) in [(more, "further Tasks"), (done.len(), "Tasks that succeeded")] {
        lines.extend((count > 0).then(|| Line::new(Topic::State, format!("{count} {what}"))));
    }
    lines
}

/// What keeps Kelos from making Tasks for further items (kelos §4).
fn limits(scene: &Scene<'_>, spawner: &Value, name: &str) -> Vec<Line> {
    let number = |pointer: &str| {
        spawner
            .pointer(pointer)
            .and_then(Value::as_u64)
            .filter(|number| *number > 0)
    };
    let patch = |spec: &str| {
        let spec = format!("{{\"spec\":{spec}}}");
        let words = [
            "kubectl",
            "-n",
            scene.namespace,
            "patch",
            "taskspawners.kelos.dev",
            name,
            "--type=merge",
            "-p",
            &spec,
        ];
        command(words)
    };
    let needs = "patch on taskspawners.kelos.dev";
    let mut lines = Vec::new();
    if spawner.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        let line = Line::waits("as somebody suspended it (spec.suspend)");
        lines.push(line.command(patch(r#"{"suspend":false}"#), needs));
    }
    let active = scene
        .tasks_of_spawner(name)
        .filter(|task| !Task::of(task).is_terminal())
        .count();
    if let Some(limit) = number("/spec/maxConcurrency")
        && u64::try_from(active).is_ok_and(|active| active >= limit)
    {
        let text =
            format!("for the end of a Task: {active} are under way, and maxConcurrency is {limit}; queued ones count");
        lines.push(Line::waits(text));
    }
    if let Some((limit, made)) = number("/spec/maxTotalTasks").zip(number("/status/totalTasksCreated"))
        && made >= limit
    {
        let text = format!("as it has made {made} Tasks in its life, and maxTotalTasks is {limit}; retries count");
        lines.push(Line::waits(text).advice("whoever may patch the TaskSpawner can raise it"));
    }
    lines
}
