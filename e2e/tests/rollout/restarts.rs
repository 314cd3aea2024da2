//! Replicas that are restarted one after another, under load.

use std::time::Duration;

use taskgate_e2e::{Balancer, is_soak};

use crate::late::Late;
use crate::load::{Calls, Load, nothing_was_lost};
use crate::support::ReplicaFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_lose_no_call() -> anyhow::Result<()> {
    // A call to a replica that stopped before its readiness failed is lost.
    let fixture = ReplicaFixture::behind(Balancer::with_one_try().await?, |gate| {
        gate.registration_flag("--failure-policy=fail")
            .serve_flag("--lame-duck=5s")
            .grace(Duration::from_secs(15))
    })
    .await?;
    let before = Calls::read(&fixture.cp).await?;
    let load = Load::start(&fixture.ns, false);
    let late = Late::start(&fixture, vec![fixture.balancer.url().to_owned()]);
    for _ in 0..if is_soak() { 20 } else { 2 } {
        for gate in &fixture.gates {
            let exit = gate.process().terminate().await?;
            anyhow::ensure!(exit.success(), "{exit}: {}", gate.process().log_tail(20));
            gate.process().start().await?;
            fixture.both_are_ready().await?;
        }
    }
    eprintln!("{} handshakes by one that keeps no connection", late.stop().await?);
    let tally = load.stop().await?;
    nothing_was_lost(&fixture.cp, before, &tally).await
}
