//! What is not as it should be: told, and kept to itself.

use std::time::Duration;

use anyhow::ensure;
use foreman_standin::{
    CRDS, Outcome,
    types::{AgenticTask, Workload},
};
use kelos_standin::types::Task;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, await_gone, await_object, eventually, never};
use taskgate_policy::ItemIdentity;

use crate::{
    steps::{QUIET, number, stuck, three, workload, workload_with},
    world::{World, quick, said},
};

/// Foreman plans it over and over, and its phase is Failed half of the time (F5).
#[tokio::test]
async fn what_was_never_planned_is_told_once_and_never_touched() -> anyhow::Result<()> {
    let world = World::start("unplanned", three(json!({}))).await?;
    let agentless = workload_with("flaps", &json!({"coderAgentRef": {"name": "nobody"}}));
    world.make(&agentless).await?;
    world.make(&workload_with("idle", &json!({"issues": []}))).await?;
    for name in ["flaps", "idle"] {
        let memory = world.reason(name, "NeedsHuman", PATIENCE).await?;
        assert_eq!(memory.status.map(|status| status.attempts.len()), Some(1), "{name}");
    }
    let (flaps, idle) = (
        world.workloads().get("flaps").await?,
        world.workloads().get("idle").await?,
    );
    let memory = world.memory("flaps").await?;
    never("something is deleted, or told again", QUIET, async || {
        let now = world.workloads().get("flaps").await?;
        let same = now.uid() == flaps.uid() && now.metadata.deletion_timestamp.is_none();
        let remembered = world.memory("flaps").await?;
        Ok((!same || remembered.resource_version() != memory.resource_version()).then_some((now, remembered)))
    })
    .await?;
    assert_eq!(
        world.workloads().get("idle").await?.resource_version(),
        idle.resource_version()
    );
    assert_eq!(world.told_times("flaps", "RetryGivenUp").await?, 1);
    // Others are retried as ever.
    let first = world.fail_new("wl").await?;
    world.next(&first).await?;
    Ok(())
}

#[tokio::test]
async fn one_that_is_failed_and_lost_its_children_is_left_to_run_again() -> anyhow::Result<()> {
    let world = World::start(
        "childless",
        three(json!({"backoff": {"initial": "2s", "factor": 1, "max": "2s"}})),
    )
    .await?;
    let first = world.fail_new("wl").await?;
    world.phase("wl", "Failed").await?;
    world.children().delete("wl-code-7", &DeleteParams::default()).await?;
    // Foreman runs it again itself (F9), before its time is up.
    let again = |wl: &Workload| wl.phase() == "Dispatched";
    let running = await_object(&world.workloads(), "wl", "runs again", again).await?;
    ensure!(running.uid() == first.uid());
    never("it is deleted", QUIET, async || {
        let now = world.workloads().get_opt("wl").await?;
        Ok(now.is_none_or(|now| now.uid() != first.uid()).then_some(()))
    })
    .await?;
    // That run counts like any other.
    world.end("wl", stuck()).await?;
    let next = world.next(&first).await?;
    ensure!(
        number(&next) == Some("2") || number(&next) == Some("3"),
        "{:?}",
        number(&next)
    );
    Ok(())
}

#[tokio::test]
async fn one_that_somebody_changes_meanwhile_is_looked_at_anew() -> anyhow::Result<()> {
    let world = World::start("changed", three(json!({}))).await?;
    world.make(&workload("wl")).await?;
    let running = world.phase("wl", "Dispatched").await?;
    let stop = tokio::sync::watch::Sender::new(false);
    let meddling = async {
        let mut stopped = stop.subscribe();
        let mut pause = Duration::from_millis(20);
        for round in 0.. {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"round": format!("{round}")}}}));
            // When it is gone there is nothing to meddle with.
            let _ = world.workloads().patch("wl", &PatchParams::default(), &patch).await;
            tokio::select! { () = tokio::time::sleep(pause) => {} _ = stopped.changed() => break }
            // However slow the machine is, there comes a gap that is long enough.
            pause = pause * 11 / 10;
        }
    };
    let retrying = async {
        world.finish("wl-code-7", stuck()).await?;
        let next = world.next(&running).await;
        stop.send_replace(true);
        next
    };
    let ((), next) = tokio::join!(meddling, retrying);
    let next = next?;
    assert_eq!(number(&next), Some("2"));
    ensure!(
        next.annotations().contains_key("round"),
        "what somebody wrote last is kept"
    );
    world.child_of(&next, "code-7").await?;
    assert_eq!(world.runs("wl"), 2);
    Ok(())
}

