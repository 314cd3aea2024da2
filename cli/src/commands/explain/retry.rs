//! What the ledger of an item tells about repeating its failed runs.

use jiff::Timestamp;
use kube::ResourceExt as _;
use taskgate_api::{
    WorkItem, WorkItemStatus, keys,
    retry_status::{RetryStage, Transition},
};
use taskgate_policy::{clip, retry};

use super::{
    command::command,
    scene::Scene,
    story::{Line, Topic},
};
use crate::output::age;

/// The rights that running an object again takes.
pub(super) const MAY_RETRY: &str = "patch on workitems; delete and create on what is run again";

/// Nothing where no run was ever counted.
pub(super) fn lines(scene: &Scene<'_>, item: &WorkItem, status: &WorkItemStatus, now: Timestamp) -> Vec<Line> {
    let asked = item.annotations().get(keys::RETRY).map(|_| {
        let by = item
            .annotations()
            .get(keys::RETRY_BY)
            .map_or("an unknown user", String::as_str);
        Line::new(Topic::Next, format!("{} asked that it be run again", clip(by, 256)))
    });
    let Some(ledger) = &status.retry else {
        return asked.into_iter().collect();
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
            Some(run) if ledger.failure.is_some() && asked.is_none() => {
                let object = format!("{}/{}", run.kind.as_str().to_ascii_lowercase(), run.name);
                let again = command(["taskgate", "retry", &object, "-n", scene.namespace]);
                line.command(again, MAY_RETRY)
            }
            _ => line,
        }
    }));
    lines.extend(asked);
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
