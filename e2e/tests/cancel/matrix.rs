//! The states that a Task can be in when a policy wants it cancelled, and how each of them ends.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use kelos_standin::types::Task;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{Marker, PATIENCE, eventually, never};

use crate::world::{World, condition, task, task_with};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    /// For its branch, or for another Task.
    Waiting,
    /// Its Job is there, and no pod can be made.
    Pending,
    /// Its Job is suspended in a queue.
    Queued,
    Running,
    /// It ended a moment ago.
    Finished,
}

impl State {
    pub(crate) const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Finished,
    ];

    /// The phase of a Task that gets there, before it ends.
    pub(crate) fn phase(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Pending | Self::Queued => "Pending",
            Self::Running | Self::Finished => "Running",
        }
    }
}

/// Plays `scenario` for every state, all of them at the same time.
pub(crate) async fn in_every_state<F>(scenario: impl Fn(State) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    try_join_all(State::ALL.map(scenario)).await.map(drop)
}

/// A world whose Tasks get into this state, under a policy with this section about cancellation.
pub(crate) async fn world(of: State, hint: &str, section: &Value) -> anyhow::Result<World<'static>> {
    let mut policy = json!({"cancellationPolicy": section});
    if of == State::Queued {
        policy["queueName"] = "agents".into();
    }
    let world = World::governed(hint, policy).await?;
    match of {
        State::Waiting => world
            .run(&task_with("holder", &json!({"branch": "main"})))
            .await
            .map(drop)?,
        State::Pending => world.without_pods().await?,
        State::Queued | State::Running | State::Finished => {}
    }
    Ok(world)
}

/// A Task that gets into this state.
pub(crate) fn task_of(of: State, name: &str) -> Value {
    match of {
        State::Waiting => task_with(name, &json!({"branch": "main"})),
        _ => task(name),
    }
}

/// Waits until the Task is in this state.
pub(crate) async fn reach(world: &World<'_>, name: &str, of: State) -> anyhow::Result<Task> {
    let phase = of.phase();
    let task = world.await_task(name, phase, |task| task.phase() == phase).await?;
    if of == State::Finished {
        world.succeed(name).await?;
    }
    Ok(task)
}

/// The Task ends as cancelled because of this, once; or, where it had ended before, stays as it was.
pub(crate) async fn ends(world: &World<'_>, name: &str, of: State, trigger: &str) -> anyhow::Result<()> {
    if of == State::Finished {
        return stays(world, name).await;
    }
    let task = world.await_cancelled(name).await?;
    let told = condition(&task);
    ensure!(told["reason"] == trigger && told["status"] == "True", "{of:?}: {told}");
    ensure!(world.events(name, "TaskCancelled").await?.len() == 1, "{of:?}");
    Ok(())
}

/// Nobody asks that this Task be cancelled.
pub(crate) async fn stays(world: &World<'_>, name: &str) -> anyhow::Result<()> {
    never("it is cancelled", Duration::from_secs(5), || async {
        let task = world.tasks().get(name).await?;
        Ok(task.annotations().get(keys::CANCEL).cloned())
    })
    .await
}

/// How many Tasks of this name were ever made.
pub(crate) async fn made(world: &World<'_>, name: &str, mark: Marker) -> anyhow::Result<usize> {
    let made = world.cp.audit().since(mark).await?.into_iter().filter(|event| {
        let object = &event.object_ref;
        let stored = event.response_status.as_ref().is_some_and(|status| status.code == 201);
        let of_item = object.name == name && object.namespace == world.ns.name();
        event.verb == "create" && object.resource == "tasks" && object.subresource.is_empty() && of_item && stored
    });
    Ok(made.count())
}

/// A second one of this name is made, which gets to where the old one was, and no third.
pub(crate) async fn comes_again_once(
    world: &World<'_>,
    name: &str,
    old: &Task,
    phase: &str,
    mark: Marker,
) -> anyhow::Result<()> {
    let new = world
        .await_task(name, "is another one", |task| task.uid() != old.uid())
        .await?;
    world
        .await_task(name, "is where the old one was", |task| {
            task.uid() == new.uid() && task.phase() == phase
        })
        .await?;
    never("a third Task", Duration::from_secs(8), || async {
        let made = made(world, name, mark).await?;
        Ok((made > 2).then_some(made))
    })
    .await?;
    ensure!(world.failed_cycles("fixer") == 0, "a failed cycle");
    Ok(())
}

impl World<'_> {
    /// From now on no pod can be made here.
    async fn without_pods(&self) -> anyhow::Result<()> {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
        });
        self.ns.apply_yaml(&quota.to_string()).await?;
        let probe = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        eventually("no pod can be made", PATIENCE, || async {
            let refused = self.create(&probe, true).await?.stderr_failed()?;
            ensure!(refused.contains("exceeded quota"), "{refused}");
            Ok(())
        })
        .await
    }
}