/// A later Foreman may have phases that we have never heard of: its CRD lets them through.
#[tokio::test]
async fn a_phase_that_nobody_knows_is_left_alone() -> anyhow::Result<()> {
    let lenient = CRDS.replace(", enum: [Planning, Planned, Dispatched, Completed, Failed]", "");
    let (cp, gate) = own(Some(&lenient)).await?;
    let world = World::on(cp, gate, "phases", three(json!({}))).await?;
    world.make(&workload("wl")).await?;
    let running = world.phase("wl", "Dispatched").await?;
    // Nobody computes it anew.
    let World { foreman, .. } = world;
    foreman.stop().await;
    let world = World::on(cp, gate, "phases", three(json!({}))).await?;
    let ns = running.namespace().unwrap_or_default();
    let there = kube::Api::<Workload>::namespaced(cp.client(), &ns);
    for phase in ["Paused", "failed", ""] {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        there.patch_status("wl", &PatchParams::default(), &patch).await?;
        never("it is touched", Duration::from_secs(2), async || {
            let now = there.get_opt("wl").await?;
            let same = now
                .as_ref()
                .is_some_and(|now| now.uid() == running.uid() && now.phase() == phase);
            Ok((!same).then_some(now))
        })
        .await?;
    }
    let first = world.fail_new("wl").await?;
    world.next(&first).await?;
    Ok(())
}

/// Foreman is not there, comes in a version that we do not know, comes as we know it, goes, and comes back.
#[tokio::test]
async fn foreman_comes_and_goes_in_whatever_version() -> anyhow::Result<()> {
    let (cp, gate) = own(None).await?;
    let other = CRDS.replace("- name: v1alpha1\n", "- name: v9\n");
    cp.install_crds(&other).await?;
    let ns = cp.namespace("strange").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "retry"},
        "spec": {"retry": quick(three(json!({})))},
    });
    ns.apply_yaml(&policy.to_string()).await?;
    let strange = workload("wl").to_string().replace("/v1alpha1", "/v9");
    ns.apply_yaml(&strange).await?;
    let failed = [
        "patch",
        "workloads.v9.foreman.llmkube.dev",
        "wl",
        "--subresource=status",
        "--type=merge",
        "-p",
        FAILED,
    ];
    ns.kubectl(failed).await?.stdout_ok()?;
    never("taskgate is bothered", QUIET, async || {
        let kept = ns
            .kubectl(["get", "workloads.v9.foreman.llmkube.dev", "wl", "-oname"])
            .await?;
        Ok((kept.stdout_ok().is_err() || !gate.process().is_running()).then_some(()))
    })
    .await?;
    ns.kubectl(["delete", "workloads.v9.foreman.llmkube.dev", "wl"])
        .await?
        .stdout_ok()?;

    for round in 0..2 {
        remove(cp).await?;
        cp.install_crds(CRDS).await?;
        cp.controller_manager().restart().await?;
        let world = World::on(cp, gate, "known", three(json!({}))).await?;
        let first = world.fail_new("wl").await?;
        let next = world.next(&first).await?;
        assert_eq!(number(&next), Some("2"), "round {round}");
        world.foreman.stop().await;
    }
    Ok(())
}

const FAILED: &str = r#"{"status": {"phase": "Failed"}}"#;

async fn remove(cp: &ControlPlane) -> anyhow::Result<()> {
    for crd in ["workloads", "agentictasks", "agents"] {
        let name = format!("{crd}.foreman.llmkube.dev");
        cp.kubectl(["delete", "crd", &name, "--timeout=60s"])
            .await?
            .stdout_ok()?;
    }
    Ok(())
}

/// A control plane of the test's own, with these CRDs beside Kelos'.
async fn own(crds: Option<&str>) -> anyhow::Result<(&'static ControlPlane, &'static Gate)> {
    let mut cp = ControlPlane::builder().crds(kelos_standin::CRDS);
    if let Some(crds) = crds {
        cp = cp.crds(crds);
    }
    let cp: &'static ControlPlane = Box::leak(Box::new(cp.start().await?));
    let gate = Gate::start(cp).await?;
    Ok((cp, Box::leak(Box::new(gate))))
}

/// Its namespace is being deleted: everything goes, nothing is made anew.
#[tokio::test]
async fn a_namespace_that_goes_takes_its_retries_with_it() -> anyhow::Result<()> {
    let world = World::start(
        "going",
        three(json!({"backoff": {"initial": "3s", "factor": 1, "max": "3s"}})),
    )
    .await?;
    world.fail_new("wl").await?;
    world.phase("wl", "Failed").await?;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(world.cp.client());
    namespaces.delete(world.ns.name(), &DeleteParams::default()).await?;
    await_gone(&namespaces, world.ns.name()).await
}

/// The same work under two names at once: its runs are counted together, and none is deleted but what failed.
#[tokio::test]
async fn two_objects_for_one_piece_of_work_share_its_count() -> anyhow::Result<()> {
    let world = World::start("shared", json!({"maxAttempts": 2})).await?;
    let same = json!({"repo": "acme/app", "issues": [7]});
    world.make(&workload_with("one", &same)).await?;
    world.make(&workload_with("two", &same)).await?;
    world.end("one", stuck()).await?;
    let one = await_object(&world.workloads(), "one", "is the second run", |wl| {
        number(wl) == Some("2")
    })
    .await?;
    world.end("two", stuck()).await?;
    eventually("the second object is a further run", PATIENCE, async || {
        let memory = world.memory("two").await?;
        let status = memory.status.unwrap_or_default();
        ensure!(status.attempts.len() == 2, "{:?}", said(&status));
        Ok(())
    })
    .await?;
    let kept = world.workloads().get("one").await?;
    ensure!(kept.uid() == one.uid(), "the one that runs is not touched");
    let runs = world.runs("one") + world.runs("two");
    assert_eq!(
        runs, 3,
        "two of the first, one of the second, which was the third and beyond the cap"
    );
    Ok(())
}

