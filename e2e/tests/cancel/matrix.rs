//! The states that a Task can be in when a policy wants it cancelled, and how each of them ends.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use kelos_standin::types::Task;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{KelosFixture, Marker, Namespace, PATIENCE, eventually, never};

use crate::support::{await_cancelled, cancelled_condition, governed, task, task_events, task_with};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    /// For its branch, or for another Task.
    Waiting,
    /// Its Job exists, and pods are refused.
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

/// Runs `scenario` for every state, all of them at the same time.
pub(crate) async fn in_every_state<F>(scenario: impl Fn(State) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    try_join_all(State::ALL.map(scenario)).await.map(drop)
}

/// A fixture whose Tasks get into this state, under a policy with this section about cancellation.
pub(crate) async fn fixture_in(of: State, hint: &str, section: &Value) -> anyhow::Result<KelosFixture<'static>> {
    let mut policy = json!({"cancellationPolicy": section});
    if of == State::Queued {
        policy["queueName"] = "agents".into();
    }
    let fixture = governed(hint, policy).await?;
    match of {
        State::Waiting => fixture
            .run(&task_with("holder", &json!({"branch": "main"})))
            .await
            .map(drop)?,
        State::Pending => without_pods(&fixture).await?,
        State::Queued | State::Running | State::Finished => {}
    }
    Ok(fixture)
}

/// A Task that gets into this state.
pub(crate) fn task_of(of: State, name: &str) -> Value {
    match of {
        State::Waiting => task_with(name, &json!({"branch": "main"})),
        _ => task(name),
    }
}

/// Waits until the Task is in this state.
pub(crate) async fn reach(fixture: &KelosFixture<'_>, name: &str, of: State) -> anyhow::Result<Task> {
    let phase = of.phase();
    let task = fixture.await_task(name, phase, |task| task.phase() == phase).await?;
    if of == State::Finished {
        fixture.succeed(name).await?;
    }
    Ok(task)
}

/// The Task ends as cancelled because of this, once; or, where it had ended before, stays as it was.
pub(crate) async fn ends(fixture: &KelosFixture<'_>, name: &str, of: State, trigger: &str) -> anyhow::Result<()> {
    if of == State::Finished {
        return stays(fixture, name).await;
    }
    let task = await_cancelled(fixture, name).await?;
    let told = cancelled_condition(&task);
    ensure!(told["reason"] == trigger && told["status"] == "True", "{of:?}: {told}");
    ensure!(task_events(fixture, name, "TaskCancelled").await?.len() == 1, "{of:?}");
    Ok(())
}

/// This Task is not cancelled.
pub(crate) async fn stays(fixture: &KelosFixture<'_>, name: &str) -> anyhow::Result<()> {
    never("it is cancelled", Duration::from_secs(5), || async {
        let task = fixture.tasks().get(name).await?;
        Ok(task.annotations().get(keys::CANCEL).cloned())
    })
    .await
}

/// How many Tasks of this name were ever created.
pub(crate) async fn created(fixture: &KelosFixture<'_>, name: &str, mark: Marker) -> anyhow::Result<usize> {
    let created = fixture.cp.audit().since(mark).await?.into_iter().filter(|event| {
        let object = &event.object_ref;
        let stored = event.response_status.as_ref().is_some_and(|status| status.code == 201);
        let of_item = object.name == name && object.namespace == fixture.ns.name();
        event.verb == "create" && object.resource == "tasks" && object.subresource.is_empty() && of_item && stored
    });
    Ok(created.count())
}

/// One more Task of this name is created, which gets to the phase of the old one, and no third.
pub(crate) async fn comes_again_once(
    fixture: &KelosFixture<'_>,
    name: &str,
    old: &Task,
    phase: &str,
    mark: Marker,
) -> anyhow::Result<()> {
    let new = fixture
        .await_task(name, "is another one", |task| task.uid() != old.uid())
        .await?;
    fixture
        .await_task(name, "is in the phase of the old one", |task| {
            task.uid() == new.uid() && task.phase() == phase
        })
        .await?;
    never("a third Task", Duration::from_secs(8), || async {
        let created = created(fixture, name, mark).await?;
        Ok((created > 2).then_some(created))
    })
    .await?;
    ensure!(fixture.failed_cycles("fixer") == 0, "a failed cycle");
    Ok(())
}

/// Keeps pods from being created in the namespace, from now on.
async fn without_pods(ns: &Namespace) -> anyhow::Result<()> {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
    });
    ns.apply_yaml(&quota.to_string()).await?;
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    eventually("pods are refused", PATIENCE, || async {
        let refused = ns.create_dry_run(&probe).await?.stderr_failed()?;
        ensure!(refused.contains("exceeded quota"), "{refused}");
        Ok(())
    })
    .await
}
