//! Every end of a Task is recorded once in its WorkItem, and no item fails more often than its limit, whichever process is killed.

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use rand::{SeedableRng as _, rngs::StdRng};
use taskgate_e2e::{Gate, PATIENCE, eventually, is_soak, seed};
use tokio::sync::watch;

use crate::chaos::{self, Fault};
use crate::item::{Item, Seen, poll};
use crate::support::{FaultFixture, LIMITED, UNLIMITED};

/// How much happens.
struct Size {
    items: usize,
    /// Of each item.
    failures: u32,
    /// Of each tenth item: more than the attempts that a `WorkItem` keeps, at full size.
    failures_of_the_busy: u32,
    faults: &'static [(Fault, usize)],
}

/// 1,000 failures.
const FULL: Size = Size {
    items: 50,
    failures: 16,
    failures_of_the_busy: 56,
    faults: &[
        (Fault::KillLeader, 12),
        (Fault::KillFollower, 6),
        (Fault::KillAll, 3),
        (Fault::KillServer, 5),
        (Fault::RestartServer, 3),
    ],
};
/// 60 failures.
const SMALL: Size = Size {
    items: 10,
    failures: 6,
    failures_of_the_busy: 6,
    faults: &[
        (Fault::KillLeader, 2),
        (Fault::KillFollower, 1),
        (Fault::KillServer, 1),
        (Fault::RestartServer, 1),
    ],
};

#[tokio::test]
async fn every_failure_counts_once_and_no_limit_is_exceeded_among_kills() -> anyhow::Result<()> {
    let seed = seed();
    eprintln!("SEED={seed}");
    failures_among_faults(if is_soak() { FULL } else { SMALL }, seed)
        .await
        .with_context(|| format!("SEED={seed} repeats the choices"))
}

async fn failures_among_faults(size: Size, seed: u64) -> anyhow::Result<()> {
    let fixture = FaultFixture::start().await?;
    // The API server asks the second; while that one is unavailable, Tasks are created without admission.
    let gates = [
        Gate::builder().named("taskgate-a").start(&fixture.cp).await?,
        Gate::builder().named("taskgate-b").start(&fixture.cp).await?,
    ];
    fixture.govern().await?;

    let mut rng = StdRng::seed_from_u64(seed);
    let observed = Seen::nothing();
    let mut items: Vec<_> = (0..size.items)
        .map(|number| {
            let spawner = if number % 2 == 0 { LIMITED } else { UNLIMITED };
            Item::new(
                &fixture,
                observed.subscribe(),
                spawner,
                number + 1,
                StdRng::from_rng(&mut rng),
            )
        })
        .collect();
    let failures = |number: usize| match number % 10 {
        5 => size.failures_of_the_busy,
        _ => size.failures,
    };
    let total = (0..size.items).map(failures).sum();
    let plan = chaos::plan(size.faults, total, &mut rng);
    eprintln!("{total} failures over {} items; faults: {plan:?}", size.items);

    let failed = watch::Sender::new(0);
    let living = try_join_all(
        items
            .iter_mut()
            .enumerate()
            .map(|(number, item)| item.live(failures(number), &failed)),
    );
    let killing = chaos::run(
        plan,
        failed.subscribe(),
        &fixture.cp,
        &gates,
        StdRng::from_rng(&mut rng),
    );
    let lived = async { tokio::try_join!(living, killing) };
    tokio::select! {
        result = lived => { result?; }
        never = poll(fixture.ns.tasks(), &observed) => match never {},
    }
    for result in join_all(
        items
            .iter()
            .map(|item| eventually("the WorkItem is complete", PATIENCE, || item.check())),
    )
    .await
    {
        result?;
    }
    let unadmitted: u32 = items.iter().map(|item| item.unadmitted).sum();
    eprintln!("{unadmitted} of the Tasks were created without admission");
    Ok(())
}