/// What stands in a child is a model's: nothing of it stops a retry.
#[tokio::test]
async fn a10_a41_children_of_any_shape_do_no_harm() -> anyhow::Result<()> {
    let world = World::start("shapes", three(json!({"feedback": true}))).await?;
    let odd = [
        json!({"outcome": 7}),
        json!({"modelExtra": {"findings": "none"}}),
        json!({"modelExtra": {"findings": [1, null, {"message": {}}]}}),
        json!({"error": "x".repeat(100_000)}),
    ];
    for (index, extra) in odd.into_iter().enumerate() {
        let name = format!("wl-{index}");
        world.make(&workload(&name)).await?;
        let mut outcome = Outcome::verdict("NO-GO");
        for (key, value) in extra.as_object().into_iter().flatten() {
            outcome = outcome.with_extra(key, value.clone());
        }
        let first = world.end(&name, outcome).await?;
        let next = world.next(&first).await?;
        ensure!(
            next.spec.intent.chars().count() <= 2100,
            "{} characters",
            next.spec.intent.chars().count()
        );
    }
    // A child without a status at all, of nobody's making.
    world.make(&workload("wl")).await?;
    world.phase("wl", "Dispatched").await?;
    let stray = json!({
        "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "AgenticTask",
        "metadata": {"name": "stray", "labels": {"foreman.llmkube.dev/workload": "other"}},
        "spec": {"kind": "freeform", "payload": {}},
    });
    world.make(&stray).await?;
    let first = world.end("wl", stuck()).await?;
    world.next(&first).await?;
    let stray: AgenticTask = world.children().get("stray").await?;
    ensure!(stray.metadata.deletion_timestamp.is_none());
    Ok(())
}

/// What cannot have been written by taskgate, although it is written in its name: nothing is created, nothing deleted.
#[tokio::test]
async fn a_forged_retry_is_dropped() -> anyhow::Result<()> {
    let world = World::start("forged", three(json!({"kinds": ["Workload"]}))).await?;
    let tasks = world.ns.api::<Task>();
    let live = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "live"},
        "spec": {"type": "claude-code", "prompt": "try", "credentials": {"type": "none"}}});
    let live = tasks
        .create(&PostParams::default(), &serde_json::from_value(live)?)
        .await?;
    let items = Api::<WorkItem>::namespaced(world.cp.client_as_taskgate(), world.ns.name());
    let predecessor = |name: &str| {
        json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name, "namespace": world.ns.name()},
            "spec": {"type": "claude-code", "prompt": "evil", "credentials": {"type": "none"}}})
    };
    let uid = live.uid().unwrap_or_default();
    let now = jiff::Timestamp::now();
    for (name, step, uid, version, predecessor) in [
        ("odd", "Deleted", "u", None, json!({"metadata": "x"})),
        ("ghost", "Deleted", "u", None, predecessor("ghost")),
        ("other", "Deleted", "u", None, predecessor("ghost")),
        (
            "live",
            "Deleting",
            uid.as_str(),
            live.resource_version(),
            predecessor("live"),
        ),
    ] {
        let identity = ItemIdentity {
            key: format!("Task/{name}"),
            item: name.to_owned(),
            spawner: None,
        };
        let item = identity.work_item(&identity.work_item_name());
        items.create(&PostParams::default(), &item).await?;
        let transition = json!({"old": {"kind": "Task", "name": name, "uid": uid}, "resourceVersion": version.unwrap_or_default(),
            "from": 1, "to": 2, "step": step, "since": now, "requestedBy": "ann", "predecessor": predecessor});
        let status = json!({"status": {"consecutiveFailures": 0, "retry": {"attempt": 1, "transition": transition}}});
        items
            .patch_status(&item.name_any(), &PatchParams::default(), &Patch::Merge(status))
            .await?;
        let dropped = |item: &WorkItem| {
            let retry = item.status.as_ref().and_then(|status| status.retry.as_ref());
            retry.is_some_and(|retry| retry.transition.is_none())
        };
        let item = await_object(&items, &item.name_any(), "has no retry any more", dropped).await?;
        let status = item.status.unwrap_or_default();
        let (reason, why) = said(&status);
        ensure!(
            ["RetryInvalid", "PolicyGone", "NotFailedAnyMore"].contains(&reason),
            "{name}: {reason}: {why}"
        );
    }
    never("a Task is created or deleted", Duration::from_secs(3), async || {
        let there = tasks.list(&ListParams::default()).await?.items;
        let same = there.len() == 1 && there[0].uid() == live.uid() && there[0].metadata.deletion_timestamp.is_none();
        Ok((!same).then_some(there))
    })
    .await?;
    ensure!(world.gate.process().is_running());
    // Others are retried as ever.
    let first = world.fail_new("wl").await?;
    world.next(&first).await.map(drop)
}
