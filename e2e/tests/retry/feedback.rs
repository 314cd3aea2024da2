//! Feedback to the next run.

use anyhow::ensure;
use foreman_standin::{Outcome, types::Workload};
use serde_json::{Value, json};
use taskgate_e2e::{ForemanFixture, stuck};

use crate::support::{reviewed, start, three, workload, workload_with};

const MARK: &str = "taskgate:feedback";

async fn start_with_feedback(hint: &str) -> anyhow::Result<ForemanFixture<'static>> {
    start(hint, three(json!({"feedback": true}))).await
}

/// Lets the review reject what code and gate accepted.
async fn reject(fixture: &ForemanFixture<'_>, name: &str, findings: &Value) -> anyhow::Result<Workload> {
    let before = fixture.await_workload_phase(name, "Dispatched").await?;
    fixture.finish(&format!("{name}-code-7"), Outcome::go()).await?;
    fixture
        .finish(&format!("{name}-verify-7"), Outcome::gate_pass())
        .await?;
    let no = Outcome::rejected("not yet", findings);
    fixture.finish(&format!("{name}-review-7-0"), no).await?;
    Ok(before)
}

#[tokio::test]
async fn a_reviewers_findings_reach_the_next_coder() -> anyhow::Result<()> {
    let fixture = start_with_feedback("a39").await?;
    fixture.created(&reviewed("wl")).await?;
    let findings = json!([
        {"severity": "major", "area": "tests", "message": "no test for the leap year", "file": "src/date.rs", "line": 9},
        {"severity": "minor", "area": "style", "message": "naming", "suggestion": "call it days"},
    ]);
    let first = reject(&fixture, "wl", &findings).await?;
    let second = fixture.await_successor(&first).await?;
    let intent = second.spec.intent.as_str();
    ensure!(intent.starts_with("Fix it.\n"), "{intent}");
    for part in [
        MARK,
        "no test for the leap year",
        "src/date.rs:9",
        "call it days",
        "not yet",
    ] {
        ensure!(intent.contains(part), "{part}: {intent}");
    }
    ensure!(
        second.spec.pipeline.is_empty() && second.spec.issues == [7],
        "the path stays"
    );
    let child = fixture.await_child(&second, "code-7").await?;
    let prefix = child.spec.payload["promptPrefix"].as_str().unwrap_or_default();
    ensure!(prefix.contains("no test for the leap year"), "{prefix}");

    // Again: replaced, not appended.
    let flags = json!({"missing_tests": true, "scope_creep": false, "missing_tests_details": "none for parse()"});
    reject(&fixture, "wl", &flags).await?;
    let third = fixture.await_successor(&second).await?;
    let intent = third.spec.intent.as_str();
    ensure!(
        intent.contains("none for parse()") && !intent.contains("leap year"),
        "{intent}"
    );
    ensure!(!intent.contains("scope_creep"), "{intent}");
    assert_eq!(intent.matches(&format!("<!-- {MARK} -->")).count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_coders_error_is_given_bounded_and_without_secrets() -> anyhow::Result<()> {
    let fixture = start_with_feedback("a40").await?;
    fixture.created(&workload("wl")).await?;
    let token = format!("ghp_{}", "a1B2".repeat(9));
    let error = format!("push failed with {token} {}", "and so on ".repeat(1000));
    let outcome = Outcome::declined("PUSH-FAILED", "commit rejected").with_extra("error", json!(error));
    let first = fixture.end("wl", outcome).await?;
    let second = fixture.await_successor(&first).await?;
    let intent = second.spec.intent.as_str();
    ensure!(intent.contains("push failed") && !intent.contains(&token), "{intent}");
    let block = intent.chars().count() - "Fix it.\n\n".chars().count();
    ensure!((1900..=2000).contains(&block), "{block} characters");
    ensure!(intent.trim_end().ends_with("<!-- /taskgate:feedback -->"), "{intent}");
    Ok(())
}

#[tokio::test]
async fn without_findings_it_is_a_plain_retry() -> anyhow::Result<()> {
    let fixture = start_with_feedback("a41").await?;
    fixture.created(&workload("silent")).await?;
    let first = fixture.end("silent", Outcome::incomplete("MaxTurnsExhausted")).await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(second.spec, first.spec);
    fixture.created(&workload("garbage")).await?;
    let garbage = Outcome::verdict("NO-GO")
        .with_extra("modelExtra", json!(["no", "map"]))
        .with_extra("error", json!(7));
    let first = fixture.end("garbage", garbage).await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(second.spec, first.spec);
    Ok(())
}

#[tokio::test]
async fn a_pipeline_stays_unchanged_but_for_its_coders_prompts() -> anyhow::Result<()> {
    let fixture = start_with_feedback("a42").await?;
    let steps = json!([
        {"name": "code-7", "kind": "issue-fix", "agentRef": {"name": "coder"}, "payload": {"issue": 7, "promptPrefix": "Mind."}},
        {"name": "verify-7", "kind": "verify", "agentRef": {"name": "gate"}, "dependsOn": ["code-7"], "payload": {"issue": 7}},
        {"name": "review-7-0", "kind": "review", "agentRef": {"name": "reviewer"}, "dependsOn": ["verify-7"],
         "payload": {"issue": 7, "openPullRequest": true}},
    ]);
    fixture
        .created(&workload_with("wl", &json!({"pipeline": steps})))
        .await?;
    let first = reject(&fixture, "wl", &json!([{"message": "too wide"}])).await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(
        (second.spec.issues.as_slice(), second.spec.intent.as_str()),
        ([7].as_slice(), "Fix it.")
    );
    assert_eq!(second.spec.revision_coder_agent_ref, None);
    let [code, verify, review] = &second.spec.pipeline[..] else {
        anyhow::bail!("{:?}", second.spec.pipeline)
    };
    let prefix = code.payload["promptPrefix"].as_str().unwrap_or_default();
    ensure!(prefix.starts_with("Mind.\n") && prefix.contains("too wide"), "{prefix}");
    ensure!(
        code.payload.get("prompt").is_none(),
        "a prompt would keep the issue's text away"
    );
    assert_eq!((verify, review), (&first.spec.pipeline[1], &first.spec.pipeline[2]));
    assert_eq!(review.payload["openPullRequest"], true);
    Ok(())
}

#[tokio::test]
async fn without_feedback_the_next_run_is_unchanged() -> anyhow::Result<()> {
    let fixture = start("a43", three(json!({}))).await?;
    fixture.created(&reviewed("wl")).await?;
    let first = reject(&fixture, "wl", &json!([{"message": "too wide"}])).await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(second.spec, first.spec);
    Ok(())
}

#[tokio::test]
async fn a_name_without_a_number_has_no_issue() -> anyhow::Result<()> {
    let fixture = start_with_feedback("a48").await?;
    for name in ["wl-acme-app-x7", "wl-app"] {
        let mut object = workload(name);
        object["spec"] = json!({"intent": "Fix it.", "pipeline": [
            {"name": "code-7", "kind": "issue-fix", "agentRef": {"name": "coder"}, "payload": {"prompt": "Do it."}}]});
        fixture.created(&object).await?;
        let first = fixture.end(name, stuck()).await?;
        let second = fixture.await_successor(&first).await?;
        let annotations = second.metadata.annotations.clone().unwrap_or_default();
        ensure!(
            !annotations.contains_key("foreman.llmkube.dev/issue-id"),
            "{annotations:?}"
        );
    }
    Ok(())
}
