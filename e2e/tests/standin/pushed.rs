//! Other ways to a Task: cron, webhooks, worker pools.

use crate::support::StandinFixture;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kelos_standin::types::{Task, TaskSpawner};
use kelos_standin::{Delivered, Delivery, Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use taskgate_e2e::{await_gone, await_object};

fn event(delivery: &str, number: i64) -> Delivery {
    Delivery {
        event: "issue_comment".into(),
        delivery_id: delivery.into(),
        id: number.to_string(),
        number,
        title: "Crash".into(),
        owner: "o".into(),
        repository: "r".into(),
        ..Delivery::default()
    }
}

#[tokio::test]
async fn t16_a_denied_tick_is_lost() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("t16").await?;
    fixture
        .spawner("nightly", "cron: {schedule: '0 3 * * *'}", "", "")
        .await?;
    let cron = await_object(&fixture.ns.api::<CronJob>(), "nightly", "exists", |_| true).await?;
    assert_eq!(cron.labels().get(keys::COMPONENT).map(String::as_str), Some("spawner"));
    let key = fixture.key("nightly");
    let first: jiff::Timestamp = "2026-01-01T03:00:00Z".parse()?;
    fixture.standin.tick(&key, first).await?;
    let task = fixture.await_task("nightly-20260101-0300", "exists", |_| true).await?;
    assert!(task.annotations().is_empty(), "{:?}", task.annotations());
    let spawners = fixture.ns.api::<TaskSpawner>();
    let rewind = Patch::Merge(json!({"status": {"lastDiscoveryTime": "2026-01-01T03:00:00Z"}}));
    spawners
        .patch_status("nightly", &PatchParams::default(), &rewind)
        .await?;
    let second: jiff::Timestamp = "2026-01-02T03:00:00Z".parse()?;
    let denial = fixture.deny_task("nightly-20260102-0300").await?;
    let lost = fixture.standin.tick(&key, second).await;
    assert!(lost.is_err_and(|error| error.to_string().contains("denied by the test")));
    denial.lift().await?;
    fixture.standin.tick(&key, second).await?;
    assert_eq!(fixture.names().await?, ["nightly-20260101-0300"], "never tried again");
    Ok(())
}

#[tokio::test]
async fn webhooks_name_by_delivery_and_dedupe_by_name() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("webhook").await?;
    let when = "githubWebhook: {events: [issue_comment], reporting: {enabled: true}}";
    fixture.spawner("bot", when, "", "maxConcurrency: 2").await?;
    fixture
        .spawner("one", when, "nameTemplate: 'one-{{.Number}}'", "")
        .await?;
    let key = fixture.key("bot");
    let Delivered::Created(name) = fixture.standin.deliver(&key, &event("d-1", 42)).await? else {
        anyhow::bail!("not created");
    };
    assert!(name.starts_with("bot-issue-comment-"), "{name}");
    let task = fixture.tasks().get(&name).await?;
    let annotation = |key| task.annotations().get(key).map(String::as_str);
    assert_eq!(annotation(keys::SOURCE_NUMBER), Some("42"));
    assert_eq!(
        (annotation(keys::SOURCE_OWNER), annotation(keys::SOURCE_REPO)),
        (Some("o"), Some("r"))
    );
    assert_eq!(
        fixture.standin.deliver(&key, &event("d-1", 42)).await?,
        Delivered::Duplicate
    );
    let second = fixture.standin.deliver(&key, &event("d-2", 42)).await?;
    assert!(
        matches!(second, Delivered::Created(_)),
        "the same issue, another delivery: {second:?}"
    );
    let full = |spawner: &TaskSpawner| spawner.current().active_tasks == 2;
    await_object(&fixture.ns.api::<TaskSpawner>(), "bot", "two are active", full).await?;
    assert_eq!(
        fixture.standin.deliver(&key, &event("d-3", 42)).await?,
        Delivered::Dropped
    );
    // With a name template an ended Task silences the item.
    let one = fixture.key("one");
    let created = fixture.standin.deliver(&one, &event("e-1", 42)).await?;
    assert_eq!(created, Delivered::Created("one-42".into()));
    fixture.end("one-42", Outcome::failed_at_once()).await?;
    assert_eq!(
        fixture.standin.deliver(&one, &event("e-2", 42)).await?,
        Delivered::Duplicate
    );
    // A denied create is an error, and a redelivery is processed.
    let denial = fixture.deny_task("one-43").await?;
    let denied = fixture.standin.deliver(&one, &event("e-3", 43)).await;
    assert!(denied.is_err_and(|error| error.to_string().contains("denied by the test")));
    denial.lift().await?;
    let again = fixture.standin.deliver(&one, &event("e-3", 43)).await?;
    assert_eq!(again, Delivered::Created("one-43".into()));
    Ok(())
}

#[tokio::test]
async fn pool_tasks_are_assigned_to_a_pod_and_cancelled_through_it() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("pool").await?;
    let task = "
apiVersion: kelos.dev/v1alpha2
kind: Task
metadata: {name: a}
spec: {prompt: Do it., workerPoolRef: {name: pool}}
";
    fixture.apply_yaml(task).await?;
    let taken_on = |task: &Task| !task.finalizers().is_empty();
    let idle = fixture.await_task("a", "is taken on", taken_on).await?;
    assert_eq!(idle.phase(), "", "no runner, no status");
    let runner = "
apiVersion: v1
kind: Pod
metadata: {name: runner, labels: {kelos.dev/workerpool: pool}}
spec: {containers: [{name: kelos-agent, image: example.invalid/agent:1}]}
";
    fixture.apply_yaml(runner).await?;
    let pods = fixture.pods();
    let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("runner", &PatchParams::default(), &running).await?;
    let assigned = fixture.await_task_phase("a", "Running").await?.current();
    assert_eq!(assigned.pod_name, "runner");
    assert_eq!(
        pods.get("runner")
            .await?
            .annotations()
            .get(keys::ASSIGNED_TASK)
            .map(String::as_str),
        Some("a")
    );
    fixture.tasks().delete("a", &DeleteParams::default()).await?;
    let asked = |pod: &Pod| pod.annotations().get(keys::CANCEL_TASK).is_some_and(|task| task == "a");
    await_object(&pods, "runner", "is asked to cancel", asked).await?;
    assert!(
        fixture.tasks().get_opt("a").await?.is_some(),
        "kept until the runner releases it"
    );
    let failed = json!({"metadata": {"annotations": {
        keys::TASK_STATUS: "failed", keys::TASK_FAILURE_REASON: "task was cancelled"}}});
    pods.patch("runner", &PatchParams::default(), &Patch::Merge(&failed))
        .await?;
    await_gone(&fixture.tasks(), "a").await?;
    assert!(
        !pods
            .get("runner")
            .await?
            .annotations()
            .contains_key(keys::ASSIGNED_TASK)
    );
    Ok(())
}
