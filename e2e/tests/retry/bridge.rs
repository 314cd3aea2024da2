//! Beside the dispatch bridge: who acts on what, and that never both do.

use std::time::Duration;

use anyhow::ensure;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{PATIENCE, eventually, never};

use crate::{
    steps::{number, stuck, three, workload},
    world::World,
};

fn bridged(name: &str, by: &str) -> Value {
    let mut object = workload(name);
    object["metadata"]["labels"] = json!({"created-by": by, "lane": "local"});
    object["metadata"]["annotations"] = json!({"foreman.llmkube.dev/attempt": "1"});
    object
}

#[tokio::test]
async fn both_kinds_of_the_bridges_objects_are_left_to_it() -> anyhow::Result<()> {
    let world = World::start("left", three(json!({}))).await?;
    for (name, by) in [("issue", "dispatch-bridge"), ("fix", "dispatch-bridge-prfix")] {
        world.make(&bridged(name, by)).await?;
        world.end(name, stuck()).await?;
        world.phase(name, "Failed").await?;
    }
    for name in ["issue", "fix"] {
        world.stays(name).await?;
        assert_eq!(world.runs(name), 1);
        ensure!(world.memory(name).await.is_err(), "{name} is remembered");
    }
    Ok(())
}

/// A bridge that goes on as before, without preconditions, at the same objects at the same time: as its code does, delete
/// in the foreground, wait for a 404, create.
#[tokio::test]
async fn a_bridge_that_does_not_know_of_it_and_a_take_over_never_make_two() -> anyhow::Result<()> {
    let world = World::start("both", three(json!({"takeOver": true, "maxAttempts": 2}))).await?;
    let names: Vec<String> = (0..6).map(|index| format!("wl-{index}")).collect();
    for name in &names {
        world.make(&bridged(name, "dispatch-bridge")).await?;
    }
    let mut firsts = Vec::new();
    for name in &names {
        firsts.push(world.phase(name, "Dispatched").await?);
    }
    // One tick: list what has failed, and then go through it.
    let tick = async || -> anyhow::Result<()> {
        let workloads = world.workloads();
        let own = ListParams::default().labels("created-by=dispatch-bridge");
        let failed = workloads
            .list(&own)
            .await?
            .items
            .into_iter()
            .filter(|wl| wl.phase() == "Failed");
        for name in failed.map(|wl| wl.name_any()) {
            match workloads.delete(&name, &DeleteParams::foreground()).await {
                Ok(_) | Err(kube::Error::Api(_)) => {}
                Err(error) => return Err(error.into()),
            }
            await_gone_or_new(&world, &name).await?;
            let mut again = bridged(&name, "dispatch-bridge");
            again["metadata"]["annotations"]["foreman.llmkube.dev/attempt"] = json!("2");
            // 409 is success to the bridge.
            let _ = workloads
                .create(&PostParams::default(), &serde_json::from_value(again)?)
                .await;
        }
        Ok(())
    };
    for (index, name) in names.iter().enumerate() {
        world.finish(&format!("{name}-code-7"), stuck()).await?;
        // Paces the bridge: it comes a little later each time, while taskgate may be at any step.
        tokio::time::sleep(Duration::from_millis(40 * index as u64)).await;
        tick().await?;
    }
    for (name, first) in names.iter().zip(&firsts) {
        let next = world.next(first).await?;
        ensure!(number(&next) == Some("2"), "{name}: {:?}", number(&next));
    }
    // The bridge deletes by name: what came between its list and its deletion goes, too, and it makes that good.
    never("a run too many", Duration::from_secs(3), || async {
        let runs = names.iter().map(|name| (name, world.runs(name)));
        Ok(runs.into_iter().find(|(_, runs)| *runs > 3))
    })
    .await?;
    for name in &names {
        let runs = world.runs(name);
        ensure!(runs >= 2, "{name} ran {runs} times");
        let last = world.workloads().get(name).await?;
        ensure!(number(&last) == Some("2"), "{name}: {:?}", number(&last));
    }
    let mut running = Vec::new();
    for execution in world.foreman.journal().executions() {
        ensure!(
            running.iter().all(|other| !execution.collides_with(other)),
            "{execution:?}"
        );
        running.push(execution);
    }
    Ok(())
}

async fn await_gone_or_new(world: &World, name: &str) -> anyhow::Result<()> {
    eventually("what it deleted is gone", PATIENCE, async || {
        let there = world.workloads().get_opt(name).await?;
        ensure!(
            there.is_none_or(|wl| wl.metadata.deletion_timestamp.is_none()),
            "still there"
        );
        Ok(())
    })
    .await
}
