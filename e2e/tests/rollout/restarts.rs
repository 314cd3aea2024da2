//! Replicas that are restarted one after another, under load.

use std::time::Duration;

use taskgate_e2e::{Balancer, is_soak};

use crate::late::Late;
use crate::load::Load;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_lose_no_call() -> anyhow::Result<()> {
    // Whom readiness does not tell of the end in time is lost.
    let world = World::behind(Balancer::with_one_try().await?, |gate| {
        gate.registration_flag("--failure-policy=fail")
            .serve_flag("--lame-duck=5s")
            .grace(Duration::from_secs(15))
    })
    .await?;
    let before = world.calls().await?;
    let load = Load::start(&world.ns, false);
    let late = Late::start(&world, vec![world.balancer.url().to_owned()]);
    for _ in 0..if is_soak() { 20 } else { 2 } {
        for gate in &world.gates {
            let exit = gate.process().terminate().await?;
            anyhow::ensure!(exit.success(), "{exit}: {}", gate.process().log_tail(20));
            gate.process().start().await?;
            world.both_are_ready().await?;
        }
    }
    eprintln!("{} handshakes by one that keeps no connection", late.stop().await?);
    let tally = load.stop().await?;
    world.nothing_was_lost(before, &tally).await
}
