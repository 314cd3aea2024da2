//! How tasks end, and the phase of their Workload then: F6, F7, F8, F21, F24.

use crate::support::{ISSUE, children, finding, names, start, status_and_reason};
use foreman_standin::Outcome;
use foreman_standin::types::AgenticTask;
use serde_json::{Value, json};
use taskgate_e2e::CODER;

fn extra(task: &AgenticTask, pointer: &str) -> Value {
    let result = task.current().result.unwrap_or_default();
    result.pointer(&format!("/extra{pointer}")).cloned().unwrap_or_default()
}

#[tokio::test]
async fn f06_a_bad_verdict_is_a_success_of_the_task_and_a_failure_of_the_workload() -> anyhow::Result<()> {
    let fixture = start("f06").await?;
    for (name, outcome) in [
        ("no-go", Outcome::declined("MODEL-DECIDED", "cannot be done")),
        ("incomplete", Outcome::incomplete("MaxTurnsExhausted")),
        ("gate", Outcome::gate_fail()),
    ] {
        fixture.workload(name, CODER).await?;
        let task = fixture.finish(&format!("{name}-code-7"), outcome.clone()).await?;
        assert_eq!((task.phase(), task.verdict()), ("Succeeded", outcome.verdict.as_str()));
        assert_eq!(task.condition("Completed").map(|(status, ..)| status), Some("True"));
        let failed = fixture.await_workload_phase(name, "Failed").await?;
        assert_eq!(
            status_and_reason(&failed, "Completed"),
            Some(("False", "ChildrenIncomplete"))
        );
        assert_eq!(
            (failed.current().incomplete_tasks, failed.current().failed_tasks),
            (Some(1), None)
        );
    }
    fixture.workload("broken", CODER).await?;
    let task = fixture
        .finish("broken-code-7", Outcome::executor_error("403 from the model"))
        .await?;
    assert_eq!((task.phase(), task.verdict()), ("Failed", "INCOMPLETE"));
    let failed = fixture.await_workload_phase("broken", "Failed").await?;
    assert_eq!(
        status_and_reason(&failed, "Completed"),
        Some(("False", "ChildrenFailed"))
    );
    Ok(())
}

#[tokio::test]
async fn f07_what_depends_on_a_failure_fails_with_it_and_is_skipped_if_there_was_nothing_to_do() -> anyhow::Result<()> {
    let fixture = start("f07").await?;
    fixture.workload("bad", ISSUE).await?;
    fixture
        .finish("bad-code-7", Outcome::declined("MODEL-DECIDED", "no"))
        .await?;
    for task in ["bad-verify-7", "bad-review-7-0"] {
        let task = fixture
            .await_agentic_task(task, "has failed", |task| task.phase() == "Failed")
            .await?;
        assert_eq!(task.verdict(), "INCOMPLETE");
        assert_eq!(
            task.condition("Failed").map(|(_, reason, _)| reason),
            Some("UpstreamFailed")
        );
        assert!(task.current().failure_reason.is_empty());
    }
    let failed = fixture.await_workload_phase("bad", "Failed").await?;
    assert_eq!(
        status_and_reason(&failed, "Completed"),
        Some(("False", "ChildrenFailed"))
    );

    fixture.workload("done", ISSUE).await?;
    fixture
        .finish("done-code-7", Outcome::declined("ALREADY-RESOLVED", "is on main"))
        .await?;
    let skipped = |task: &AgenticTask| (task.phase(), task.verdict()) == ("Succeeded", "Skipped");
    fixture
        .await_agentic_task("done-verify-7", "is skipped", skipped)
        .await?;
    let workload = fixture.await_workload("done", "has nothing to fail for", |w| w.phase() != "Dispatched");
    // Its review depends on a task that is skipped, not resolved: on target it is not, so it fails.
    assert_eq!(workload.await?.phase(), "Failed");
    fixture.workload("alone", CODER).await?;
    fixture
        .finish("alone-code-7", Outcome::declined("ALREADY-RESOLVED", "is on main"))
        .await?;
    let completed = fixture.await_workload_phase("alone", "Completed").await?;
    assert_eq!(
        status_and_reason(&completed, "Completed"),
        Some(("True", "AllAlreadyResolved"))
    );
    assert_eq!(
        status_and_reason(&completed, "CoderAlreadyResolved"),
        Some(("True", "AlreadyResolved"))
    );
    Ok(())
}

