//! Tasks and their Jobs: S16 to S23.

use crate::support::{StandinFixture, job};
use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::types::Task;
use kelos_standin::{Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use taskgate_e2e::{AuditEvent, PATIENCE, await_object, eventually, never};

/// A Job that the job controller skips: its status is what the test writes.
const UNMANAGED: &str = "managedBy: example.com/test";

fn by_standin(event: &AuditEvent, fixture: &StandinFixture, name: &str) -> bool {
    let about = &event.object_ref;
    let named = about.name == name
        || event
            .request_object
            .as_ref()
            .is_some_and(|o| o["metadata"]["name"] == name);
    event.user_agent == "kelos-standin" && event.is_write() && about.namespace == fixture.ns.name() && named
}

fn shape(event: &AuditEvent) -> String {
    let about = &event.object_ref;
    format!("{} {}/{}", event.verb, about.resource, about.subresource)
}

#[tokio::test]
async fn s16_the_first_write_is_the_finalizer_by_full_put() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s16").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.task("a", "").await?;
    fixture.await_task_phase("a", "Running").await?;
    let events = fixture.cp.audit().since(mark).await?;
    let mut writes = events.iter().filter(|event| by_standin(event, &fixture, "a"));
    let first = writes.next().map(shape);
    assert_eq!(first.as_deref(), Some("update tasks/"));
    let task = fixture.tasks().get("a").await?;
    assert_eq!(task.finalizers(), [keys::TASK_FINALIZER]);
    Ok(())
}

#[tokio::test]
async fn s17_the_job_comes_first_and_the_status_second() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s17").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.task("a", "").await?;
    let task = fixture.await_task_phase("a", "Running").await?;
    assert_eq!(task.current().job_name, "a");
    let events = fixture.cp.audit().since(mark).await?;
    let writes = events
        .iter()
        .filter(|event| by_standin(event, &fixture, "a") && event.code() < 300);
    let writes: Vec<&AuditEvent> = writes.take(3).collect();
    let order: Vec<String> = writes.iter().map(|event| shape(event)).collect();
    assert_eq!(order, ["update tasks/", "create jobs/", "update tasks/status"]);
    let written = writes[2].request_object.as_ref().map(|object| object["status"].clone());
    assert_eq!(written, Some(json!({"phase": "Pending", "jobName": "a"})));
    Ok(())
}

#[tokio::test]
async fn s18_the_job_has_kelos_shape() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s18").await?;
    let more = "podOverrides: {labels: {team: a, kelos.dev/task: stolen}, env: [{name: X, value: why}],
      resources: {limits: {cpu: 500m}}, activeDeadlineSeconds: 60}
  workspaceRef: {name: repo}
  branch: main";
    fixture.task("a", more).await?;
    let task = fixture.await_task_phase("a", "Running").await?;
    let job = fixture.jobs().get("a").await?;
    let wanted = [
        ("kelos.dev/component", "task"),
        ("kelos.dev/managed-by", "kelos-controller"),
        ("kelos.dev/name", "kelos"),
        ("kelos.dev/task", "a"),
        ("team", "a"),
    ];
    let has = |labels: &std::collections::BTreeMap<String, String>| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(*key).is_some_and(|v| v == value))
    };
    assert!(has(job.labels()), "{:?}", job.labels());
    assert!(job.annotations().is_empty(), "{:?}", job.annotations());
    let [owner] = job.owner_references() else {
        anyhow::bail!("{:?}", job.owner_references());
    };
    assert_eq!(
        (owner.kind.as_str(), Some(&owner.uid)),
        ("Task", task.metadata.uid.as_ref())
    );
    assert_eq!(owner.api_version, "kelos.dev/v1alpha2");
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
    let spec = job.spec.unwrap_or_default();
    assert_eq!((spec.backoff_limit, spec.ttl_seconds_after_finished), (Some(1), None));
    assert_eq!((spec.suspend, spec.active_deadline_seconds), (Some(false), Some(60)));
    let template = spec.template;
    assert!(has(&template.metadata.and_then(|m| m.labels).unwrap_or_default()));
    let pod = template.spec.unwrap_or_default();
    assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
    assert_eq!(pod.security_context.and_then(|s| s.fs_group), Some(61100));
    let init: Vec<_> = pod.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    assert_eq!(init, ["git-clone"]);
    let agent = &pod.containers[0];
    assert_eq!(agent.name, "kelos-agent");
    let env: Vec<_> = agent.env.iter().flatten().map(|e| e.name.as_str()).collect();
    assert_eq!(env, ["KELOS_BRANCH", "KELOS_AGENT_TYPE", "X"]);
    Ok(())
}

#[tokio::test]
async fn s19_a_missing_job_is_made_again_unless_the_task_has_ended() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s19").await?;
    fixture.task("a", "").await?;
    fixture.await_task_phase("a", "Running").await?;
    let first = fixture.jobs().get("a").await?;
    fixture.jobs().delete("a", &DeleteParams::background()).await?;
    let jobs = fixture.jobs();
    let again = await_object(&jobs, "a", "is a new one", |job| job.uid() != first.uid());
    let again = again.await?;
    fixture.end("a", Outcome::succeeded()).await?;
    fixture.jobs().delete("a", &DeleteParams::background()).await?;
    taskgate_e2e::await_gone(&fixture.jobs(), "a").await?;
    never(
        "the Job of an ended Task comes back",
        Duration::from_secs(2),
        async || Ok(fixture.jobs().get_opt("a").await?),
    )
    .await?;
    assert_ne!(first.uid(), again.uid());
    // A phase that Kelos does not know is not terminal.
    fixture
        .patch_status::<Task>("a", &json!({"phase": "Cancelled"}))
        .await?;
    fixture.await_job("a", "was made again", |_| true).await?;
    Ok(())
}

