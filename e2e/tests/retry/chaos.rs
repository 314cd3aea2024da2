//! The recorded runs are those that happened, among kills, denied writes, blocked deletions and writes of other clients.
//!
//! The outcome of each run is drawn beforehand, which gives the number of runs and their numbers. Foreman's journal has those that
//! there were. The pauses below pace the faults: nothing is awaited by them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use foreman_standin::{CRDS, Outcome, keys, types::AgenticTask};
use kelos_standin::Key;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, FOREIGN_FINALIZER, ForemanFixture, Gate, eventually, is_soak, never, seed};
use tokio::{sync::watch, time::sleep};

use crate::support::{allow_workloads, annotated, deny_workloads, start_on};

/// Longer than all faults together may keep taskgate from acting. What takes longer is stuck.
const STUCK: Duration = Duration::from_mins(12);
const MAX_ATTEMPTS: u32 = 3;
const MAX_INFRASTRUCTURE: u32 = 2;
/// More outcomes than an object can have runs.
const OUTCOMES: usize = 8;

/// How much happens.
struct Size {
    objects: usize,
    kills: usize,
    /// How long children terminate, in seconds: at full size beyond the minute after which the deletion counts as blocked.
    lingers: u32,
}

const FULL: Size = Size {
    objects: 200,
    kills: 40,
    lingers: 70,
};
const SMALL: Size = Size {
    objects: 20,
    kills: 5,
    lingers: 5,
};

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Good,
    Work,
    Infrastructure,
}

impl End {
    fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..10) {
            0..2 => Self::Good,
            2..7 => Self::Work,
            _ => Self::Infrastructure,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Good => Outcome::go(),
            Self::Work => Outcome::declined("STUCK-LOOP-DETECTED", "no way forward"),
            Self::Infrastructure => Outcome::executor_error("no route"),
        }
    }
}

/// How the runs of an object end.
#[derive(Clone, Debug)]
struct Plan {
    ends: Vec<End>,
    lingers: Option<u32>,
}

impl Plan {
    fn draw(size: &Size, rng: &mut StdRng) -> Self {
        Self {
            ends: (0..OUTCOMES).map(|_| End::draw(rng)).collect(),
            lingers: rng.random_bool(0.3).then(|| rng.random_range(1..=size.lingers)),
        }
    }

    /// The numbers of the runs that there must be.
    fn numbers(&self) -> Vec<u32> {
        let (mut number, mut row) = (1, 0);
        let mut numbers = Vec::new();
        for end in &self.ends {
            numbers.push(number);
            match end {
                End::Good => break,
                End::Work if number >= MAX_ATTEMPTS => break,
                End::Work => (number, row) = (number + 1, 0),
                End::Infrastructure if row + 1 >= MAX_INFRASTRUCTURE => break,
                End::Infrastructure => row += 1,
            }
        }
        numbers
    }
}

/// Which run of a Workload a task belongs to: the UIDs of its tasks, in their order.
#[derive(Clone, Debug, Default)]
struct Order(Arc<Mutex<HashMap<String, Vec<String>>>>);

impl Order {
    fn of(&self, task: &AgenticTask) -> usize {
        let uid = task.uid().unwrap_or_default();
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = order.entry(task.name_any()).or_default();
        seen.iter().position(|known| *known == uid).unwrap_or_else(|| {
            seen.push(uid);
            seen.len() - 1
        })
    }
}

#[tokio::test]
async fn the_recorded_runs_are_those_that_happened_among_faults() -> anyhow::Result<()> {
    let seed = seed();
    eprintln!("SEED={seed}");
    account(if is_soak() { FULL } else { SMALL }, seed)
        .await
        .with_context(|| format!("SEED={seed} repeats the choices"))
}

