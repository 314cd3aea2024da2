//! Tasks without a spawner, beside a stand-in of Kelos.

use anyhow::ensure;
use kelos_standin::{Agents, GitHub, Options, Outcome, Scope, Standin, client, types::Task};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use taskgate_e2e::{Namespace, await_object, never};
use tokio::time::Duration;

use crate::world::{World, quick, said};

struct Kelos {
    world: World,
    agents: Agents,
    _standin: Standin,
}

impl Kelos {
    async fn start(hint: &str, spec: Value) -> anyhow::Result<Self> {
        let world = World::start(hint, json!({"maxAttempts": 3})).await?;
        world.policy(spec).await?;
        let scope = || scope(&world.ns);
        let github = GitHub::start().await?;
        let agents = Agents::start(world.cp.client(), &scope()).await;
        let options = Options::new(scope(), github.url());
        let standin = Standin::start(client(world.cp.config())?, options).await?;
        Ok(Self {
            world,
            agents,
            _standin: standin,
        })
    }

    async fn create(&self, metadata: Value, more: Value) -> anyhow::Result<()> {
        let mut task = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": metadata,
            "spec": {"type": "claude-code", "prompt": "do it", "credentials": {"type": "none"}},
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            task["spec"][field] = value.clone();
        }
        let ns = self.world.ns.name();
        let output = self
            .world
            .cp
            .kubectl_with_input(["create", "-n", ns, "-f-"], &task.to_string())
            .await?;
        output.stdout_ok().map(drop)
    }

    fn tasks(&self) -> Api<Task> {
        self.world.ns.api()
    }

    async fn running(&self, name: &str, attempt: Option<&str>) -> anyhow::Result<Task> {
        await_object(&self.tasks(), name, &format!("runs as {attempt:?}"), |task| {
            let number = task
                .annotations()
                .get("foreman.llmkube.dev/attempt")
                .map(String::as_str);
            task.phase() == "Running" && number == attempt
        })
        .await
    }

    async fn fail(&self, name: &str) -> anyhow::Result<()> {
        let outcome = Outcome::failed_at_once().with_usage("0.25", 10, 5);
        self.agents
            .finish(self.world.ns.name(), name, outcome)
            .await
            .map(drop)?;
        Ok(())
    }
}

fn scope(ns: &Namespace) -> Scope {
    Scope::Namespaces(vec![ns.name().to_owned()])
}

fn retry(section: Value) -> Value {
    json!({"retry": quick(section)})
}

#[tokio::test]
async fn a_task_of_nobody_is_run_again_up_to_its_cap() -> anyhow::Result<()> {
    let kelos = Kelos::start(
        "task",
        retry(json!({"maxAttempts": 2, "overrides": {"task": {"model": "bigger"}}})),
    )
    .await?;
    kelos
        .create(json!({"name": "t"}), json!({"ttlSecondsAfterFinished": 1}))
        .await?;
    let first = kelos.running("t", None).await?;
    kelos.fail("t").await?;
    let second = kelos.running("t", Some("2")).await?;
    ensure!(second.uid() != first.uid());
    ensure!(serde_json::to_value(&second)?["spec"]["model"] == "bigger");
    kelos.fail("t").await?;
    kelos.world.said("Task/t", "MaxAttemptsReached").await?;
    // Kelos may tell what a run cost some seconds after its end.
    kelos
        .world
        .ledger("Task/t", "knows what both cost", |status, _| {
            status.attempts.len() == 2 && status.total_cost_usd.as_deref() == Some("0.50")
        })
        .await?;
    // Its TTL does not take the tombstone.
    never("the tombstone goes", Duration::from_secs(4), || async {
        let task = kelos.tasks().get("t").await?;
        let untouched = task.uid() == second.uid() && task.metadata.deletion_timestamp.is_none();
        Ok((!untouched).then_some("touched"))
    })
    .await
}

#[tokio::test]
async fn the_breakers_books_and_the_retry_go_together() -> anyhow::Result<()> {
    let mut spec = retry(json!({"maxAttempts": 3}));
    spec["failurePolicy"] = json!({"maxRetriesPerItem": 2});
    let kelos = Kelos::start("both", spec).await?;
    let metadata = json!({"name": "t", "annotations": {"taskgate.dev/item": "epic-1"}});
    kelos.create(metadata, json!({"ttlSecondsAfterFinished": 1})).await?;
    kelos.running("t", None).await?;
    kelos.fail("t").await?;
    kelos.running("t", Some("2")).await?;
    let item = kelos
        .world
        .ledger("epic-1", "has one failure", |status, _| status.attempts.len() == 1)
        .await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        status.consecutive_failures == 1 && status.last_reset.is_none(),
        "{status:?}"
    );
    kelos.fail("t").await?;
    // The breaker's limit holds for retries as for any other Task.
    let item = kelos.world.said("epic-1", "SuccessorRefused").await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        said(&status).1.contains("failed 2 times in a row (limit 2)"),
        "{status:?}"
    );
    ensure!(
        status.consecutive_failures == 2 && status.attempts.len() == 2,
        "{status:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_prompt_tells_why_the_last_run_failed_once() -> anyhow::Result<()> {
    let kelos = Kelos::start("prompt", retry(json!({"maxAttempts": 3, "feedback": true}))).await?;
    kelos.create(json!({"name": "t"}), json!({})).await?;
    for (attempt, next, error) in [(None, "2", "the first reason"), (Some("2"), "3", "the second reason")] {
        kelos.running("t", attempt).await?;
        let outcome = Outcome::failed_at_once().with_outputs([&format!("error: {error}"), "cost-usd: 0.25"]);
        kelos.agents.finish(kelos.world.ns.name(), "t", outcome).await?;
        let told = serde_json::to_value(kelos.running("t", Some(next)).await?)?;
        let prompt = told["spec"]["prompt"].as_str().unwrap_or_default();
        ensure!(prompt.starts_with("do it\n") && prompt.contains(error), "{prompt}");
        ensure!(
            prompt.matches("## Why the previous run failed").count() == 1,
            "{prompt}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_cancelled_task_is_not_run_again() -> anyhow::Result<()> {
    let kelos = Kelos::start("cancelled", retry(json!({"maxAttempts": 3}))).await?;
    kelos.create(json!({"name": "t"}), json!({})).await?;
    let first = kelos.running("t", None).await?;
    let ns = kelos.world.ns.name();
    kelos
        .world
        .cp
        .kubectl([
            "annotate",
            "-n",
            ns,
            "tasks.kelos.dev",
            "t",
            "taskgate.dev/cancel=enough",
        ])
        .await?
        .stdout_ok()?;
    await_object(&kelos.tasks(), "t", "is cancelled", |task| {
        task.annotations().get("taskgate.dev/cancel-state").map(String::as_str) == Some("Cancelled")
    })
    .await?;
    never("it runs again", Duration::from_secs(3), || async {
        let untouched = kelos.tasks().get("t").await?.uid() == first.uid();
        Ok((!untouched).then_some("touched"))
    })
    .await
}
