//! Which steps a Workload is made of (F2, F3, F4).

use crate::types::{NameRef, Step, Workload};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// The steps, and whether `maxTasks` has cut some off.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) truncated: bool,
}

/// A pipeline wins over issues; with neither there is nothing to do, and the text says so.
pub(super) fn choose(workload: &Workload) -> Result<Plan, &'static str> {
    let spec = &workload.spec;
    let mut steps = match (&spec.coder_agent_ref, spec.issues.is_empty()) {
        _ if !spec.pipeline.is_empty() => spec.pipeline.clone(),
        (Some(coder), false) => {
            let rounds = spec
                .issues
                .iter()
                .flat_map(|&issue| round(workload, coder, issue, 0, None));
            rounds.collect()
        }
        (None, false) => return Err("issues need a coderAgentRef"),
        (_, true) => return Err("neither a pipeline nor issues, and there is no planner yet"),
    };
    let truncated = spec.max_tasks > 0 && steps.len() > spec.max_tasks;
    if truncated {
        steps.truncate(spec.max_tasks);
    }
    Ok(Plan { steps, truncated })
}

/// The name of a step in a round: the first round is 0.
pub(super) fn step_name(base: &str, round: usize) -> String {
    match round {
        0 => base.to_owned(),
        round => format!("{base}-r{round}"),
    }
}

/// One round over an issue: code, verify if there is a verifier, all reviews at once. A later round revises the branch
/// of the one before, with what its reviewers said (F8).
pub(super) fn round(
    workload: &Workload,
    coder: &NameRef,
    issue: i32,
    number: usize,
    feedback: Option<String>,
) -> Vec<Step> {
    let spec = &workload.spec;
    let branch = format!("foreman/{}/issue-{issue}", workload.name_any());
    let payload = |more: &[(&str, Value)]| -> Value {
        let mut payload = Map::new();
        payload.insert("repo".to_owned(), json!(spec.repo));
        payload.insert("issue".to_owned(), json!(issue));
        payload.insert("branch".to_owned(), json!(branch));
        payload.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        Value::Object(payload)
    };
    let code = step_name(&format!("code-{issue}"), number);
    let mut of_code = vec![("promptPrefix", json!(intent(workload)))];
    match feedback {
        None if spec.allow_overwrite => of_code.push(("allowOverwrite", json!(true))),
        None => {}
        Some(feedback) => of_code.extend([
            ("prompt", json!(feedback)),
            ("reviseFromBranch", json!(branch)),
            ("branchStrategy", json!("rebase")),
            ("allowOverwrite", json!(true)),
        ]),
    }
    let mut steps = vec![step(&code, "issue-fix", coder, payload(&of_code), None)];
    let mut before = code;
    if let Some(verifier) = &spec.verifier_agent_ref {
        let verify = step_name(&format!("verify-{issue}"), number);
        steps.push(step(&verify, "verify", verifier, payload(&[]), Some(before)));
        before = verify;
    }
    let opens = spec.open_pull_request.unwrap_or(true);
    let of_review: &[_] = if opens {
        &[("openPullRequest", json!(true))]
    } else {
        &[]
    };
    for (index, reviewer) in spec.reviewer_agent_refs.iter().enumerate() {
        let review = step_name(&format!("review-{issue}-{index}"), number);
        let after = Some(before.clone());
        steps.push(step(&review, "review", reviewer, payload(of_review), after));
    }
    steps
}

fn step(name: &str, kind: &str, agent: &NameRef, payload: Value, after: Option<String>) -> Step {
    Step {
        name: name.to_owned(),
        kind: kind.to_owned(),
        agent_ref: agent.clone(),
        payload,
        depends_on: after.into_iter().collect(),
        ..Step::default()
    }
}

/// What every coder reads before the issue's own text.
fn intent(workload: &Workload) -> String {
    format!("What the operator wants of this run:\n{}", workload.spec.intent.trim())
}
