//! The protocol, step by step, on Workloads.

use anyhow::ensure;
use foreman_standin::{
    Outcome,
    types::{AgenticTask, Workload},
};
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::{retry_status::RetryStage, work_item::Outcome as End};
use taskgate_e2e::{CODER, FOREIGN_FINALIZER, PATIENCE, await_gone, await_object, eventually, never};
use tokio::time::Duration;

use crate::support::{
    SEVEN, allow_workloads, await_retry, await_retry_condition, deny_workloads, quick, retry_condition, start,
};

/// Fields of a Workload with all three roles.
const ISSUE: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}, \
    verifierAgentRef: {name: gate}, reviewerAgentRefs: [{name: reviewer}], maxReviewIterations: 0";

fn annotation<'a>(workload: &'a Workload, key: &str) -> Option<&'a str> {
    workload.annotations().get(key).map(String::as_str)
}

#[tokio::test]
async fn a_failed_run_is_repeated_under_the_current_policy_and_nothing_is_written_to_it() -> anyhow::Result<()> {
    let fixture = start("again", json!({"maxAttempts": 3})).await?;
    let metadata = "labels: {lane: local}, annotations: {keep: me, foreman.llmkube.dev/issue-id: i-7}";
    fixture.workload_with("wl-acme-app-7", metadata, CODER).await?;
    let first = fixture.await_workload_phase("wl-acme-app-7", "Dispatched").await?;
    fixture
        .apply_policy(
            "retry",
            &json!({"retry": quick(json!({
                "maxAttempts": 3,
                "overrides": {"workload": {"coderAgentRef": {"name": "strong"}, "gateProfile": {"language": "rust"}}},
            }))}),
        )
        .await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.fail("wl-acme-app-7").await?;
    let second = fixture.await_attempt("wl-acme-app-7", "2").await?;
    ensure!(second.uid() != first.uid());
    ensure!(annotation(&second, "foreman.llmkube.dev/issue-id") == Some("i-7"));
    ensure!(annotation(&second, "foreman.llmkube.dev/agent-name") == Some("strong"));
    ensure!(annotation(&second, "taskgate.dev/retry-of") == first.uid().as_deref());
    ensure!(annotation(&second, "keep") == Some("me") && second.labels()["lane"] == "local");
    ensure!(
        second
            .spec
            .coder_agent_ref
            .as_ref()
            .is_some_and(|agent| agent.name == "strong")
    );
    ensure!(second.spec.gate_profile == Some(json!({"language": "rust"})));
    let item = await_retry_condition(&fixture, SEVEN, "Recreated").await?;
    let status = item.status.unwrap_or_default();
    let [attempt] = status.attempts.as_slice() else {
        anyhow::bail!("{status:?}")
    };
    ensure!(
        Some(&attempt.uid) == first.uid().as_ref() && attempt.outcome == End::Failed,
        "{attempt:?}"
    );
    ensure!(
        status
            .retry
            .is_some_and(|retry| retry.attempt == 2 && retry.transition.is_none())
    );
    for event in fixture.cp.audit().since(mark).await? {
        let of = &event.object_ref;
        let workload = of.resource == "workloads" && of.namespace == fixture.ns.name();
        let others = ["foreman-standin", "kube-controller-manager"];
        let ours = !others.iter().any(|other| event.user_agent.starts_with(other));
        ensure!(
            !(workload && ours && matches!(event.verb.as_str(), "update" | "patch")),
            "{event:?}"
        );
    }
    for about in ["wl-acme-app-7", item.metadata.name.as_deref().unwrap_or_default()] {
        fixture
            .await_event(about, "RunFailed", &["attempt 1", "STUCKLOOPDETECTED"])
            .await?;
        fixture.await_event(about, "Retried", &["attempt 2"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn at_the_limit_the_object_stays_unchanged() -> anyhow::Result<()> {
    let fixture = start("cap", json!({"maxAttempts": 2})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    fixture.await_attempt("wl", "2").await?;
    fixture.fail("wl").await?;
    let tombstone = fixture.await_workload_phase("wl", "Failed").await?;
    let item = await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(retry_condition(&status).1.contains("attempt 2 of 2"), "{status:?}");
    ensure!(status.attempts.len() == 2, "{status:?}");
    fixture.await_event("wl", "RetryGivenUp", &["attempt 2 of 2"]).await?;
    let counted = fixture.gate.metrics().await?;
    let labels = [("kind", "Workload"), ("outcome", "max_attempts")];
    ensure!(
        counted
            .value("taskgate_retries_total", &labels)
            .is_some_and(|count| count >= 1.0)
    );
    never("the tombstone is changed", Duration::from_secs(3), || async {
        let now = fixture.workloads().get("wl").await?;
        // Foreman itself rewrites the times of its conditions.
        let mine = |workload: &Workload| {
            (
                workload.uid(),
                workload.annotations().clone(),
                workload.labels().clone(),
            )
        };
        let unchanged = mine(&now) == mine(&tombstone) && now.metadata.deletion_timestamp.is_none();
        Ok((!unchanged).then_some("changed"))
    })
    .await?;
    ensure!(fixture.runs("wl") == 2, "{} runs", fixture.runs("wl"));
    // A higher limit takes effect at once.
    fixture
        .apply_policy("retry", &json!({"retry": quick(json!({"maxAttempts": 3}))}))
        .await?;
    fixture.await_attempt("wl", "3").await.map(drop)
}

#[tokio::test]
async fn the_number_on_the_object_counts_where_it_is_higher() -> anyhow::Result<()> {
    let fixture = start("numbers", json!({"maxAttempts": 3})).await?;
    for (issue, stated, next) in [
        (1, "2", Some("3")),
        (2, "junk", Some("2")),
        (3, "-4", Some("2")),
        (4, "7", None),
    ] {
        let (name, child) = (format!("wl-{issue}"), format!("wl-{issue}-code-{issue}"));
        let metadata = format!("annotations: {{foreman.llmkube.dev/attempt: '{stated}'}}");
        let spec = format!("issues: [{issue}], repo: acme/app, coderAgentRef: {{name: coder}}");
        fixture.workload_with(&name, &metadata, &spec).await?;
        fixture
            .finish(&child, Outcome::declined("NO-CHANGES", "nothing"))
            .await?;
        match next {
            Some(next) => drop(fixture.await_attempt(&name, next).await?),
            None => drop(await_retry_condition(&fixture, "Workload/acme/app#4", "MaxAttemptsReached").await?),
        }
    }
    Ok(())
}

#[tokio::test]
async fn failures_of_the_cluster_have_a_limit_of_their_own_and_the_number_stays() -> anyhow::Result<()> {
    let fixture = start("infra", json!({"maxAttempts": 3, "maxInfrastructureFailures": 2})).await?;
    fixture.workload("wl", CODER).await?;
    let first = fixture.await_workload_phase("wl", "Dispatched").await?;
    fixture.finish("wl-code-7", Outcome::executor_error("no route")).await?;
    let second = fixture.await_attempt("wl", "1").await?;
    ensure!(second.uid() != first.uid());
    fixture.finish("wl-code-7", Outcome::job_error("image")).await?;
    await_retry_condition(&fixture, SEVEN, "MaxInfrastructureFailuresReached").await?;
    ensure!(fixture.runs("wl") == 2);
    Ok(())
}

#[tokio::test]
async fn success_starts_the_count_over() -> anyhow::Result<()> {
    let fixture = start("success", json!({"maxAttempts": 2})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    fixture.await_attempt("wl", "2").await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    await_retry(&fixture, SEVEN, "is at 0", |_, retry| retry.attempt == 0).await?;
    await_retry_condition(&fixture, SEVEN, "Succeeded").await?;
    let delete = ["delete", "workloads.foreman.llmkube.dev", "wl"];
    fixture.kubectl(delete).await?.stdout_ok()?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    fixture.await_attempt("wl", "2").await.map(drop)
}

#[tokio::test]
async fn a_refused_successor_keeps_the_object_with_the_reason() -> anyhow::Result<()> {
    let fixture = start("refused", json!({"maxAttempts": 3})).await?;
    let refusal = "no second tries here";
    let expression = "!('foreman.llmkube.dev/attempt' in object.metadata.?annotations.orValue({}))";
    deny_workloads(&fixture, expression, refusal).await?;
    fixture.workload("wl", CODER).await?;
    let first = fixture.await_workload_phase("wl", "Dispatched").await?;
    fixture.fail("wl").await?;
    let item = await_retry_condition(&fixture, SEVEN, "SuccessorRefused").await?;
    ensure!(
        retry_condition(&item.status.clone().unwrap_or_default())
            .1
            .contains(refusal),
        "{item:?}"
    );
    fixture.await_event("wl", "RetryRefused", &[refusal]).await?;
    let there = fixture.workloads().get("wl").await?;
    ensure!(there.uid() == first.uid() && there.metadata.deletion_timestamp.is_none());
    ensure!(fixture.runs("wl") == 1);
    allow_workloads(&fixture).await?;
    // Any change of a policy lets taskgate try again.
    fixture
        .apply_policy("retry", &json!({"retry": quick(json!({"maxAttempts": 4}))}))
        .await?;
    fixture.await_attempt("wl", "2").await.map(drop)
}

#[tokio::test]
async fn a_field_that_the_crd_does_not_have_is_refused_and_not_dropped() -> anyhow::Result<()> {
    let overrides = json!({"workload": {"gateprofile": {"language": "go"}}});
    let fixture = start("strict", json!({"maxAttempts": 3, "overrides": overrides})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    let item = await_retry_condition(&fixture, SEVEN, "SuccessorRefused").await?;
    ensure!(
        retry_condition(&item.status.unwrap_or_default())
            .1
            .contains("gateprofile")
    );
    ensure!(
        fixture
            .await_workload_phase("wl", "Failed")
            .await?
            .metadata
            .deletion_timestamp
            .is_none()
    );
    Ok(())
}

#[tokio::test]
async fn a_deletion_that_hangs_is_reported_and_blocks_no_other() -> anyhow::Result<()> {
    let fixture = start(
        "wedged",
        json!({"maxAttempts": 3, "maxInFlight": 1, "maxInFlightPerNamespace": 1}),
    )
    .await?;
    fixture.workload("wl", CODER).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    // A foreign finalizer on the child keeps its parent as well.
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", true).await?;
    fixture.fail("wl").await?;
    await_retry(&fixture, SEVEN, "is deleting", |_, retry| {
        retry
            .transition
            .as_ref()
            .is_some_and(|transition| transition.step == RetryStage::Deleted)
    })
    .await?;
    let spec = "issues: [8], repo: acme/app, coderAgentRef: {name: coder}";
    fixture.workload("other", spec).await?;
    fixture
        .finish("other-code-8", Outcome::declined("NO-CHANGES", "nothing"))
        .await?;
    // The one slot is free again after a minute.
    let patience = PATIENCE + Duration::from_mins(1);
    eventually("an Event names the blocker", patience, || async {
        let events = fixture.events_with_reason("wl", "RetryBlocked").await?;
        let mut notes = events.iter().filter_map(|event| event.note.as_deref());
        ensure!(notes.any(|note| note.contains(FOREIGN_FINALIZER)), "{events:?}");
        Ok(())
    })
    .await?;
    await_retry_condition(&fixture, SEVEN, "RetryBlocked").await?;
    fixture.await_attempt("other", "2").await?;
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", false).await?;
    fixture.await_attempt("wl", "2").await?;
    ensure!(fixture.runs("wl") == 2 && fixture.runs("other") == 2);
    Ok(())
}

#[tokio::test]
async fn deleting_the_tombstone_ends_the_retries_and_starts_the_count_over() -> anyhow::Result<()> {
    let fixture = start("tombstone", json!({"maxAttempts": 1})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;
    let delete = ["delete", "workloads.foreman.llmkube.dev", "wl"];
    fixture.kubectl(delete).await?.stdout_ok()?;
    await_retry(&fixture, SEVEN, "starts over", |_, retry| retry.attempt == 0).await?;
    never("it is created again", Duration::from_secs(3), || async {
        let unchanged = fixture.workloads().get_opt("wl").await?.is_none();
        Ok((!unchanged).then_some("changed"))
    })
    .await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    await_retry(&fixture, SEVEN, "counts from 1", |_, retry| retry.attempt == 1)
        .await
        .map(drop)
}

#[tokio::test]
async fn an_object_that_a_user_deletes_before_its_retry_is_not_created_again() -> anyhow::Result<()> {
    let backoff = json!({"initial": "1h", "max": "1h"});
    let fixture = start("deleted", json!({"maxAttempts": 3, "backoff": backoff})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    await_retry(&fixture, SEVEN, "is recorded", |_, retry| retry.failure.is_some()).await?;
    let delete = ["delete", "workloads.foreman.llmkube.dev", "wl"];
    fixture.kubectl(delete).await?.stdout_ok()?;
    await_gone(&fixture.workloads(), "wl").await?;
    await_retry_condition(&fixture, SEVEN, "DeletedExternally").await?;
    // The count goes on: deleting and creating anew does not bypass the limit.
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    await_retry(&fixture, SEVEN, "is at 2", |_, retry| retry.attempt == 2)
        .await
        .map(drop)
}

#[tokio::test]
async fn an_object_of_another_owner_in_its_place_is_not_changed() -> anyhow::Result<()> {
    let fixture = start("replaced", json!({"maxAttempts": 3})).await?;
    // While its successor is refused, nothing is deleted; once it is deleted, a user creates another one first.
    fixture.workload("wl", CODER).await?;
    fixture.set_foreign_finalizer::<Workload>("wl", true).await?;
    fixture.fail("wl").await?;
    await_retry(&fixture, SEVEN, "is deleted", |_, retry| {
        retry
            .transition
            .as_ref()
            .is_some_and(|transition| transition.step == RetryStage::Deleted)
    })
    .await?;
    deny_workloads(
        &fixture,
        "object.metadata.?labels.orValue({}).?by.orValue('') == 'them'",
        "only theirs",
    )
    .await?;
    fixture.set_foreign_finalizer::<Workload>("wl", false).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    await_retry_condition(&fixture, SEVEN, "SuccessorRefused").await?;
    fixture.workload_with("wl", "labels: {by: them}", CODER).await?;
    allow_workloads(&fixture).await?;
    fixture
        .apply_policy("retry", &json!({"retry": quick(json!({"maxAttempts": 4}))}))
        .await?;
    await_retry_condition(&fixture, SEVEN, "ReplacedExternally").await?;
    let theirs = fixture.workloads().get("wl").await?;
    ensure!(theirs.labels()["by"] == "them" && annotation(&theirs, "taskgate.dev/retry-of").is_none());
    // A further run of the same work: it counts.
    fixture.fail("wl").await?;
    fixture.await_attempt("wl", "3").await.map(drop)
}

#[tokio::test]
async fn the_next_run_gets_the_reason_of_the_last_failure() -> anyhow::Result<()> {
    let fixture = start("feedback", json!({"maxAttempts": 3, "feedback": true})).await?;
    fixture.workload("wl", ISSUE).await?;
    for message in ["parse() has no test", "the second reason"] {
        fixture.finish("wl-code-7", Outcome::go()).await?;
        fixture.finish("wl-verify-7", Outcome::gate_pass()).await?;
        let finding =
            json!([{"severity": "major", "area": "tests", "message": message, "file": "src/a.rs", "line": 3}]);
        fixture
            .finish("wl-review-7-0", Outcome::rejected("not yet", &finding))
            .await?;
        let next = if message.starts_with("parse") { "2" } else { "3" };
        let next_run = fixture.await_attempt("wl", next).await?;
        ensure!(
            next_run.spec.intent.starts_with("Fix it.\n"),
            "{}",
            next_run.spec.intent
        );
        ensure!(
            next_run
                .spec
                .intent
                .contains(&format!("> [major, tests] src/a.rs:3: {message}")),
            "{}",
            next_run.spec.intent
        );
        ensure!(
            next_run.spec.intent.matches("## Why the previous run failed").count() == 1,
            "{}",
            next_run.spec.intent
        );
        ensure!(next_run.spec.issues == [7] && next_run.spec.pipeline.is_empty());
        // It reaches the coder, who is still given the issue.
        let coder = await_object(&fixture.agentic_tasks(), "wl-code-7", "is the next one", |child| {
            let owner = child.metadata.owner_references.iter().flatten().next();
            owner.map(|owner| &owner.uid) == next_run.metadata.uid.as_ref()
        })
        .await?;
        let prefix = coder.spec.payload["promptPrefix"].as_str().unwrap_or_default();
        ensure!(
            prefix.contains(message) && coder.spec.payload.get("prompt").is_none_or(|prompt| prompt == ""),
            "{coder:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_needs_a_human_decision_is_not_tried_again() -> anyhow::Result<()> {
    let fixture = start("human", json!({"maxAttempts": 3})).await?;
    fixture.workload("wl", CODER).await?;
    fixture
        .finish("wl-code-7", Outcome::declared(" design-decision "))
        .await?;
    await_retry_condition(&fixture, SEVEN, "NeedsHuman").await?;
    fixture
        .workload(
            "unplanned",
            "repo: acme/app, issues: [9], coderAgentRef: {name: missing}",
        )
        .await?;
    await_retry_condition(&fixture, "Workload/acme/app#9", "NeedsHuman").await?;
    ensure!(fixture.runs("wl") == 1);
    Ok(())
}

#[tokio::test]
async fn the_bridges_objects_are_not_retried_unless_the_policy_takes_them_over() -> anyhow::Result<()> {
    let fixture = start("bridge", json!({"maxAttempts": 3})).await?;
    let metadata = "labels: {created-by: dispatch-bridge}, annotations: {foreman.llmkube.dev/attempt: '1'}";
    fixture.workload_with("wl", metadata, CODER).await?;
    fixture.fail("wl").await?;
    let failed = fixture.await_workload_phase("wl", "Failed").await?;
    never("it is changed", Duration::from_secs(3), || async {
        let now = fixture.workloads().get("wl").await?;
        let unchanged = now.uid() == failed.uid() && now.metadata.deletion_timestamp.is_none();
        Ok((!unchanged).then_some("changed"))
    })
    .await?;
    fixture
        .apply_policy(
            "retry",
            &json!({"retry": quick(json!({"maxAttempts": 3, "takeOver": true}))}),
        )
        .await?;
    let second = fixture.await_attempt("wl", "2").await?;
    ensure!(second.labels()["created-by"] == "taskgate");
    ensure!(annotation(&second, "taskgate.dev/taken-over-from") == Some("dispatch-bridge"));
    Ok(())
}

#[tokio::test]
async fn one_issue_number_in_two_repositories_are_two_items() -> anyhow::Result<()> {
    let fixture = start("injective", json!({"maxAttempts": 2})).await?;
    for (name, repo) in [("one", "a-b/c"), ("two", "a/b-c")] {
        fixture
            .workload(
                name,
                &format!("issues: [7], repo: {repo}, coderAgentRef: {{name: coder}}"),
            )
            .await?;
        fixture.fail(name).await?;
        fixture.await_attempt(name, "2").await?;
    }
    for key in ["Workload/a-b/c#7", "Workload/a/b-c#7"] {
        await_retry(&fixture, key, "is at 2", |status, retry| {
            retry.attempt == 2 && status.attempts.len() == 1
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn observe_only_records_an_event() -> anyhow::Result<()> {
    let fixture = start("observe", json!({"maxAttempts": 3, "mode": "Observe"})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    fixture.await_event("wl", "WouldRetry", &["attempt 2"]).await?;
    ensure!(
        fixture
            .await_workload_phase("wl", "Failed")
            .await?
            .metadata
            .deletion_timestamp
            .is_none()
    );
    Ok(())
}