async fn account(size: Size, seed: u64) -> anyhow::Result<()> {
    let cp = ControlPlane::builder()
        .crds(CRDS)
        .crds(kelos_standin::CRDS)
        .start()
        .await?;
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    let retry = json!({
        "maxAttempts": MAX_ATTEMPTS, "maxInfrastructureFailures": MAX_INFRASTRUCTURE, "feedback": true,
        "maxInFlight": 60, "maxInFlightPerNamespace": 60,
    });
    let mut rng = StdRng::seed_from_u64(seed);
    let plans: BTreeMap<String, Plan> = (0..size.objects)
        .map(|index| (format!("wl-{index}"), Plan::draw(&size, &mut rng)))
        .collect();
    let total: usize = plans.values().map(|plan| plan.numbers().len()).sum();
    eprintln!("{total} runs of {} Workloads, {} kills", size.objects, size.kills);

    let (order, known) = (Order::default(), plans.clone());
    let script = move |task: &AgenticTask| {
        let name = task.labels().get(keys::WORKLOAD)?;
        let end = known.get(name)?.ends.get(order.of(task)).copied().unwrap_or(End::Good);
        Some((Duration::from_millis(50), end.outcome()))
    };
    let fixture = start_on(&cp, &gate, "chaos", retry, |options| options.scripted(script)).await?;

    // The faults end with the last kill: what was blocked or denied must then complete.
    let over = watch::Sender::new(false);
    let living = async {
        for (name, plan) in &plans {
            let lingers = plan.lingers.map(|seconds| json!({keys::LINGERS: seconds.to_string()}));
            fixture.created(&annotated(name, &lingers.unwrap_or(json!({})))).await?;
        }
        let begun = Instant::now();
        let done = eventually("every plan is complete", STUCK, || balance(&fixture, &plans)).await;
        eprintln!("complete after {} s", begun.elapsed().as_secs());
        over.send_replace(true);
        done
    };
    let dice = StdRng::from_rng(&mut rng);
    let killing = async {
        let killed = kill(&fixture, &size, dice, over.subscribe()).await;
        over.send_replace(true);
        killed
    };
    let denying = deny_runs(&fixture, StdRng::from_rng(&mut rng), over.subscribe());
    let names: Vec<&str> = plans.keys().map(String::as_str).collect();
    let changing = change(&fixture, &names, StdRng::from_rng(&mut rng), over.subscribe());
    let (lived, killed, denied, changed) = tokio::join!(living, killing, denying, changing);
    lived?;
    eprintln!("{} kills, {} denials, {} writes of others", killed?, denied?, changed?);
    never("something changes after the end", Duration::from_secs(3), || async {
        Ok(balance(&fixture, &plans).await.err())
    })
    .await?;
    let executions = fixture.foreman.journal().executions();
    for (index, one) in executions.iter().enumerate() {
        let collides = executions[..index].iter().find(|other| one.collides_with(other));
        ensure!(
            collides.is_none(),
            "two runs on one branch at a time: {one:?}, {collides:?}"
        );
    }
    Ok(())
}

/// Compares, of every object, the runs that there were with those of the plan, and with its WorkItem.
async fn balance(fixture: &ForemanFixture<'_>, plans: &BTreeMap<String, Plan>) -> anyhow::Result<()> {
    let runs_of = |name: &str| fixture.foreman.journal().runs_of(&Key::new(fixture.ns.name(), name));
    for (name, plan) in plans {
        let numbers: Vec<u32> = runs_of(name)
            .iter()
            .map(|run| run.attempt.as_deref().map_or(Ok(1), str::parse))
            .collect::<Result<_, _>>()?;
        let expected = plan.numbers();
        ensure!(
            numbers == expected,
            "{name}: ran as {numbers:?}, not as {expected:?}; {plan:?}"
        );
    }
    let items = fixture.work_items().list(&ListParams::default()).await?;
    let items: HashMap<String, WorkItem> = items.into_iter().map(|item| (item.spec.key.clone(), item)).collect();
    for (name, plan) in plans {
        let item = items.get(&format!("Workload/acme/{name}#7"));
        if plan.ends[0] == End::Good {
            ensure!(item.is_none(), "{name}: what never failed is recorded");
            continue;
        }
        let runs = runs_of(name);
        let mut uids: Vec<&str> = runs.iter().map(|run| run.uid.as_str()).collect();
        let status = item.and_then(|item| item.status.clone()).unwrap_or_default();
        let mut written: Vec<&str> = status.attempts.iter().map(|attempt| attempt.uid.as_str()).collect();
        ensure!(written == uids, "{name}: {} runs, {written:?} recorded", uids.len());
        written.sort_unstable();
        written.dedup();
        uids.dedup();
        ensure!(written.len() == uids.len(), "{name}: one UID twice");
        let retry = status.retry.unwrap_or_default();
        ensure!(
            retry.transition.is_none(),
            "{name}: {:?}",
            retry.transition.map(|transition| transition.step)
        );
        let numbers = plan.numbers();
        let good = plan.ends[numbers.len() - 1] == End::Good;
        let last = numbers.last().copied().unwrap_or_default();
        ensure!(
            retry.attempt == if good { 0 } else { last },
            "{name}: at {}",
            retry.attempt
        );
    }
    Ok(())
}

