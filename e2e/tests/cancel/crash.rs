//! taskgate is killed after each step of a cancellation, and started again: it ends in the same state, with one Event, and no
//! second agent ever runs.

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use kelos_standin::{CRDS, CrdCapability, types::Task};
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, KelosFixture, is_soak};

use crate::support::{
    annotate, await_cancelled, cancel_state, cancelled_condition, gate, pods_created, start_on, task, task_events,
    task_with,
};

/// A step, by the change that a watch sees: at that moment taskgate is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Requested,
    Announced,
    Notified,
    Cancelling,
    JobFailing,
    KelosTerminal,
    Recorded,
    Concluded,
    JobGone,
}

const STEPS: [Seen; 9] = [
    Seen::Requested,
    Seen::Announced,
    Seen::Notified,
    Seen::Cancelling,
    Seen::JobFailing,
    Seen::KelosTerminal,
    Seen::Recorded,
    Seen::Concluded,
    Seen::JobGone,
];

/// What is cancelled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Running,
    /// Its Job is suspended in a queue.
    Queued,
    /// It waits for its branch, without a Job.
    Waiting,
}

impl Of {
    fn steps(self) -> impl Iterator<Item = Seen> {
        let of_job = [Seen::Notified, Seen::JobFailing, Seen::JobGone];
        STEPS
            .into_iter()
            .filter(move |seen| self != Self::Waiting || !of_job.contains(seen))
    }

    /// A Task in this state.
    async fn make(self, fixture: &KelosFixture<'_>, name: &str) -> anyhow::Result<()> {
        let (object, phase) = match self {
            Self::Running => (task(name), "Running"),
            Self::Queued => (task(name), "Pending"),
            Self::Waiting => (task_with(name, &branch()), "Waiting"),
        };
        fixture.created(&object).await?;
        fixture
            .await_task(name, phase, |task| task.phase() == phase)
            .await
            .map(drop)
    }
}

fn branch() -> Value {
    json!({"branch": "main"})
}

impl Seen {
    fn on_task(self, task: &Task) -> bool {
        match self {
            Self::Requested => task.annotations().contains_key(keys::CANCELLED_BY),
            Self::Announced => cancel_state(task) == "Announced",
            Self::Cancelling => cancel_state(task) == "Cancelling",
            Self::KelosTerminal => task.phase() == "Failed",
            Self::Recorded => cancelled_condition(task)["status"] == "True",
            Self::Concluded => cancel_state(task) == "Cancelled",
            Self::Notified | Self::JobFailing | Self::JobGone => false,
        }
    }

    fn on_job(self, job: &Job) -> bool {
        let failing = |known: &JobCondition| known.type_ == "FailureTarget";
        let status = job.status.as_ref();
        match self {
            Self::Notified => job.annotations().contains_key(keys::CANCEL_DEADLINE),
            Self::JobFailing => status.is_some_and(|status| status.conditions.iter().flatten().any(failing)),
            _ => false,
        }
    }
}

/// Waits until the step is seen by a watch, so that taskgate is killed as soon as possible after the write.
async fn until(fixture: &KelosFixture<'_>, name: &str, seen: Seen) -> anyhow::Result<()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let tasks: Api<Task> = fixture.tasks();
    let mut tasks = watcher(tasks, config.clone())
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut jobs = watcher(fixture.jobs(), config).default_backoff().boxed();
    let wait = async {
        loop {
            tokio::select! {
                Some(task) = tasks.next() => if seen.on_task(&task?) { return anyhow::Ok(()) },
                Some(job) = jobs.next() => match job? {
                    watcher::Event::Apply(job) | watcher::Event::InitApply(job) if seen.on_job(&job) => return Ok(()),
                    watcher::Event::Delete(_) if seen == Seen::JobGone => return Ok(()),
                    _ => {}
                },
            }
        }
    };
    tokio::time::timeout(taskgate_e2e::PATIENCE, wait)
        .await
        .with_context(|| format!("{seen:?} was not seen"))?
}

/// At full size also a Task that waits, and one whose Job does.
#[tokio::test]
async fn killed_after_each_step_it_ends_the_same() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate().await?.start(&cp).await?;
    let all: &[Of] = if is_soak() {
        &[Of::Running, Of::Queued, Of::Waiting]
    } else {
        &[Of::Running]
    };
    for of in all {
        let fixture = start_on(&cp, &gate, "crash", CrdCapability::Base).await?;
        match of {
            Of::Running => {}
            Of::Queued => fixture.policy(json!({"queueName": "agents"})).await?,
            Of::Waiting => fixture.run(&task_with("holder", &branch())).await.map(drop)?,
        }
        for (index, seen) in of.steps().enumerate() {
            let name = format!("crash-{index}");
            let killed = killed_when(&fixture, &gate, *of, &name, seen).await;
            killed.with_context(|| format!("{of:?}, killed when {seen:?}"))?;
        }
    }
    Ok(())
}

async fn killed_when(fixture: &KelosFixture<'_>, gate: &Gate, of: Of, name: &str, seen: Seen) -> anyhow::Result<()> {
    let mark = fixture.cp.audit().mark()?;
    of.make(fixture, name).await?;
    let watching = until(fixture, name, seen);
    let asking = async {
        let why = format!("{}=crash", keys::CANCEL);
        let grace = format!("{}=3", keys::CANCEL_GRACE);
        annotate(fixture, "ann", name, &[&why, &grace]).await?.stdout_ok()
    };
    let (watched, asked) = tokio::join!(watching, asking);
    gate.process().kill().await?;
    watched?;
    asked?;
    let asked = fixture.tasks().get(name).await?;
    let deadline = asked.annotations().get(keys::CANCEL_DEADLINE).cloned();
    gate.process().start().await?;
    let task = await_cancelled(fixture, name).await?;
    ensure!(task.phase() == "Failed", "{}", task.phase());
    ensure!(
        cancelled_condition(&task)["message"] == "Cancelled by user:ann: crash",
        "{}",
        cancelled_condition(&task)
    );
    ensure!(
        task.annotations().get(keys::CANCEL_DEADLINE).cloned() == deadline,
        "the deadline moved"
    );
    let events = task_events(fixture, name, "TaskCancelled").await?;
    ensure!(events.len() == 1, "{} Events: {events:?}", events.len());
    let made = pods_created(fixture, mark, name).await?;
    ensure!(made == usize::from(of == Of::Running), "{made} agents were started");
    let after = gate.metrics().await?.sum("taskgate_cancellations_total");
    // A counter starts at 0 in each life.
    ensure!(after <= 1.0, "counted {after} times in one life");
    Ok(())
}
