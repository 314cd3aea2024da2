//! The explanation of an item: its breaker, what closes it again, its retry, and its attempts.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus, kelos, keys,
    metadata::Metadata,
    retry_status::{RetryStage, RetryStatus, Transition},
    task_policy::RetriedKind,
    work_item::{Attempt, Breaker},
};
use taskgate_policy::{
    FailureRule, breaker_state, clip, counted, next_attempt,
    retry::{self, Retried},
};

use super::{
    explanation::{Explanation, Line, Topic, is_argument},
    input::ExplainContext,
    policy,
};
use crate::{
    commands::{
        snapshot::{Collection, TaskSummary, sample_task},
        work_items::is_tripped,
    },
    output::{age, time},
};

/// How many attempts are listed, the latest.
const NAMED: usize = 10;
/// The right that a reset needs.
const RESET_RIGHT: &str = "patch on workitems";
/// The rights that a retry needs.
const RETRY_RIGHTS: &str = "patch on workitems; delete and create on what is run again";

pub(super) fn explain(context: &ExplainContext<'_>, item: &WorkItem, now: Timestamp) -> Explanation {
    let state = ItemBreaker::of(context, item, now).map_or(Breaker::Closed, |breaker| breaker.state);
    let mut tasks: Vec<_> = context.tasks_of(item).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(kelos::Task::of(task).created()));
    let tasks = tasks.into_iter().take(NAMED);
    let mut all: Vec<_> = tasks.map(|task| task_line(context, task)).collect();
    let task = task_of(context, item);
    all.extend(task.iter().flat_map(|task| policy::of_task(context, task)));
    all.extend(lines(context, item, now));
    context.explanation(&format!("item {}", item.spec.key), &format!("{state:?}"), all)
}

/// The state of a Task in one line.
pub(super) fn task_line(context: &ExplainContext<'_>, task: &Value) -> Line {
    let name = Metadata::of(task).name().unwrap_or_default();
    let TaskSummary { state, why, .. } = TaskSummary::of(task, context.item_of(task));
    let why = if why.is_empty() { why } else { format!(": {why}") };
    Line::new(Topic::State, format!("Task {name} is {state}{why}"))
}

/// The lines about the item itself.
pub(super) fn lines(context: &ExplainContext<'_>, item: &WorkItem, now: Timestamp) -> Vec<Line> {
    let Some(breaker) = ItemBreaker::of(context, item, now) else {
        let text = format!("item {}: it has no attempts yet", item.spec.key);
        return vec![Line::new(Topic::Item, text)];
    };
    let status = breaker.status;
    let mut lines = vec![breaker.line(context, item, now)];
    lines.extend(breaker.automatic(now));
    lines.extend(status.last_reset.as_ref().map(|reset| {
        let by = reset.by.as_deref().map(|by| format!(" by {by}"));
        let message = reset.message.as_deref().map(|message| format!(": {message}"));
        let (at, reason) = (time(reset.time.0), &reset.reason);
        let (by, message) = (by.unwrap_or_default(), message.unwrap_or_default());
        let text = format!("its failures were reset at {at}{by} ({reason}){message}");
        Line::new(Topic::Item, text)
    }));
    lines.extend(retry_lines(context, item, status, now));
    lines.extend(status.attempts.iter().rev().take(NAMED).map(attempt));
    if let Some(older) = status.attempts.len().checked_sub(NAMED).filter(|older| *older > 0) {
        let text = format!("{older} older attempts: kubectl get workitems -o yaml");
        lines.push(Line::new(Topic::Item, text));
    }
    lines
}

/// The item's latest Task, else one as its spawner would create it.
fn task_of(context: &ExplainContext<'_>, item: &WorkItem) -> Option<Value> {
    let latest = context
        .tasks_of(item)
        .max_by_key(|task| kelos::Task::of(task).created());
    let of_spawner = |spawner: &String| sample(context, spawner);
    latest.cloned().or_else(|| item.spec.spawner.as_ref().map(of_spawner))
}

/// A Task as the spawner would create it.
pub(super) fn sample(context: &ExplainContext<'_>, spawner: &str) -> Value {
    let object = context.named(Collection::Spawners, spawner);
    sample_task(context.namespace, spawner, object)
}

/// Whether the item gets no Tasks under the current policy.
pub(super) fn is_stopped(context: &ExplainContext<'_>, item: &WorkItem, now: Timestamp) -> bool {
    let breaker = ItemBreaker::of(context, item, now).filter(|breaker| breaker.rule.is_some());
    breaker.map_or(is_tripped(item), |breaker| breaker.state != Breaker::Closed)
}

