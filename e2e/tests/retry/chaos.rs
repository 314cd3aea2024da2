//! The account: what the ledgers say is what happened, whoever is killed, refused, held up or meddled with meanwhile.
//!
//! The outcome of each run is drawn beforehand, so that it is known how many runs there must be, and with which numbers.
//! Foreman's own book tells how many there were. The pauses below pace the faults: nothing is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use foreman_standin::{CRDS, Foreman, Options, Outcome, client, keys, types::AgenticTask};
use kelos_standin::{Key, Scope};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, eventually, is_soak, never, seed};
use tokio::{sync::watch, time::sleep};

use crate::{
    steps::{HOLD, annotated},
    world::World,
};

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
    /// How long what is deleted may linger, in seconds: at full size beyond the minute after which that is told.
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

/// What is to become of an object.
#[derive(Clone, Debug)]
struct Story {
    ends: Vec<End>,
    lingers: Option<u32>,
}

impl Story {
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
async fn the_ledgers_say_what_happened_whoever_is_killed_refused_or_meddled_with() -> anyhow::Result<()> {
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
    let cp: &'static ControlPlane = Box::leak(Box::new(cp));
    let gate = Gate::builder().serve_flag("--no-leader-election").start(cp).await?;
    let gate: &'static Gate = Box::leak(Box::new(gate));
    let retry = json!({
        "maxAttempts": MAX_ATTEMPTS, "maxInfrastructureFailures": MAX_INFRASTRUCTURE, "feedback": true,
        "maxInFlight": 60, "maxInFlightPerNamespace": 60,
    });
    let mut world = World::on(cp, gate, "chaos", retry).await?;

    let mut rng = StdRng::seed_from_u64(seed);
    let stories: BTreeMap<String, Story> = (0..size.objects)
        .map(|index| (format!("wl-{index}"), Story::draw(&size, &mut rng)))
        .collect();
    let total: usize = stories.values().map(|story| story.numbers().len()).sum();
    eprintln!("{total} runs of {} Workloads, {} kills", size.objects, size.kills);

    let (order, known) = (Order::default(), stories.clone());
    let options = Options::new(Scope::Namespaces(vec![world.ns.name().to_owned()])).scripted(move |task| {
        let name = task.labels().get(keys::WORKLOAD)?;
        let end = known.get(name)?.ends.get(order.of(task)).copied().unwrap_or(End::Good);
        Some((Duration::from_millis(50), end.outcome()))
    });
    world.foreman.stop().await;
    world.foreman = Foreman::start(client(cp.config())?, options).await?;

    // The faults end with the last kill: what was held up or refused must then come to its end.
    let over = watch::Sender::new(false);
    let living = async {
        for (name, story) in &stories {
            let lingers = story.lingers.map(|seconds| json!({keys::LINGERS: seconds.to_string()}));
            world.make(&annotated(name, &lingers.unwrap_or(json!({})))).await?;
        }
        let begun = Instant::now();
        let done = eventually("every story is told", STUCK, || balance(&world, &stories)).await;
        eprintln!("told after {} s", begun.elapsed().as_secs());
        over.send_replace(true);
        done
    };
    let dice = StdRng::from_rng(&mut rng);
    let killing = async {
        let killed = kill(&world, &size, dice, over.subscribe()).await;
        over.send_replace(true);
        killed
    };
    let refusing = refuse(&world, StdRng::from_rng(&mut rng), over.subscribe());
    let names: Vec<&str> = stories.keys().map(String::as_str).collect();
    let meddling = meddle(&world, &names, StdRng::from_rng(&mut rng), over.subscribe());
    let (lived, killed, refused, meddled) = tokio::join!(living, killing, refusing, meddling);
    lived?;
    eprintln!(
        "{} kills, {} refusals, {} writes by others",
        killed?, refused?, meddled?
    );
    never("something comes after the end", Duration::from_secs(3), || async {
        Ok(balance(&world, &stories).await.err())
    })
    .await?;
    let executions = world.foreman.journal().executions();
    for (index, one) in executions.iter().enumerate() {
        let collides = executions[..index].iter().find(|other| one.collides_with(other));
        ensure!(
            collides.is_none(),
            "two runs on one branch at a time: {one:?}, {collides:?}"
        );
    }
    Ok(())
}

/// Compares, of every object, the runs that there were with those that there must be, and with its ledger.
async fn balance(world: &World, stories: &BTreeMap<String, Story>) -> anyhow::Result<()> {
    let runs_of = |name: &str| world.foreman.journal().runs_of(&Key::new(world.ns.name(), name));
    for (name, story) in stories {
        let numbers: Vec<u32> = runs_of(name)
            .iter()
            .map(|run| run.attempt.as_deref().map_or(Ok(1), str::parse))
            .collect::<Result<_, _>>()?;
        let expected = story.numbers();
        ensure!(
            numbers == expected,
            "{name}: ran as {numbers:?}, not as {expected:?}; {story:?}"
        );
    }
    let items = world.ns.api::<WorkItem>().list(&ListParams::default()).await?;
    let items: HashMap<String, WorkItem> = items.into_iter().map(|item| (item.spec.key.clone(), item)).collect();
    for (name, story) in stories {
        let item = items.get(&format!("Workload/acme/{name}#7"));
        if story.ends[0] == End::Good {
            ensure!(item.is_none(), "{name}: what never failed is remembered");
            continue;
        }
        let runs = runs_of(name);
        let mut uids: Vec<&str> = runs.iter().map(|run| run.uid.as_str()).collect();
        let status = item.and_then(|item| item.status.clone()).unwrap_or_default();
        let mut written: Vec<&str> = status.attempts.iter().map(|attempt| attempt.uid.as_str()).collect();
        ensure!(
            written == uids,
            "{name}: {} runs, {written:?} in the ledger",
            uids.len()
        );
        written.sort_unstable();
        written.dedup();
        uids.dedup();
        ensure!(written.len() == uids.len(), "{name}: one UID twice");
        let ledger = status.retry.unwrap_or_default();
        ensure!(
            ledger.transition.is_none(),
            "{name}: {:?}",
            ledger.transition.map(|transition| transition.step)
        );
        let numbers = story.numbers();
        let good = story.ends[numbers.len() - 1] == End::Good;
        let last = numbers.last().copied().unwrap_or_default();
        ensure!(
            ledger.attempt == if good { 0 } else { last },
            "{name}: at {}",
            ledger.attempt
        );
    }
    Ok(())
}

/// SIGKILL for taskgate at random moments; a moment later it is there again.
async fn kill(world: &World, size: &Size, mut rng: StdRng, mut over: watch::Receiver<bool>) -> anyhow::Result<usize> {
    for done in 0..size.kills {
        let pause = sleep(Duration::from_millis(rng.random_range(300..3_000)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(done) }
        world.gate.process().kill().await?;
        sleep(Duration::from_millis(rng.random_range(0..800))).await;
        world.gate.process().start().await?;
    }
    Ok(size.kills)
}

/// Somebody refuses every further run now and then, before the deletion or after it.
async fn refuse(world: &World, mut rng: StdRng, mut over: watch::Receiver<bool>) -> anyhow::Result<usize> {
    let mut refusals = 0;
    loop {
        let pause = sleep(Duration::from_millis(rng.random_range(500..4_000)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(refusals) }
        let further =
            "!has(object.metadata.annotations) || !('foreman.llmkube.dev/attempt' in object.metadata.annotations)";
        world.refuse(further, "no further runs now").await?;
        refusals += 1;
        sleep(Duration::from_millis(rng.random_range(200..2_000))).await;
        world.admit().await?;
    }
}

/// Somebody writes to Workloads in whatever phase they are, and holds up a child's deletion for a while.
async fn meddle(
    world: &World,
    names: &[&str],
    mut rng: StdRng,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    let mut writes = 0;
    let (workloads, children) = (world.workloads(), world.children());
    loop {
        let pause = sleep(Duration::from_millis(rng.random_range(20..200)));
        tokio::select! { () = pause => {} _ = over.wait_for(|over| *over) => return Ok(writes) }
        let name = names[rng.random_range(0..names.len())];
        let number = rng.random_range(0..1000);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"meddled": format!("{number}")}}}));
        // It may not be there at the moment.
        writes += usize::from(workloads.patch(name, &PatchParams::default(), &patch).await.is_ok());
        if rng.random_bool(0.05) {
            hold(
                &children,
                &format!("{name}-code-7"),
                Duration::from_millis(rng.random_range(100..3_000)),
            )
            .await?;
        }
    }
}

async fn hold(children: &Api<AgenticTask>, name: &str, time: Duration) -> anyhow::Result<()> {
    let Some(child) = children.get_opt(name).await? else {
        return Ok(());
    };
    let uid = child.uid();
    let mut finalizers = child.finalizers().to_vec();
    finalizers.push(HOLD.to_owned());
    let patch =
        json!({"metadata": {"uid": uid, "resourceVersion": child.resource_version(), "finalizers": finalizers}});
    if children
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .is_err()
    {
        // It changed or went.
        return Ok(());
    }
    sleep(time).await;
    eventually("the child is let go", STUCK, async || {
        let Some(child) = children.get_opt(name).await?.filter(|child| child.uid() == uid) else {
            return Ok(());
        };
        let mut finalizers = child.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != HOLD);
        let patch =
            json!({"metadata": {"uid": uid, "resourceVersion": child.resource_version(), "finalizers": finalizers}});
        children
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    })
    .await
}
