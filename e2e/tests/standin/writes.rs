//! How Kelos writes: S28, S29.

use crate::support::{StandinFixture, task};
use anyhow::ensure;
use kelos_standin::{Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use taskgate_e2e::{PATIENCE, await_gone, eventually, never};

#[tokio::test]
async fn s28_a_spec_that_is_no_fixed_point_is_never_worked_on() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s28").await?;
    let limits = |cpu: &str| format!("podOverrides: {{resources: {{limits: {{cpu: {cpu}}}}}}}");
    let stuck = [
        ("half", limits("'0.5'")),
        ("number", limits("1")),
        ("blank", "model: ''".to_owned()),
        ("empty", "dependsOn: []".to_owned()),
        (
            "bare",
            "podOverrides: {extraContainers: [{name: db, image: db}]}".to_owned(),
        ),
    ];
    let fine = [
        ("milli", limits("500m")),
        ("text", limits("'1'")),
        (
            "full",
            "podOverrides: {extraContainers: [{name: db, image: db, resources: {}}]}".to_owned(),
        ),
        ("zero", "ttlSecondsAfterFinished: 0".to_owned()),
    ];
    for (name, more) in stuck.iter().chain(&fine) {
        fixture.task(name, more).await?;
    }
    // The API server drops it, except from server-side apply, which refuses it.
    let null = task("nil", "model: null");
    let created = fixture
        .cp
        .kubectl_with_input(["create", "-f-", "-n", fixture.ns.name()], &null);
    created.await?.stdout_ok()?;
    let fine = fine.iter().map(|(name, _)| *name);
    for name in fine.chain(["nil"]) {
        fixture.await_task_phase(name, "Running").await?;
    }
    never(
        "a spec that changes on the way is taken on",
        Duration::from_secs(2),
        async || {
            for (name, _) in &stuck {
                let task = fixture.tasks().get(name).await?;
                if !task.finalizers().is_empty()
                    || !task.phase().is_empty()
                    || fixture.jobs().get_opt(name).await?.is_some()
                {
                    return Ok(Some(task));
                }
            }
            Ok(None)
        },
    )
    .await?;
    // It can be labelled and deleted; but not with the finalizer in it from the start.
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    fixture.tasks().patch("half", &PatchParams::default(), &label).await?;
    fixture.tasks().delete("half", &DeleteParams::default()).await?;
    await_gone(&fixture.tasks(), "half").await?;
    let restored = format!("{{name: restored, finalizers: [{}]}}", keys::TASK_FINALIZER);
    let restored = task("restored", &limits("'0.5'")).replace("{name: restored}", &restored);
    fixture.apply_yaml(&restored).await?;
    fixture.await_task_phase("restored", "Running").await?;
    fixture.tasks().delete("restored", &DeleteParams::default()).await?;
    await_gone(&fixture.jobs(), "restored").await?;
    never("it gets out of its deletion", Duration::from_secs(2), async || {
        Ok(fixture.tasks().get_opt("restored").await?.is_none().then_some("gone"))
    })
    .await?;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    fixture
        .tasks()
        .patch("restored", &PatchParams::default(), &free)
        .await?;
    await_gone(&fixture.tasks(), "restored").await
}

#[tokio::test]
async fn s29_a_status_is_put_from_a_cache_and_tried_five_times() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s29").await?;
    fixture.task("a", "").await?;
    fixture.await_task_phase("a", "Running").await?;
    let mark = fixture.cp.audit().mark()?;
    // Another client overwrites it so often that the cache is always behind.
    let busy = async {
        for round in 0_u64.. {
            let phase = Patch::Merge(json!({"status": {"phase": "Failed", "message": round.to_string()}}));
            let patched = fixture.tasks().patch_status("a", &PatchParams::default(), &phase).await;
            if let Err(error) = patched {
                return error;
            }
        }
        unreachable!("the range is endless")
    };
    let conflicts = async || -> anyhow::Result<usize> {
        let events = fixture.cp.audit().since(mark).await?;
        let puts = events.iter().filter(|event| {
            let about = &event.object_ref;
            event.user_agent == "kelos-standin" && about.namespace == fixture.ns.name() && about.subresource == "status"
        });
        Ok(puts.filter(|event| event.code() == 409).count())
    };
    let conflict = eventually("a status write conflicts", PATIENCE, async || {
        let conflicts = conflicts().await?;
        ensure!(conflicts > 0, "{conflicts} conflicts");
        Ok(())
    });
    tokio::select! {
        failed = busy => return Err(failed.into()),
        conflict = conflict => conflict?,
    }
    // With quiet comes what is right.
    fixture.end("a", Outcome::succeeded()).await?;
    Ok(())
}