/// The breaker of an item, and what it depends on.
struct ItemBreaker<'a> {
    status: &'a WorkItemStatus,
    /// The failure section for the item's Task.
    rule: Option<FailureRule<'a>>,
    /// Under that section, else as it was stored.
    state: Breaker,
}

impl<'a> ItemBreaker<'a> {
    /// `None`: the item has no attempts yet.
    fn of(context: &'a ExplainContext<'_>, item: &'a WorkItem, now: Timestamp) -> Option<Self> {
        let status = item.status.as_ref()?;
        let rule = task_of(context, item).and_then(|task| context.policies.failure(context.namespace, &task));
        let state = match &rule {
            Some(rule) => breaker_state(status, rule.rule, now),
            None => status.breaker.unwrap_or(Breaker::Closed),
        };
        Some(Self { status, rule, state })
    }

    fn line(&self, context: &ExplainContext<'_>, item: &WorkItem, now: Timestamp) -> Line {
        let key = &item.spec.key;
        let counts = self.counts();
        // A key is free text; a name is not.
        let name = item.metadata.name.as_deref().unwrap_or_default();
        let name = if is_argument(key) { key } else { name };
        let with_reset = |line: Line| line.command(context.taskgate(&["reset", name]), RESET_RIGHT);
        let since = self.status.opened_at.as_ref();
        let since = since.map_or_else(String::new, |opened| format!(" for {}", age(opened.0, now)));
        let line = |text: String| Line::new(Topic::Item, text);
        match (self.state, &self.rule) {
            (Breaker::Open, None) => line(format!(
                "item {key} is stored as stopped{since} ({counts}), but no policy stops it any more"
            )),
            (Breaker::Open, Some(FailureRule { mode, policy, .. })) if *mode != Mode::Enforce => line(format!(
                "item {key} would be stopped{since}: {counts}; {policy} only observes"
            )),
            (Breaker::Open, Some(_)) => with_reset(line(format!(
                "item {key} is stopped{since}: {counts}; no Task comes for it"
            ))),
            (Breaker::HalfOpen, _) => with_reset(line(format!(
                "item {key} may try once more after {counts}: the end of that one Task decides"
            ))),
            (Breaker::Closed, _) => line(format!("item {key} is not stopped: {counts}")),
        }
    }

