//! What the next run is told: A39 to A45, A48.

use anyhow::ensure;
use foreman_standin::{Outcome, types::Workload};
use serde_json::{Value, json};

use crate::{
    steps::{reviewed, stuck, three, workload, workload_with},
    world::World,
};

const MARK: &str = "taskgate:feedback";

async fn told(hint: &str) -> anyhow::Result<World> {
    World::start(hint, three(json!({"feedback": true}))).await
}

/// Lets the review reject what code and gate let pass.
async fn reject(world: &World, name: &str, findings: &Value) -> anyhow::Result<Workload> {
    let before = world.phase(name, "Dispatched").await?;
    world.finish(&format!("{name}-code-7"), Outcome::go()).await?;
    world.finish(&format!("{name}-verify-7"), Outcome::gate_pass()).await?;
    let no = Outcome::rejected("not yet", findings);
    world.finish(&format!("{name}-review-7-0"), no).await?;
    Ok(before)
}

#[tokio::test]
async fn a39_a43_what_the_reviewer_found_reaches_the_next_coder() -> anyhow::Result<()> {
    let world = told("a39").await?;
    world.make(&reviewed("wl")).await?;
    let findings = json!([
        {"severity": "major", "area": "tests", "message": "no test for the leap year", "file": "src/date.rs", "line": 9},
        {"severity": "minor", "area": "style", "message": "naming", "suggestion": "call it days"},
    ]);
    let first = reject(&world, "wl", &findings).await?;
    let second = world.next(&first).await?;
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
    let child = world.child_of(&second, "code-7").await?;
    let prefix = child.spec.payload["promptPrefix"].as_str().unwrap_or_default();
    ensure!(prefix.contains("no test for the leap year"), "{prefix}");

    // Again: replaced, not piled up.
    let flags = json!({"missing_tests": true, "scope_creep": false, "missing_tests_details": "none for parse()"});
    reject(&world, "wl", &flags).await?;
    let third = world.next(&second).await?;
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
async fn a40_a_coders_error_is_told_bounded_and_without_secrets() -> anyhow::Result<()> {
    let world = told("a40").await?;
    world.make(&workload("wl")).await?;
    let token = format!("ghp_{}", "a1B2".repeat(9));
    let error = format!("push failed with {token} {}", "and so on ".repeat(1000));
    let outcome = Outcome::declined("PUSH-FAILED", "commit rejected").with_extra("error", json!(error));
    let first = world.end("wl", outcome).await?;
    let second = world.next(&first).await?;
    let intent = second.spec.intent.as_str();
    ensure!(intent.contains("push failed") && !intent.contains(&token), "{intent}");
    let block = intent.chars().count() - "Fix it.\n\n".chars().count();
    ensure!((1900..=2000).contains(&block), "{block} characters");
    ensure!(intent.trim_end().ends_with("<!-- /taskgate:feedback -->"), "{intent}");
    Ok(())
}

#[tokio::test]
async fn a41_nothing_to_act_upon_is_a_plain_retry() -> anyhow::Result<()> {
    let world = told("a41").await?;
    world.make(&workload("silent")).await?;
    let first = world.end("silent", Outcome::incomplete("MaxTurnsExhausted")).await?;
    let second = world.next(&first).await?;
    assert_eq!(second.spec, first.spec);
    world.make(&workload("garbage")).await?;
    let garbage = Outcome::verdict("NO-GO")
        .with_extra("modelExtra", json!(["no", "map"]))
        .with_extra("error", json!(7));
    let first = world.end("garbage", garbage).await?;
    let second = world.next(&first).await?;
    assert_eq!(second.spec, first.spec);
    Ok(())
}

#[tokio::test]
async fn a42_a44_a45_a_pipeline_stays_as_it_is_but_for_what_its_coders_read() -> anyhow::Result<()> {
    let world = told("a42").await?;
    let steps = json!([
        {"name": "code-7", "kind": "issue-fix", "agentRef": {"name": "coder"}, "payload": {"issue": 7, "promptPrefix": "Mind."}},
        {"name": "verify-7", "kind": "verify", "agentRef": {"name": "gate"}, "dependsOn": ["code-7"], "payload": {"issue": 7}},
        {"name": "review-7-0", "kind": "review", "agentRef": {"name": "reviewer"}, "dependsOn": ["verify-7"],
         "payload": {"issue": 7, "openPullRequest": true}},
    ]);
    world.make(&workload_with("wl", &json!({"pipeline": steps}))).await?;
    let first = reject(&world, "wl", &json!([{"message": "too wide"}])).await?;
    let second = world.next(&first).await?;
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
async fn a43_without_feedback_the_next_run_is_told_nothing() -> anyhow::Result<()> {
    let world = World::start("a43", three(json!({}))).await?;
    world.make(&reviewed("wl")).await?;
    let first = reject(&world, "wl", &json!([{"message": "too wide"}])).await?;
    let second = world.next(&first).await?;
    assert_eq!(second.spec, first.spec);
    Ok(())
}

#[tokio::test]
async fn a48_a_number_that_is_none_is_no_issue() -> anyhow::Result<()> {
    let world = told("a48").await?;
    for name in ["wl-acme-app-x7", "wl-app"] {
        let mut object = workload(name);
        object["spec"] = json!({"intent": "Fix it.", "pipeline": [
            {"name": "code-7", "kind": "issue-fix", "agentRef": {"name": "coder"}, "payload": {"prompt": "Do it."}}]});
        world.make(&object).await?;
        let first = world.end(name, stuck()).await?;
        let second = world.next(&first).await?;
        let annotations = second.metadata.annotations.clone().unwrap_or_default();
        ensure!(
            !annotations.contains_key("foreman.llmkube.dev/issue-id"),
            "{annotations:?}"
        );
    }
    Ok(())
}
