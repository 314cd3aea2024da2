//! The protocol, step by step, on Workloads.

use anyhow::ensure;
use foreman_standin::{Outcome, types::Workload};
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::{retry_status::RetryStage, work_item::Outcome as End};
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};
use tokio::time::Duration;

use crate::world::{CODER, ISSUE, SEVEN, World, annotation, said};

#[tokio::test]
async fn a02_a04_a20_a_failed_run_is_repeated_under_todays_policy_and_nothing_is_written_to_it() -> anyhow::Result<()> {
    let world = World::start("again", json!({"maxAttempts": 3})).await?;
    let metadata = "labels: {lane: local}, annotations: {keep: me, foreman.llmkube.dev/issue-id: i-7}";
    world.workload_with("wl-acme-app-7", metadata, CODER).await?;
    let first = world.phase("wl-acme-app-7", "Dispatched").await?;
    world
        .policy(json!({"retry": crate::world::quick(json!({
            "maxAttempts": 3,
            "overrides": {"workload": {"coderAgentRef": {"name": "strong"}, "gateProfile": {"language": "rust"}}},
        }))}))
        .await?;
    let mark = world.cp.audit().mark()?;
    world.fail("wl-acme-app-7").await?;
    let second = world.attempt("wl-acme-app-7", "2").await?;
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
    let item = world.said(SEVEN, "Recreated").await?;
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
    for event in world.cp.audit().since(mark).await? {
        let of = &event.object_ref;
        let workload = of.resource == "workloads" && of.namespace == world.ns.name();
        let others = ["foreman-standin", "kube-controller-manager"];
        let ours = !others.iter().any(|other| event.user_agent.starts_with(other));
        ensure!(
            !(workload && ours && matches!(event.verb.as_str(), "update" | "patch")),
            "{event:?}"
        );
    }
    for about in ["wl-acme-app-7", item.metadata.name.as_deref().unwrap_or_default()] {
        world
            .told(about, "RunFailed", &["attempt 1", "STUCKLOOPDETECTED"])
            .await?;
        world.told(about, "Retried", &["attempt 2"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a03_at_the_cap_the_object_stays_untouched() -> anyhow::Result<()> {
    let world = World::start("cap", json!({"maxAttempts": 2})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.attempt("wl", "2").await?;
    world.fail("wl").await?;
    let tombstone = world.phase("wl", "Failed").await?;
    let item = world.said(SEVEN, "MaxAttemptsReached").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(said(&status).1.contains("attempt 2 of 2"), "{status:?}");
    ensure!(status.attempts.len() == 2, "{status:?}");
    world.told("wl", "RetryGivenUp", &["attempt 2 of 2"]).await?;
    let counted = world.gate.metrics().await?;
    let labels = [("kind", "Workload"), ("outcome", "max_attempts")];
    ensure!(
        counted
            .value("taskgate_retries_total", &labels)
            .is_some_and(|count| count >= 1.0)
    );
    never("the tombstone is touched", Duration::from_secs(3), || async {
        let now = world.workloads().get("wl").await?;
        // Foreman itself rewrites the times of its conditions.
        let mine = |workload: &Workload| {
            (
                workload.uid(),
                workload.annotations().clone(),
                workload.labels().clone(),
            )
        };
        let untouched = mine(&now) == mine(&tombstone) && now.metadata.deletion_timestamp.is_none();
        Ok((!untouched).then_some("touched"))
    })
    .await?;
    ensure!(world.runs("wl") == 2, "{} runs", world.runs("wl"));
    // A higher limit takes effect at once.
    world
        .policy(json!({"retry": crate::world::quick(json!({"maxAttempts": 3}))}))
        .await?;
    world.attempt("wl", "3").await.map(drop)
}

#[tokio::test]
async fn a01_the_number_on_the_object_counts_where_it_is_higher() -> anyhow::Result<()> {
    let world = World::start("numbers", json!({"maxAttempts": 3})).await?;
    for (issue, stated, next) in [
        (1, "2", Some("3")),
        (2, "junk", Some("2")),
        (3, "-4", Some("2")),
        (4, "7", None),
    ] {
        let (name, child) = (format!("wl-{issue}"), format!("wl-{issue}-code-{issue}"));
        let metadata = format!("annotations: {{foreman.llmkube.dev/attempt: '{stated}'}}");
        let spec = format!("issues: [{issue}], repo: acme/app, coderAgentRef: {{name: coder}}");
        world.workload_with(&name, &metadata, &spec).await?;
        world.finish(&child, Outcome::declined("NO-CHANGES", "nothing")).await?;
        match next {
            Some(next) => drop(world.attempt(&name, next).await?),
            None => drop(world.said("Workload/acme/app#4", "MaxAttemptsReached").await?),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a11_a12_a13_the_cluster_has_a_cap_of_its_own_and_the_number_stays() -> anyhow::Result<()> {
    let world = World::start("infra", json!({"maxAttempts": 3, "maxInfrastructureFailures": 2})).await?;
    world.workload("wl", CODER).await?;
    let first = world.phase("wl", "Dispatched").await?;
    world.finish("wl-code-7", Outcome::executor_error("no route")).await?;
    let second = world.attempt("wl", "1").await?;
    ensure!(second.uid() != first.uid());
    world.finish("wl-code-7", Outcome::job_error("image")).await?;
    world.said(SEVEN, "MaxInfrastructureFailuresReached").await?;
    ensure!(world.runs("wl") == 2);
    Ok(())
}

#[tokio::test]
async fn success_starts_the_count_over() -> anyhow::Result<()> {
    let world = World::start("success", json!({"maxAttempts": 2})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.attempt("wl", "2").await?;
    world.finish("wl-code-7", Outcome::go()).await?;
    world.ledger(SEVEN, "is at 0", |_, ledger| ledger.attempt == 0).await?;
    world.said(SEVEN, "Succeeded").await?;
    world
        .cp
        .kubectl(["delete", "-n", world.ns.name(), "workloads.foreman.llmkube.dev", "wl"])
        .await?
        .stdout_ok()?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.attempt("wl", "2").await.map(drop)
}

#[tokio::test]
async fn a_refused_successor_keeps_the_object_and_says_why() -> anyhow::Result<()> {
    let world = World::start("refused", json!({"maxAttempts": 3})).await?;
    let refusal = "no second tries here";
    let expression = "!('foreman.llmkube.dev/attempt' in object.metadata.?annotations.orValue({}))";
    world.refuse(expression, refusal).await?;
    world.workload("wl", CODER).await?;
    let first = world.phase("wl", "Dispatched").await?;
    world.fail("wl").await?;
    let item = world.said(SEVEN, "SuccessorRefused").await?;
    ensure!(
        said(&item.status.clone().unwrap_or_default()).1.contains(refusal),
        "{item:?}"
    );
    world.told("wl", "RetryRefused", &[refusal]).await?;
    let there = world.workloads().get("wl").await?;
    ensure!(there.uid() == first.uid() && there.metadata.deletion_timestamp.is_none());
    ensure!(world.runs("wl") == 1);
    world.admit().await?;
    // Any change of a policy has it asked again.
    world
        .policy(json!({"retry": crate::world::quick(json!({"maxAttempts": 4}))}))
        .await?;
    world.attempt("wl", "2").await.map(drop)
}

#[tokio::test]
async fn a_field_that_the_crd_does_not_have_is_refused_and_not_dropped() -> anyhow::Result<()> {
    let overrides = json!({"workload": {"gateprofile": {"language": "go"}}});
    let world = World::start("strict", json!({"maxAttempts": 3, "overrides": overrides})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    let item = world.said(SEVEN, "SuccessorRefused").await?;
    ensure!(said(&item.status.unwrap_or_default()).1.contains("gateprofile"));
    ensure!(world.phase("wl", "Failed").await?.metadata.deletion_timestamp.is_none());
    Ok(())
}

#[tokio::test]
async fn a21_a23_a24_a_deletion_that_hangs_is_told_and_holds_up_nobody_else() -> anyhow::Result<()> {
    let world = World::start(
        "wedged",
        json!({"maxAttempts": 3, "maxInFlight": 1, "maxInFlightPerNamespace": 1}),
    )
    .await?;
    world.workload("wl", CODER).await?;
    world.phase("wl", "Dispatched").await?;
    // A foreign finalizer on the child keeps its parent as well.
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let child = world.children();
    child
        .patch(
            "wl-code-7",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&held),
        )
        .await?;
    world.fail("wl").await?;
    world
        .ledger(SEVEN, "is deleting", |_, ledger| {
            ledger
                .transition
                .as_ref()
                .is_some_and(|transition| transition.step == RetryStage::Deleted)
        })
        .await?;
    let spec = "issues: [8], repo: acme/app, coderAgentRef: {name: coder}";
    world.workload("other", spec).await?;
    world
        .finish("other-code-8", Outcome::declined("NO-CHANGES", "nothing"))
        .await?;
    // The one place is given back after a minute.
    let patience = PATIENCE + Duration::from_mins(1);
    eventually("it is told what holds it", patience, || async {
        let events = world.events("wl").await?;
        let told = |(reason, note): &(String, String)| reason == "RetryBlocked" && note.contains("example.com/hold");
        ensure!(events.iter().any(told), "{events:?}");
        Ok(())
    })
    .await?;
    world.said(SEVEN, "RetryBlocked").await?;
    world.attempt("other", "2").await?;
    let free = json!({"metadata": {"finalizers": []}});
    child
        .patch(
            "wl-code-7",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&free),
        )
        .await?;
    world.attempt("wl", "2").await?;
    ensure!(world.runs("wl") == 2 && world.runs("other") == 2);
    Ok(())
}

#[tokio::test]
async fn deleting_the_tombstone_ends_the_story_and_starts_the_count_over() -> anyhow::Result<()> {
    let world = World::start("tombstone", json!({"maxAttempts": 1})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.said(SEVEN, "MaxAttemptsReached").await?;
    world
        .cp
        .kubectl(["delete", "-n", world.ns.name(), "workloads.foreman.llmkube.dev", "wl"])
        .await?
        .stdout_ok()?;
    world
        .ledger(SEVEN, "starts over", |_, ledger| ledger.attempt == 0)
        .await?;
    never("it is made again", Duration::from_secs(3), || async {
        let untouched = world.workloads().get_opt("wl").await?.is_none();
        Ok((!untouched).then_some("touched"))
    })
    .await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world
        .ledger(SEVEN, "counts from 1", |_, ledger| ledger.attempt == 1)
        .await
        .map(drop)
}

#[tokio::test]
async fn what_somebody_else_deletes_before_its_retry_is_not_made_again() -> anyhow::Result<()> {
    let backoff = json!({"initial": "1h", "max": "1h"});
    let world = World::start("deleted", json!({"maxAttempts": 3, "backoff": backoff})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world
        .ledger(SEVEN, "is recorded", |_, ledger| ledger.failure.is_some())
        .await?;
    world
        .cp
        .kubectl(["delete", "-n", world.ns.name(), "workloads.foreman.llmkube.dev", "wl"])
        .await?
        .stdout_ok()?;
    await_gone(&world.workloads(), "wl").await?;
    world.said(SEVEN, "DeletedBySomebodyElse").await?;
    // The count goes on: deleting and making anew is no way round the cap.
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world
        .ledger(SEVEN, "is at 2", |_, ledger| ledger.attempt == 2)
        .await
        .map(drop)
}

#[tokio::test]
async fn an_object_of_somebody_else_in_its_place_is_left_alone() -> anyhow::Result<()> {
    let world = World::start("replaced", json!({"maxAttempts": 3})).await?;
    // As long as its successor is refused, nothing is deleted; as soon as it is, somebody else is faster.
    world.workload("wl", CODER).await?;
    let held = json!({"finalizers": ["example.com/hold"]});
    world.patch("wl", held).await?;
    world.fail("wl").await?;
    world
        .ledger(SEVEN, "is deleted", |_, ledger| {
            ledger
                .transition
                .as_ref()
                .is_some_and(|transition| transition.step == RetryStage::Deleted)
        })
        .await?;
    world
        .refuse(
            "object.metadata.?labels.orValue({}).?by.orValue('') == 'them'",
            "only theirs",
        )
        .await?;
    world.patch("wl", json!({"finalizers": null})).await?;
    await_gone(&world.workloads(), "wl").await?;
    world.said(SEVEN, "SuccessorRefused").await?;
    world.workload_with("wl", "labels: {by: them}", CODER).await?;
    world.admit().await?;
    world
        .policy(json!({"retry": crate::world::quick(json!({"maxAttempts": 4}))}))
        .await?;
    world.said(SEVEN, "ReplacedBySomebodyElse").await?;
    let theirs = world.workloads().get("wl").await?;
    ensure!(theirs.labels()["by"] == "them" && annotation(&theirs, "taskgate.dev/retry-of").is_none());
    // A further run of the same work: it counts.
    world.fail("wl").await?;
    world.attempt("wl", "3").await.map(drop)
}

#[tokio::test]
async fn a39_a42_the_next_run_is_told_why_the_last_one_failed() -> anyhow::Result<()> {
    let world = World::start("feedback", json!({"maxAttempts": 3, "feedback": true})).await?;
    world.workload("wl", ISSUE).await?;
    for message in ["parse() has no test", "the second reason"] {
        world.finish("wl-code-7", Outcome::go()).await?;
        world.finish("wl-verify-7", Outcome::gate_pass()).await?;
        let finding =
            json!([{"severity": "major", "area": "tests", "message": message, "file": "src/a.rs", "line": 3}]);
        world
            .finish("wl-review-7-0", Outcome::rejected("not yet", &finding))
            .await?;
        let next = if message.starts_with("parse") { "2" } else { "3" };
        let told = world.attempt("wl", next).await?;
        ensure!(told.spec.intent.starts_with("Fix it.\n"), "{}", told.spec.intent);
        ensure!(
            told.spec
                .intent
                .contains(&format!("> [major, tests] src/a.rs:3: {message}")),
            "{}",
            told.spec.intent
        );
        ensure!(
            told.spec.intent.matches("## Why the previous run failed").count() == 1,
            "{}",
            told.spec.intent
        );
        ensure!(told.spec.issues == [7] && told.spec.pipeline.is_empty());
        // It reaches the coder, who is still given the issue.
        let coder = await_object(&world.children(), "wl-code-7", "is the next one", |child| {
            let owner = child.metadata.owner_references.iter().flatten().next();
            owner.map(|owner| &owner.uid) == told.metadata.uid.as_ref()
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
async fn a67_a68_what_a_person_has_to_decide_is_not_tried_again() -> anyhow::Result<()> {
    let world = World::start("human", json!({"maxAttempts": 3})).await?;
    world.workload("wl", CODER).await?;
    world
        .finish("wl-code-7", Outcome::declared(" design-decision "))
        .await?;
    world.said(SEVEN, "NeedsHuman").await?;
    world
        .workload(
            "unplanned",
            "repo: acme/app, issues: [9], coderAgentRef: {name: nobody}",
        )
        .await?;
    world.said("Workload/acme/app#9", "NeedsHuman").await?;
    ensure!(world.runs("wl") == 1);
    Ok(())
}

#[tokio::test]
async fn the_bridges_objects_are_left_to_it_unless_the_policy_takes_them_over() -> anyhow::Result<()> {
    let world = World::start("bridge", json!({"maxAttempts": 3})).await?;
    let metadata = "labels: {created-by: dispatch-bridge}, annotations: {foreman.llmkube.dev/attempt: '1'}";
    world.workload_with("wl", metadata, CODER).await?;
    world.fail("wl").await?;
    let failed = world.phase("wl", "Failed").await?;
    never("it is touched", Duration::from_secs(3), || async {
        let now = world.workloads().get("wl").await?;
        let untouched = now.uid() == failed.uid() && now.metadata.deletion_timestamp.is_none();
        Ok((!untouched).then_some("touched"))
    })
    .await?;
    world
        .policy(json!({"retry": crate::world::quick(json!({"maxAttempts": 3, "takeOver": true}))}))
        .await?;
    let second = world.attempt("wl", "2").await?;
    ensure!(second.labels()["created-by"] == "taskgate");
    ensure!(annotation(&second, "taskgate.dev/taken-over-from") == Some("dispatch-bridge"));
    Ok(())
}

#[tokio::test]
async fn one_issue_number_in_two_repositories_are_two_items() -> anyhow::Result<()> {
    let world = World::start("injective", json!({"maxAttempts": 2})).await?;
    for (name, repo) in [("one", "a-b/c"), ("two", "a/b-c")] {
        world
            .workload(
                name,
                &format!("issues: [7], repo: {repo}, coderAgentRef: {{name: coder}}"),
            )
            .await?;
        world.fail(name).await?;
        world.attempt(name, "2").await?;
    }
    for key in ["Workload/a-b/c#7", "Workload/a/b-c#7"] {
        world
            .ledger(key, "is at 2", |status, ledger| {
                ledger.attempt == 2 && status.attempts.len() == 1
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_only_observed_is_only_told() -> anyhow::Result<()> {
    let world = World::start("observe", json!({"maxAttempts": 3, "mode": "Observe"})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.told("wl", "WouldRetry", &["attempt 2"]).await?;
    ensure!(world.phase("wl", "Failed").await?.metadata.deletion_timestamp.is_none());
    Ok(())
}