    /// As `3 failures in a row (limit 3), cost $1.50`.
    fn counts(&self) -> String {
        let count = |count: u32, what: &str, limit: Option<u32>| {
            let limit = limit.filter(|limit| *limit > 0);
            let limit = limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default();
            (count > 0).then(|| format!("{} {what}{limit}", counted(count, "failure")))
        };
        let (status, limits) = (self.status, self.rule.as_ref().map(|rule| rule.rule));
        let failures = count(
            status.consecutive_failures,
            "in a row",
            limits.map(|limits| limits.max_retries_per_item),
        );
        let infrastructure = count(
            status.infrastructure_failures,
            "of the cluster's in a row",
            limits.map(|limits| limits.max_infrastructure_failures),
        );
        let is_manual = status.breaker == Some(Breaker::Open) && failures.is_none() && infrastructure.is_none();
        let parts = [
            is_manual.then(|| "opened manually".to_owned()),
            failures,
            infrastructure,
            status.total_cost_usd.as_ref().map(|cost| format!("cost ${cost}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            "no failures".to_owned()
        } else {
            parts.join(", ")
        }
    }

    /// What lets the item start again automatically.
    fn automatic(&self, now: Timestamp) -> Vec<Line> {
        let Some(rule) = self.rule.as_ref().filter(|rule| rule.mode == Mode::Enforce) else {
            return Vec::new();
        };
        let (status, policy) = (self.status, &rule.policy);
        let line = |text: String| Line::new(Topic::Next, text);
        if self.state != Breaker::Open {
            let next = next_attempt(status, rule.rule).filter(|next| *next > now);
            let next = next.map(|next| format!("its next Task may come at {} (backoff of {policy})", time(next)));
            return next.map(line).into_iter().collect();
        }
        let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
        let probe = rule.rule.reset_after.zip(since).and_then(|(wait, since)| {
            let wait = SignedDuration::try_from(std::time::Duration::from(wait)).ok()?;
            since.0.checked_add(wait).ok()
        });
        let probe = probe.map(|probe| format!("one Task may try again at {} (resetAfter of {policy})", time(probe)));
        let change = rule.rule.reset_on_change;
        let change = change
            .then(|| format!("it starts again once a person changes it at its source (resetOnChange of {policy})"));
        probe.into_iter().chain(change).map(line).collect()
    }
}

/// The retry of the item's failed run; nothing where no run was counted.
fn retry_lines(context: &ExplainContext<'_>, item: &WorkItem, status: &WorkItemStatus, now: Timestamp) -> Vec<Line> {
    let request = item.annotations().get(keys::RETRY).map(|_| {
        let by = item.annotations().get(keys::RETRY_BY);
        let by = by.map_or("an unknown user", String::as_str);
        Line::new(Topic::Next, format!("{} requested its retry", clip(by, 256)))
    });
    let Some(retry_status) = &status.retry else {
        return request.into_iter().collect();
    };
    let mut lines = Vec::new();
    if let Some(transition) = &retry_status.transition {
        lines.extend(retry_in_progress(transition, now));
    } else if let Some(condition) = retry::condition(status) {
        let unwanted = is_unwanted(context, retry_status);
        let reason = unwanted.then(|| "no policy retries it any more: it stays as it is".to_owned());
        let reason = reason.unwrap_or_else(|| format!("{}: {}", condition.reason, condition.message));
        let line = Line::new(Topic::Next, reason);
        lines.push(match &retry_status.run {
            Some(run) if retry_status.failure.is_some() && request.is_none() => {
                let object = format!("{}/{}", run.kind.as_ref().to_ascii_lowercase(), run.name);
                line.command(context.taskgate(&["retry", &object]), RETRY_RIGHTS)
            }
            _ => line,
        });
    }
    lines.extend(request);
    lines
}

/// Whether the failed run of the item exists and no policy retries it: its condition may be older than the policies.
fn is_unwanted(context: &ExplainContext<'_>, retry_status: &RetryStatus) -> bool {
    let Some(run) = retry_status.run.as_ref().filter(|_| retry_status.failure.is_some()) else {
        return false;
    };
    let collection = match run.kind {
        RetriedKind::Task => Collection::Tasks,
        RetriedKind::Workload => Collection::Workloads,
    };
    let object = context.named(collection, &run.name);
    let retried = object.and_then(|object| Retried::of(run.kind, object));
    context.policies.unknown.is_none()
        && retried.is_some_and(|retried| {
            retried.uid() == run.uid && context.policies.retry(context.namespace, retried).is_none()
        })
}

fn retry_in_progress(transition: &Transition, now: Timestamp) -> Vec<Line> {
    let old = &transition.old;
    let stage = match transition.step {
        RetryStage::Planned => format!("it is planned, and {old} unchanged"),
        RetryStage::Deleting => format!("{old} is about to be deleted"),
        RetryStage::Deleted => format!("{old} was deleted, and the objects that it owned are awaited"),
    };
    let requester = match (&transition.policy, &transition.requested_by) {
        (_, Some(by)) => format!("requested by {by}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, None) => "by a policy".to_owned(),
    };
    let (attempt, since) = (transition.to, age(transition.since.0, now));
    let text = format!("its retry as attempt {attempt} is in progress, {requester}: {stage}, for {since}");
    let blocked = transition.blocked.as_ref().map(|blocked| {
        let text = format!("as its retry is blocked: {}: {}", blocked.reason, blocked.message);
        Line::waits(text).advice("the controller tries again every 15 s; nothing is lost meanwhile")
    });
    [Line::new(Topic::Next, text)].into_iter().chain(blocked).collect()
}

fn attempt(attempt: &Attempt) -> Line {
    let started = attempt.start_time.as_ref().map(|time| time.0);
    let ended = attempt.completion_time.as_ref().map(|time| time.0);
    let parts = [
        attempt.reason.clone(),
        ended.map(|ended| format!("at {}", time(ended))),
        started
            .zip(ended)
            .map(|(started, ended)| format!("after {}", age(started, ended))),
        attempt.cost_usd.as_deref().map(|cost| format!("${cost}")),
        attempt.cancelled_by.as_deref().map(|by| format!("by {by}")),
        attempt.opened.then(|| "which stopped the item".to_owned()),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let text = format!("attempt {}: {:?}: {}", attempt.name, attempt.outcome, parts.join(", "));
    Line::new(Topic::Item, text)
}
