//! What an item remembers, what stops it, and what lets it start again.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus, kelos,
    metadata::Metadata,
    work_item::{Attempt, Breaker},
};
use taskgate_policy::{FailureRule, breaker_state, next_attempt};

use super::{
    command::{command, is_argument},
    policy, retry,
    scene::Scene,
    story::{Line, Story, Topic},
};
use crate::{
    commands::snapshot::{Standing, is_open},
    output::age,
};

/// How many attempts are told, the newest.
const NAMED: usize = 10;
/// The right that a reset takes.
const MAY_RESET: &str = "patch on workitems";

/// The story of an item.
pub(super) fn story(scene: &Scene<'_>, item: &WorkItem, now: Timestamp) -> Story {
    let task = specimen(scene, item);
    let rule = task
        .as_ref()
        .and_then(|task| scene.policies.failure(scene.namespace, task));
    let state = match item
        .status
        .as_ref()
        .map_or(Breaker::Closed, |status| breaker(status, rule.as_ref(), now))
    {
        Breaker::Closed => "Closed",
        Breaker::Open => "Open",
        Breaker::HalfOpen => "HalfOpen",
    };
    let mut tasks: Vec<_> = scene.tasks_of(item).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(kelos::Task::of(task).created()));
    let mut story: Vec<_> = tasks
        .into_iter()
        .take(NAMED)
        .map(|task| line_of_task(scene, task))
        .collect();
    story.extend(task.iter().flat_map(|task| policy::of_task(scene, task)));
    story.extend(lines(scene, item, now));
    Story::new(scene, &format!("item {}", item.spec.key), state, story)
}

/// Where a Task stands, in one line.
pub(super) fn line_of_task(scene: &Scene<'_>, task: &Value) -> Line {
    let name = Metadata::of(task).name().unwrap_or_default();
    let Standing { state, why, .. } = Standing::of(task, scene.item_of(task));
    let why = if why.is_empty() { why } else { format!(": {why}") };
    Line::new(Topic::State, format!("Task {name} is {state}{why}"))
}

/// What the item remembers.
pub(super) fn lines(scene: &Scene<'_>, item: &WorkItem, now: Timestamp) -> Vec<Line> {
    let Some(status) = &item.status else {
        return vec![Line::new(
            Topic::Item,
            format!("item {}: nothing happened yet", item.spec.key),
        )];
    };
    let task = specimen(scene, item);
    let rule = task
        .as_ref()
        .and_then(|task| scene.policies.failure(scene.namespace, task));
    let mut lines = vec![verdict(scene, item, status, rule.as_ref(), now)];
    lines.extend(by_itself(status, rule.as_ref(), now));
    lines.extend(status.last_reset.as_ref().map(|reset| {
        let by = reset.by.as_deref().map(|by| format!(" by {by}"));
        let why = reset.message.as_deref().map(|why| format!(": {why}"));
        let (time, reason) = (at(reset.time.0), &reset.reason);
        let (by, why) = (by.unwrap_or_default(), why.unwrap_or_default());
        Line::new(
            Topic::Item,
            format!("its failures were forgotten at {time}{by} ({reason}){why}"),
        )
    }));
    lines.extend(retry::lines(scene, item, status, now));
    lines.extend(status.attempts.iter().rev().take(NAMED).map(attempt));
    if let Some(older) = status.attempts.len().checked_sub(NAMED).filter(|older| *older > 0) {
        lines.push(Line::new(
            Topic::Item,
            format!("{older} older attempts: kubectl get workitems -o yaml"),
        ));
    }
    lines
}

/// A Task of the item, the newest, or else one as its spawner would make it; `None` where there can be none.
fn specimen(scene: &Scene<'_>, item: &WorkItem) -> Option<Value> {
    let newest = scene.tasks_of(item).max_by_key(|task| kelos::Task::of(task).created());
    let of_spawner = |spawner: &String| specimen_of(scene, spawner);
    newest.cloned().or_else(|| item.spec.spawner.as_ref().map(of_spawner))
}

/// A Task as the spawner would make it, as far as that can be said without it.
pub(super) fn specimen_of(scene: &Scene<'_>, spawner: &str) -> Value {
    let template = scene.named(crate::commands::snapshot::Kind::Spawners, spawner);
    let template = template.and_then(|spawner| spawner.pointer("/spec/taskTemplate"));
    let mut labels = template
        .and_then(|template| template.pointer("/metadata/labels").cloned())
        .unwrap_or(json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(kelos::SPAWNER_LABEL.to_owned(), spawner.into());
    }
    json!({"metadata": {"namespace": scene.namespace, "labels": labels}, "spec": template})
}

/// As the policy of the day has it, else as it was written down.
fn breaker(status: &WorkItemStatus, rule: Option<&FailureRule<'_>>, now: Timestamp) -> Breaker {
    match rule {
        Some(rule) => breaker_state(status, rule.rule, now),
        None => status.breaker.unwrap_or(Breaker::Closed),
    }
}

