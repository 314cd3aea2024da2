//! Further rounds: a reviewer's NO-GO sends the coder back, once if not told otherwise (F8). Issues only: a pipeline is
//! its author's.

use super::plan;
use crate::types::{AgenticTask, Step, Workload};
use serde_json::Value;
use std::collections::BTreeSet;

/// Rounds after the first, if the Workload does not say.
const MAX_ROUNDS: usize = 1;

/// The steps that are due and have no task yet.
pub(super) fn due(workload: &Workload, children: &[AgenticTask]) -> Vec<Step> {
    let spec = &workload.spec;
    let rounds = spec.max_review_iterations.unwrap_or(MAX_ROUNDS);
    let coder = spec.revision_coder_agent_ref.as_ref().or(spec.coder_agent_ref.as_ref());
    let Some(coder) = coder.filter(|_| spec.pipeline.is_empty()) else {
        return Vec::new();
    };
    let existing: BTreeSet<&str> = children.iter().map(AgenticTask::step).collect();
    let mut steps = Vec::new();
    for &issue in &spec.issues {
        for round in 1..=rounds {
            let Some(feedback) = rejected(children, issue, round - 1) else {
                break;
            };
            let planned = plan::round(workload, coder, issue, round, Some(feedback));
            steps.extend(
                planned
                    .into_iter()
                    .filter(|step| !existing.contains(step.name.as_str())),
            );
        }
    }
    steps
}

/// The children that count: those of the last round of their issue.
pub(super) fn active(workload: &Workload, children: Vec<AgenticTask>) -> Vec<AgenticTask> {
    if !workload.spec.pipeline.is_empty() {
        return children;
    }
    let issues = &workload.spec.issues;
    let place = |task: &AgenticTask| {
        issues
            .iter()
            .find_map(|&issue| Some((issue, round_of(task.step(), issue)?)))
    };
    let places: Vec<_> = children.iter().filter_map(place).collect();
    let superseded = |task: &AgenticTask| {
        place(task).is_some_and(|(issue, round)| places.iter().any(|&(of, later)| of == issue && later > round))
    };
    children.into_iter().filter(|task| !superseded(task)).collect()
}

/// How many rounds there have been, over all issues.
pub(super) fn count<'a>(workload: &Workload, steps: &(impl Iterator<Item = &'a str> + Clone)) -> usize {
    let last = |&issue: &i32| {
        steps
            .clone()
            .filter_map(|step| round_of(step, issue))
            .max()
            .unwrap_or(0)
    };
    workload.spec.issues.iter().map(last).sum()
}

/// What the reviewers of a round say, if all have ended and one of them with NO-GO.
fn rejected(children: &[AgenticTask], issue: i32, round: usize) -> Option<String> {
    let reviews = children
        .iter()
        .filter(|task| reviews(task.step(), issue) == Some(round));
    let mut told = Vec::new();
    for review in reviews {
        if !review.has_ended() {
            return None;
        }
        if review.verdict() == "NO-GO" {
            let result = review.current().result.unwrap_or_default();
            let summary = result.pointer("/summary").and_then(Value::as_str).unwrap_or_default();
            let findings = result.pointer("/extra/modelExtra/findings").unwrap_or(&Value::Null);
            told.push(format!("{}: {summary}\n{findings}", review.step()));
        }
    }
    let told = (!told.is_empty()).then(|| told.join("\n"))?;
    Some(format!(
        "The reviewers rejected the attempt that is on the branch:\n{told}"
    ))
}

/// The round that a step of an issue belongs to, if it is one.
fn round_of(step: &str, issue: i32) -> Option<usize> {
    let (rest, round) = split(step);
    let own = rest == format!("code-{issue}") || rest == format!("verify-{issue}");
    if own { Some(round) } else { reviews(step, issue) }
}

fn reviews(step: &str, issue: i32) -> Option<usize> {
    let (rest, round) = split(step);
    let index = rest.strip_prefix(&format!("review-{issue}-"))?;
    index.parse::<usize>().is_ok().then_some(round)
}

/// `code-7-r2` is round 2 of `code-7`.
fn split(step: &str) -> (&str, usize) {
    let tail = step.rsplit_once("-r");
    let parsed = tail.and_then(|(rest, round)| Some((rest, round.parse().ok()?)));
    parsed.unwrap_or((step, 0))
}