/// Touches a Task, so that it is reconciled, and returns it: a Job without an owner enqueues no Task.
async fn touched(fixture: &StandinFixture, name: &str) -> anyhow::Result<Task> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": jiff::Timestamp::now().to_string()}}}));
    Ok(fixture.tasks().patch(name, &PatchParams::default(), &patch).await?)
}

async fn await_phase_touching(fixture: &StandinFixture, name: &str, phase: &str) -> anyhow::Result<Task> {
    eventually(format!("{name} is {phase}"), PATIENCE, async || {
        let task = touched(fixture, name).await?;
        ensure!(task.phase() == phase, "{:?}", task.phase());
        Ok(task)
    })
    .await
}

async fn stays(fixture: &StandinFixture, name: &str, phase: &str, whatever: &str) -> anyhow::Result<()> {
    never(whatever, Duration::from_secs(1), async || {
        let task = touched(fixture, name).await?;
        Ok((task.phase() != phase).then_some(task))
    })
    .await
}

#[tokio::test]
async fn s20_active_wins_over_succeeded_wins_over_failed_and_suspend_is_invisible() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s20").await?;
    let jobs = fixture.jobs();
    let at = "2026-01-01T00:00:00Z";
    for name in ["good", "bad"] {
        fixture.apply_yaml(&job(name, UNMANAGED)).await?;
        fixture.task(name, "").await?;
        let taken_on = |task: &Task| !task.finalizers().is_empty();
        fixture.await_task(name, "is taken on", taken_on).await?;
        fixture
            .patch_status::<Job>(name, &json!({"active": 1, "startTime": at}))
            .await?;
        await_phase_touching(&fixture, name, "Running").await?;
    }
    fixture
        .patch_status::<Job>("good", &json!({"active": 1, "succeeded": 1, "failed": 1}))
        .await?;
    stays(&fixture, "good", "Running", "a pod is active").await?;
    fixture.patch_status::<Job>("good", &json!({"active": 0})).await?;
    await_phase_touching(&fixture, "good", "Succeeded").await?;

    fixture
        .patch_status::<Job>("bad", &json!({"active": 0, "failed": 1}))
        .await?;
    stays(&fixture, "bad", "Running", "failed pods without the condition").await?;
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    jobs.patch("bad", &PatchParams::default(), &suspend).await?;
    stays(&fixture, "bad", "Running", "the Job is suspended").await?;
    let failed = ["FailureTarget", "Failed"].map(|type_| {
        let (reason, times) = ("DeadlineExceeded", at);
        json!({"type": type_, "status": "True", "reason": reason, "lastTransitionTime": times, "lastProbeTime": times})
    });
    fixture
        .patch_status::<Job>("bad", &json!({"active": 0, "conditions": failed}))
        .await?;
    let task = await_phase_touching(&fixture, "bad", "Failed").await?;
    assert_eq!(task.current().message, "Task failed", "the reason is not copied");
    Ok(())
}

#[tokio::test]
async fn s21_the_end_is_one_write() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s21").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.task("a", "").await?;
    let outcome = Outcome::succeeded().with_outputs(["branch: fix-1", "cost-usd: 1.25", "input-tokens: 10"]);
    fixture.end("a", outcome).await?;
    let events = fixture.cp.audit().since(mark).await?;
    let ends = events
        .iter()
        .filter(|event| by_standin(event, &fixture, "a") && shape(event) == "update tasks/status");
    let ends = ends.filter_map(|event| event.request_object.as_ref());
    let end = ends
        .map(|object| &object["status"])
        .find(|status| status["phase"] == "Succeeded");
    let Some(end) = end else {
        anyhow::bail!("no write of the phase");
    };
    assert_eq!(end["message"], "Task completed successfully");
    assert!(end["completionTime"].is_string(), "{end}");
    assert_eq!(
        end["outputs"],
        json!(["branch: fix-1", "cost-usd: 1.25", "input-tokens: 10"])
    );
    assert_eq!(end["results"]["branch"], "fix-1");
    assert_eq!(end["usage"], json!({"costUSD": "1250m", "inputTokens": 10}));
    Ok(())
}

#[tokio::test]
async fn s22_foreign_phases_last_only_without_a_job() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s22").await?;
    fixture.task("a", "").await?;
    fixture.await_task_phase("a", "Running").await?;
    let at = "2026-01-01T00:00:00Z";
    let foreign = json!({"phase": "Failed", "message": "foreign", "completionTime": at, "startTime": at});
    fixture.patch_status::<Task>("a", &foreign).await?;
    let task = fixture.await_task_phase("a", "Running").await?.current();
    let of = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map(|t| t.0.to_string());
    assert_eq!(
        (task.message.as_str(), of(task.completion_time).as_deref()),
        ("", Some(at))
    );
    assert_ne!(of(task.start_time).as_deref(), Some(at), "a new start");
    // Waiting has no Job: there it stays.
    fixture.task("b", "dependsOn: [missing]").await?;
    let waiting = fixture.await_task_phase("b", "Waiting").await?;
    // A reconcile under way would set Waiting again, from a stale read (kelos T3).
    never("it is written again", Duration::from_secs(1), async || {
        let task = fixture.tasks().get("b").await?;
        Ok((task.resource_version() != waiting.resource_version()).then_some(task))
    })
    .await?;
    fixture
        .patch_status::<Task>("b", &json!({"phase": "Failed", "completionTime": at}))
        .await?;
    never("a foreign Failed is taken back", Duration::from_secs(6), async || {
        let task = fixture.tasks().get("b").await?;
        Ok((task.phase() != "Failed").then_some(task))
    })
    .await
}