fn verdict(
    scene: &Scene<'_>,
    item: &WorkItem,
    status: &WorkItemStatus,
    rule: Option<&FailureRule<'_>>,
    now: Timestamp,
) -> Line {
    let key = &item.spec.key;
    let counts = counts(status, rule);
    let name = item.metadata.name.as_deref().unwrap_or_default();
    // A key is anybody's text; the name is not.
    let named = if is_argument(key) { key } else { name };
    let reset = || command(["taskgate", "reset", named, "-n", scene.namespace]);
    let since = status.opened_at.as_ref().map_or_else(String::new, |opened| {
        format!(" for {}", age(now.duration_since(opened.0).as_secs()))
    });
    let line = |text: String| Line::new(Topic::Item, text);
    let observed = rule.filter(|rule| rule.mode != Mode::Enforce);
    match breaker(status, rule, now) {
        Breaker::Open if rule.is_none() => line(format!(
            "item {key} is written down as stopped{since} ({counts}), but no policy stops it any more"
        )),
        Breaker::Open => {
            if let Some(observed) = observed {
                let text = format!(
                    "item {key} would be stopped{since}: {counts}; {} only observes",
                    observed.policy
                );
                return line(text);
            }
            line(format!("item {key} is stopped{since}: {counts}; no Task comes for it")).command(reset(), MAY_RESET)
        }
        Breaker::HalfOpen => line(format!(
            "item {key} may try once more after {counts}: the end of that one Task decides"
        ))
        .command(reset(), MAY_RESET),
        Breaker::Closed => line(format!("item {key} is not stopped: {counts}")),
    }
}

/// As `3 failures in a row (limit 3), cost $1.50`.
fn counts(status: &WorkItemStatus, rule: Option<&FailureRule<'_>>) -> String {
    let count = |count: u32, what: &str, limit: Option<u32>| {
        let limit = limit
            .filter(|limit| *limit > 0)
            .map(|limit| format!(" (limit {limit})"));
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} failure{plural} {what}{}", limit.unwrap_or_default()))
    };
    let own = rule.map(|rule| rule.rule.max_retries_per_item);
    let clusters = rule.map(|rule| rule.rule.max_infrastructure_failures);
    let parts = [
        count(status.consecutive_failures, "in a row", own),
        count(status.infrastructure_failures, "of the cluster's in a row", clusters),
        status.total_cost_usd.as_ref().map(|cost| format!("cost ${cost}")),
    ];
    let by_hand = status.breaker == Some(Breaker::Open)
        && status.consecutive_failures == 0
        && status.infrastructure_failures == 0;
    let parts: Vec<_> = by_hand
        .then(|| "opened by hand".to_owned())
        .into_iter()
        .chain(parts.into_iter().flatten())
        .collect();
    if parts.is_empty() {
        "no failures".to_owned()
    } else {
        parts.join(", ")
    }
}

/// What lets the item start again without anybody's command.
fn by_itself(status: &WorkItemStatus, rule: Option<&FailureRule<'_>>, now: Timestamp) -> Vec<Line> {
    let Some(rule) = rule.filter(|rule| rule.mode == Mode::Enforce) else {
        return Vec::new();
    };
    let line = |text: String| Line::new(Topic::Next, text);
    if breaker_state(status, rule.rule, now) != Breaker::Open {
        let next = next_attempt(status, rule.rule).filter(|next| *next > now);
        let text = |next| format!("its next Task may come at {} (backoff of {})", at(next), rule.policy);
        return next.map(|next| line(text(next))).into_iter().collect();
    }
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
    let probe = rule.rule.reset_after.zip(since).and_then(|(wait, since)| {
        let wait = SignedDuration::try_from(std::time::Duration::from(wait)).ok()?;
        since.0.checked_add(wait).ok()
    });
    let probe = probe.map(|probe| {
        line(format!(
            "one Task may try again at {} (resetAfter of {})",
            at(probe),
            rule.policy
        ))
    });
    let change = rule.rule.reset_on_change.then(|| {
        line(format!(
            "it starts again once a person changes it at its source (resetOnChange of {})",
            rule.policy
        ))
    });
    probe.into_iter().chain(change).collect()
}

fn attempt(attempt: &Attempt) -> Line {
    let ended = attempt.completion_time.as_ref().map(|time| time.0);
    let started = attempt.start_time.as_ref().map(|time| time.0);
    let took = started
        .zip(ended)
        .map(|(started, ended)| age(ended.duration_since(started).as_secs()));
    let parts = [
        attempt.reason.clone(),
        ended.map(|ended| format!("at {}", at(ended))),
        took.map(|took| format!("after {took}")),
        attempt.cost_usd.as_deref().map(|cost| format!("${cost}")),
        attempt.cancelled_by.as_deref().map(|by| format!("by {by}")),
        attempt.opened.then(|| "which stopped the item".to_owned()),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    Line::new(
        Topic::Item,
        format!("attempt {}: {:?}: {}", attempt.name, attempt.outcome, parts.join(", ")),
    )
}

pub(super) fn at(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

/// Whether the item of a spawner is stopped.
pub(super) fn is_stopped(scene: &Scene<'_>, item: &WorkItem, now: Timestamp) -> bool {
    let task = specimen(scene, item);
    let rule = task
        .as_ref()
        .and_then(|task| scene.policies.failure(scene.namespace, task));
    match (&item.status, rule) {
        (Some(status), Some(rule)) => breaker(status, Some(&rule), now) != Breaker::Closed,
        _ => is_open(item),
    }
}