/// SIGKILL for taskgate at random moments; a moment later it is started again.
async fn kill(
    fixture: &ForemanFixture<'_>,
    size: &Size,
    mut rng: StdRng,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    for done in 0..size.kills {
        let pause = sleep(Duration::from_millis(rng.random_range(300..3_000)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(done) }
        fixture.gate.process().kill().await?;
        sleep(Duration::from_millis(rng.random_range(0..800))).await;
        fixture.gate.process().start().await?;
    }
    Ok(size.kills)
}

/// An admission policy denies every further run now and then, before the deletion or after it.
async fn deny_runs(
    fixture: &ForemanFixture<'_>,
    mut rng: StdRng,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    let mut denials = 0;
    loop {
        let pause = sleep(Duration::from_millis(rng.random_range(500..4_000)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(denials) }
        let further =
            "!has(object.metadata.annotations) || !('foreman.llmkube.dev/attempt' in object.metadata.annotations)";
        deny_workloads(fixture, further, "no further runs now").await?;
        denials += 1;
        sleep(Duration::from_millis(rng.random_range(200..2_000))).await;
        allow_workloads(fixture).await?;
    }
}

/// Another client writes to Workloads in any phase, and blocks a child's deletion for a while.
async fn change(
    fixture: &ForemanFixture<'_>,
    names: &[&str],
    mut rng: StdRng,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    let mut writes = 0;
    let (workloads, children) = (fixture.workloads(), fixture.agentic_tasks());
    loop {
        let pause = sleep(Duration::from_millis(rng.random_range(20..200)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(writes) }
        let name = names[rng.random_range(0..names.len())];
        let number = rng.random_range(0..1000);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"changed": format!("{number}")}}}));
        // It may not exist at the moment.
        writes += usize::from(workloads.patch(name, &PatchParams::default(), &patch).await.is_ok());
        if rng.random_bool(0.05) {
            block_deletion(
                &children,
                &format!("{name}-code-7"),
                Duration::from_millis(rng.random_range(100..3_000)),
            )
            .await?;
        }
    }
}

async fn block_deletion(children: &Api<AgenticTask>, name: &str, time: Duration) -> anyhow::Result<()> {
    let Some(child) = children.get_opt(name).await? else {
        return Ok(());
    };
    let uid = child.uid();
    let mut finalizers = child.finalizers().to_vec();
    finalizers.push(FOREIGN_FINALIZER.to_owned());
    let patch =
        json!({"metadata": {"uid": uid, "resourceVersion": child.resource_version(), "finalizers": finalizers}});
    if children
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .is_err()
    {
        // It was changed or deleted.
        return Ok(());
    }
    sleep(time).await;
    eventually("the finalizer is removed", STUCK, async || {
        let Some(child) = children.get_opt(name).await?.filter(|child| child.uid() == uid) else {
            return Ok(());
        };
        let mut finalizers = child.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FOREIGN_FINALIZER);
        let patch =
            json!({"metadata": {"uid": uid, "resourceVersion": child.resource_version(), "finalizers": finalizers}});
        children
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    })
    .await
}
