//! Faults at random moments of the work, so that each meets steps half done.

use std::time::Duration;

use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use taskgate_e2e::{ControlPlane, Gate};
use tokio::{sync::watch, time::sleep};

/// What is done to the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// SIGKILL for the replica that leads.
    KillLeader,
    /// SIGKILL for one that does not.
    KillFollower,
    /// SIGKILL for both.
    KillAll,
    /// SIGKILL for the API server.
    KillServer,
    /// SIGTERM for the API server.
    RestartServer,
}

/// The faults, in their order, each with the number of failures that it waits for.
pub(crate) fn plan(faults: &[(Fault, usize)], failures: u32, rng: &mut StdRng) -> Vec<(u32, Fault)> {
    let mut order: Vec<Fault> = faults
        .iter()
        .flat_map(|&(fault, times)| std::iter::repeat_n(fault, times))
        .collect();
    order.shuffle(rng);
    let mut moments: Vec<u32> = order.iter().map(|_| rng.random_range(1..failures)).collect();
    moments.sort_unstable();
    moments.into_iter().zip(order).collect()
}

/// Injects the planned faults as the failures come. Each killed process runs again when it returns.
pub(crate) async fn run(
    plan: Vec<(u32, Fault)>,
    mut failures: watch::Receiver<u32>,
    cp: &ControlPlane,
    gates: &[Gate; 2],
    mut rng: StdRng,
) -> anyhow::Result<()> {
    for (moment, fault) in plan {
        failures.wait_for(|count| *count >= moment).await?;
        sleep(Duration::from_millis(rng.random_range(0..300))).await;
        let downtime = Duration::from_millis(rng.random_range(0..1_500));
        let leader = leader(gates).await.unwrap_or_else(|| rng.random_range(0..gates.len()));
        let victims = match fault {
            Fault::KillLeader => vec![gates[leader].process()],
            Fault::KillFollower => vec![gates[1 - leader].process()],
            Fault::KillAll => gates.iter().map(Gate::process).collect(),
            Fault::KillServer | Fault::RestartServer => vec![cp.apiserver()],
        };
        for victim in &victims {
            match fault {
                Fault::RestartServer => victim.terminate().await?,
                _ => victim.kill().await?,
            };
        }
        sleep(downtime).await;
        for victim in victims {
            victim.start().await?;
        }
    }
    Ok(())
}

async fn leader(gates: &[Gate; 2]) -> Option<usize> {
    for (index, gate) in gates.iter().enumerate() {
        let leads = gate
            .metrics()
            .await
            .is_ok_and(|metrics| metrics.sum("taskgate_leader") > 0.0);
        if leads {
            return Some(index);
        }
    }
    None
}
