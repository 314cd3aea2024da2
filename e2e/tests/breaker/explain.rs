//! `taskgate explain`: what it says of an item that is stopped, and what the message of a denial leads to.

use anyhow::{Context as _, ensure};
use taskgate_e2e::told_command;

use crate::world::{World, by_hand, failures, limit};

#[tokio::test]
async fn a_denial_leads_to_the_story_and_the_story_to_the_command_that_helps() -> anyhow::Result<()> {
    let world = World::governed("explain", limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    let uid = world.fail("fixer-42").await?;
    world.open("42").await?;

    let denied = world
        .create(&by_hand("again", Some("fixer/42")), false)
        .await?
        .stderr_failed()?;
    let (_, why) = denied.trim().split_once("; why: ").with_context(|| denied.clone())?;
    let told = world.cp.paste(why).await?;
    ensure!(
        told.starts_with(&format!("item fixer/42 in namespace {}: Open\n", world.ns)),
        "{told}"
    );
    for part in [
        "  State      Task fixer-42 is CircuitBroken: ",
        "  Policy     failurePolicy by TaskPolicy/agents (Enforce): no other policy with this section selects it\n",
        ": 1 failure in a row (limit 1), cost $0.25; no Task comes for it\n",
        "  Item       attempt fixer-42: Failed: ",
    ] {
        ensure!(told.contains(part), "{part}: {told}");
    }

    let stopped = "item fixer/42 is stopped for ";
    for (object, state) in [("fixer-42", "CircuitBroken"), ("spawner/fixer", "ItemsStopped")] {
        let story = world.cp.explain(world.ns.name(), object).await?;
        ensure!(story["state"] == state, "{story:#}");
        told_command(&story, stopped)?;
    }
    // The same from files.
    let kinds = "tasks.kelos.dev,taskspawners.kelos.dev,workitems,taskpolicies";
    let dump = format!(
        "kubectl get -n {} {kinds} -o yaml | taskgate explain fixer/42 -o json -f -",
        world.ns
    );
    let story = serde_json::from_str(&world.cp.paste(&dump).await?)?;
    let reset = told_command(&story, stopped)?;
    ensure!(reset == format!("taskgate reset fixer/42 -n {}", world.ns), "{reset}");
    world.cp.paste(reset).await?;
    world.item("42", "is reset", |item| failures(item) == 0).await?;
    world.next("fixer-42", &uid).await.map(drop)
}
