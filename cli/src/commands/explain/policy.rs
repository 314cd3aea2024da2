//! Which policies govern an object, and why those.

use serde_json::Value;
use taskgate_api::{Mode, keys, task_policy::RetriedKind};
use taskgate_policy::{Candidate, Section, retry::Retried};

use super::{
    scene::Scene,
    story::{Line, Topic},
};
use crate::commands::snapshot::Kind;

/// How many policies are named that do not select the object.
const NAMED: usize = 10;

/// The sections that govern Tasks, in the order in which they are told.
const SECTIONS: [Section; 4] = [
    Section::FailurePolicy,
    Section::Cancellation,
    Section::Queue,
    Section::Metadata,
];

/// One line for each section that governs the Task `task`, and one for each policy that does not.
pub(super) fn of_task(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    unless_unknown(scene, || {
        let candidates = scene.policies.candidates(scene.namespace, task);
        let sections = SECTIONS.iter().filter_map(|section| line(*section, &candidates));
        let retry = Retried::of(RetriedKind::Task, task).and_then(|task| retry_line(scene, task, &candidates));
        finish(scene, sections.chain(retry).collect(), &candidates)
    })
}

/// The same for Foreman's Workload `workload`, of which a policy can only say how it is retried.
pub(super) fn of_workload(scene: &Scene<'_>, workload: &Value) -> Vec<Line> {
    unless_unknown(scene, || {
        let candidates = scene.policies.candidates(scene.namespace, workload);
        let retry = Retried::of(RetriedKind::Workload, workload);
        let retry = retry.and_then(|workload| retry_line(scene, workload, &candidates));
        finish(scene, retry.into_iter().collect(), &candidates)
    })
}

fn unless_unknown(scene: &Scene<'_>, lines: impl FnOnce() -> Vec<Line>) -> Vec<Line> {
    let one = |text: &str| vec![Line::new(Topic::Policy, text)];
    if let Some(why) = &scene.policies.unknown {
        return one(&format!("which policy governs it cannot be said: {why}"));
    }
    if scene.is_absent(Kind::Policies) {
        return one("none: taskgate is not installed, the API server does not know its kinds");
    }
    if scene.policies.leaves_out(scene.namespace) {
        return one(&format!(
            "none: the API server shows taskgate nothing of namespace {}, which is a system's or labelled {}={}",
            scene.namespace,
            keys::ADMISSION,
            keys::ADMISSION_DISABLED
        ));
    }
    lines()
}

/// Which policy has the say in a section, and before which others.
fn line(section: Section, candidates: &[Candidate<'_>]) -> Option<Line> {
    let claims: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.mismatch.is_none())
        .filter_map(|candidate| Some((candidate, candidate.claim(section)?)))
        .collect();
    let (winner, claim) = claims.iter().find(|(_, claim)| claim.wins)?;
    let others: Vec<_> = claims
        .iter()
        .filter(|(other, _)| other.policy != winner.policy)
        .collect();
    let (merged, beaten): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, claim)| claim.wins);
    let list = |claims: &[&(&Candidate<'_>, _)]| {
        let ranked = |candidate: &Candidate<'_>| format!("{} (priority {})", candidate.policy, candidate.priority);
        let listed: Vec<_> = claims.iter().map(|(candidate, _)| ranked(candidate)).collect();
        listed.join(", ")
    };
    let mut why = Vec::new();
    if winner.enforced {
        why.push("enforced".to_owned());
    } else if merged.is_empty() && beaten.is_empty() {
        why.push("no other policy with this section selects it".to_owned());
    } else {
        why.push(format!("priority {}", winner.priority));
    }
    if !merged.is_empty() {
        why.push(format!("merged key by key with {}", list(&merged)));
    }
    if !beaten.is_empty() {
        let tie = beaten
            .iter()
            .any(|(other, _)| other.enforced == winner.enforced && other.priority == winner.priority);
        let rule = if tie {
            "; of equals a TaskPolicy, then the first name"
        } else {
            ""
        };
        why.push(format!("before {}{rule}", list(&beaten)));
    }
    if let Some((other, _)) = beaten.iter().find(|(_, claim)| claim.tightens) {
        why.push(format!(
            "of whose limits and of those of {} the stricter apply",
            other.policy
        ));
    }
    let off = if claim.mode == Mode::Off {
        ", so it does nothing"
    } else {
        ""
    };
    let text = format!(
        "{} by {} ({:?}{off}): {}",
        section.as_str(),
        winner.policy,
        claim.mode,
        why.join(", ")
    );
    Some(Line::new(Topic::Policy, text))
}

/// The section that says how what no spawner makes again is retried.
fn retry_line(scene: &Scene<'_>, object: Retried<'_>, candidates: &[Candidate<'_>]) -> Option<Line> {
    let line = line(Section::Retry, candidates)?;
    if scene.policies.retry(scene.namespace, object).is_some() || line.text.contains("(Off") {
        return Some(line);
    }
    let text = format!(
        "{}; it leaves every {} alone (spec.retry.kinds)",
        line.text,
        object.kind().as_str()
    );
    Some(Line::new(Topic::Policy, text))
}

fn finish(scene: &Scene<'_>, mut lines: Vec<Line>, candidates: &[Candidate<'_>]) -> Vec<Line> {
    if lines.is_empty() {
        lines.push(Line::new(Topic::Policy, "none governs it"));
    }
    let others: Vec<_> = candidates
        .iter()
        .filter_map(|other| Some(format!("not {}: {}", other.policy, other.mismatch?)))
        .collect();
    let broken = scene.policies.written.iter().filter_map(|written| {
        let problem = written.problem.as_ref()?;
        Some(format!("not {}: it cannot be applied: {problem}", written.name))
    });
    lines.extend(others.iter().take(NAMED).map(|text| Line::new(Topic::Policy, text)));
    if let Some(more) = others.len().checked_sub(NAMED).filter(|more| *more > 0) {
        lines.push(Line::new(
            Topic::Policy,
            format!("nor {more} more policies, which do not select it"),
        ));
    }
    lines.extend(broken.map(|text| Line::new(Topic::Policy, text)));
    lines
}
