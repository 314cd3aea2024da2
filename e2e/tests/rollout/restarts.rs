//! Replicas that are restarted one after another, under load.

use std::time::Duration;

use taskgate_e2e::is_soak;

use crate::load::Load;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_lose_no_call() -> anyhow::Result<()> {
    let world = World::start(|gate| {
        gate.registration_flag("--failure-policy=fail")
            .serve_flag("--lame-duck=3s")
            .grace(Duration::from_secs(15))
    })
    .await?;
    let before = world.calls().await?;
    let load = Load::start(&world.ns, false);
    for _ in 0..if is_soak() { 20 } else { 2 } {
        for gate in &world.gates {
            let exit = gate.process().terminate().await?;
            anyhow::ensure!(exit.success(), "{exit}: {}", gate.process().log_tail(20));
            gate.process().start().await?;
            world.both_are_ready().await?;
        }
    }
    let tally = load.stop().await?;
    world.nothing_was_lost(before, &tally).await
}