#[tokio::test]
async fn f08_a_reviewers_no_go_is_one_more_round_by_default() -> anyhow::Result<()> {
    let fixture = start("f08").await?;
    fixture.workload("wl", ISSUE).await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    fixture.finish("wl-verify-7", Outcome::gate_pass()).await?;
    let no = Outcome::rejected("tests are missing", &json!([finding("no test for the leap year")]));
    fixture.finish("wl-review-7-0", no.clone()).await?;
    let again = fixture.await_agentic_task("wl-code-7-r1", "is there", |_| true).await?;
    let payload = &again.spec.payload;
    assert_eq!(
        (&payload["reviseFromBranch"], &payload["branchStrategy"]),
        (&payload["branch"], &json!("rebase"))
    );
    let prompt = payload["prompt"].as_str().unwrap_or_default();
    assert!(
        prompt.contains("tests are missing") && prompt.contains("leap year"),
        "{prompt}"
    );
    fixture.finish("wl-code-7-r1", Outcome::go()).await?;
    fixture.finish("wl-verify-7-r1", Outcome::gate_pass()).await?;
    fixture.finish("wl-review-7-0-r1", no.clone()).await?;
    let failed = fixture.await_workload_phase("wl", "Failed").await?;
    assert_eq!(
        status_and_reason(&failed, "Completed"),
        Some(("False", "ChildrenIncomplete"))
    );
    // The first round counts no more.
    assert_eq!(
        (failed.current().incomplete_tasks, failed.current().succeeded_tasks),
        (Some(1), Some(2))
    );
    assert_eq!(
        (
            failed.current().review_iterations,
            children(&fixture, "wl").await?.len()
        ),
        (Some(1), 6)
    );

    fixture
        .workload("once", &format!("{ISSUE}, maxReviewIterations: 0"))
        .await?;
    fixture.finish("once-code-7", Outcome::go()).await?;
    fixture.finish("once-verify-7", Outcome::gate_pass()).await?;
    fixture.finish("once-review-7-0", no).await?;
    fixture.await_workload_phase("once", "Failed").await?;
    assert_eq!(
        names(&children(&fixture, "once").await?),
        ["once-code-7", "once-review-7-0", "once-verify-7"]
    );
    Ok(())
}

#[tokio::test]
async fn f21_infrastructure_has_three_shapes() -> anyhow::Result<()> {
    let fixture = start("f21").await?;
    for name in ["executor", "job", "refused"] {
        fixture.workload(name, CODER).await?;
    }
    let task = fixture
        .finish("executor-code-7", Outcome::executor_error("no route to the model"))
        .await?;
    assert_eq!(
        (task.phase(), task.current().failure_reason.as_str()),
        ("Failed", "InfrastructureError")
    );
    assert_eq!(
        task.condition("Completed"),
        Some(("False", "ExecutorError", "no route to the model"))
    );
    assert_eq!(task.current().result, None);

    let task = fixture.finish("job-code-7", Outcome::job_error("evicted")).await?;
    assert_eq!((task.phase(), task.verdict()), ("Succeeded", "NO-GO"));
    assert_eq!(task.current().failure_reason, "InfrastructureError");
    assert_eq!(extra(&task, "/outcome"), "JOB-ERROR");

    let task = fixture.finish("refused-code-7", Outcome::verdict("MAYBE")).await?;
    assert_eq!((task.phase(), task.verdict()), ("Failed", "INCOMPLETE"));
    assert_eq!(
        task.condition("Completed").map(|(_, reason, _)| reason),
        Some("TerminalPatchRejected")
    );
    assert_eq!(task.current().result.unwrap_or_default()["verdict"], "MAYBE");
    Ok(())
}

#[tokio::test]
async fn f24_findings_are_a_list_and_the_summary_is_the_results_own() -> anyhow::Result<()> {
    let fixture = start("f24").await?;
    fixture.workload("wl", CODER).await?;
    let no = Outcome::rejected("not yet", &json!([finding("a"), finding("b")]));
    let task = fixture.finish("wl-code-7", no).await?;
    let findings = extra(&task, "/modelExtra/findings");
    assert_eq!(findings.pointer("/1/message"), Some(&json!("b")));
    let result = task.current().result.unwrap_or_default();
    assert_eq!(
        (&result["summary"], &result["schemaVersion"]),
        (&json!("not yet"), &json!("foreman.v1"))
    );
    assert_eq!(extra(&task, "/modelSummary"), Value::Null);
    assert_eq!(
        task.condition("Completed"),
        Some(("True", "ExecutorSucceeded", "not yet"))
    );

    fixture.workload("human", CODER).await?;
    let task = fixture
        .finish("human-code-7", Outcome::declared("DESIGN-DECISION"))
        .await?;
    assert_eq!(extra(&task, "/modelExtra/escalation"), "DESIGN-DECISION");
    Ok(())
}
