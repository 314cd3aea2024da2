//! What the ledger of an item tells about repeating its failed runs.

use jiff::Timestamp;
use taskgate_api::{
    WorkItemStatus,
    retry_ledger::{RetryStage, Transition},
};
use taskgate_policy::retry;

use super::{
    command::command,
    item::at,
    scene::Scene,
    story::{Line, Topic},
};
use crate::output::age;

/// Nothing where no run was ever counted.
pub(super) fn lines(scene: &Scene<'_>, status: &WorkItemStatus, now: Timestamp) -> Vec<Line> {
    let Some(ledger) = &status.retry else {
        return Vec::new();
    };
    let mut lines: Vec<_> = ledger
        .transition
        .iter()
        .flat_map(|transition| under_way(transition, now))
        .collect();
    let kept = ledger.transition.is_none().then(|| retry::condition(status)).flatten();
    lines.extend(kept.map(|condition| {
        let line = Line::new(Topic::Next, format!("{}: {}", condition.reason, condition.message));
        match &ledger.run {
            Some(run) if ledger.failure.is_some() && ledger.request.is_none() => {
                let object = format!("{}/{}", run.kind.as_str().to_ascii_lowercase(), run.name);
                let again = command(["taskgate", "retry", &object, "-n", scene.namespace]);
                line.command(again, "patch on workitems/status")
            }
            _ => line,
        }
    }));
    lines.extend(ledger.request.as_ref().map(|request| {
        let (by, time) = (&request.by, at(request.time.0));
        Line::new(Topic::Next, format!("{by} asked at {time} that it be run again"))
    }));
    lines
}

fn under_way(transition: &Transition, now: Timestamp) -> Vec<Line> {
    let old = &transition.old;
    let (kind, name) = (old.kind.as_str(), &old.name);
    let stage = match transition.step {
        RetryStage::Planned => format!("it is decided, and {kind} {name} untouched"),
        RetryStage::Deleting => format!("{kind} {name} is about to be deleted"),
        RetryStage::Deleted => format!("{kind} {name} was deleted, and what it leaves behind is waited for"),
    };
    let whose = match (&transition.policy, &transition.requested_by) {
        (_, Some(by)) => format!("asked for by {by}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, None) => "by a policy".to_owned(),
    };
    let since = age(now.duration_since(transition.since.0).as_secs());
    let text = format!(
        "it is being run again as attempt {}, {whose}: {stage}, for {since}",
        transition.to
    );
    let blocked = transition.blocked.as_ref().map(|blocked| {
        let text = format!("as its retry is held up: {}: {}", blocked.reason, blocked.message);
        Line::waits(text).advice("the controller tries again every 15 s; nothing is lost meanwhile")
    });
    std::iter::once(Line::new(Topic::Next, text)).chain(blocked).collect()
}
