//! Names, ownership, dedupe: S1 to S5, S15.

use crate::support::{NEVER, StandinFixture, after, condition, task};
use anyhow::ensure;
use kelos_standin::types::Task;
use kelos_standin::types::TaskSpawner;
use kelos_standin::{CycleResult, Outcome};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use std::time::Duration;
use taskgate_e2e::{PATIENCE, await_gone, eventually, never};

#[tokio::test]
async fn s01_name_is_lower_spawner_dash_id() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s01").await?;
    fixture.repo().issue(42).title("Crash at START, always").body("");
    fixture.spawn_issues("fixer", NEVER, "").await?;
    let long = "x".repeat(63);
    fixture.spawn_issues(&long, NEVER, "").await?;
    let template = "nameTemplate: 'Fix_{{.Number}}.-{{.Title}}-and-much-more-text-than-fits-into-a-name'";
    let when = format!("githubIssues: {{pollInterval: {NEVER}}}");
    fixture.spawner("named", &when, template, "").await?;
    fixture.await_task("fixer-42", "exists", |_| true).await?;
    fixture
        .await_task(&format!("{long}-42"), "is not cut", |_| true)
        .await?;
    let cut = "fix-42.crash-at-start--always-and-much-more-text-than-fits-int";
    let task = fixture.await_task(cut, "is sanitised and cut", |_| true).await?;
    assert!(task.name_any().len() <= 63);
    Ok(())
}

#[tokio::test]
async fn s02_own_is_the_controller_uid_else_the_label() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s02").await?;
    fixture.spawn_issues("other", NEVER, "suspend: true").await?;
    let other = fixture.ns.api::<TaskSpawner>().get("other").await?;
    // 41 carries the label only: ours. 42 carries the label, and another spawner owns it: not ours.
    let labelled = "labels: {kelos.dev/taskspawner: fixer}";
    let owner = format!(
        "ownerReferences: [{{apiVersion: kelos.dev/v1alpha2, kind: TaskSpawner, name: other, uid: {}, controller: true}}]",
        other.uid().unwrap_or_default()
    );
    let with = |name: &str, metadata: &str| task(name, "").replace(&format!("{{name: {name}}}"), metadata);
    let ours = with("fixer-41", &format!("{{name: fixer-41, {labelled}}}"));
    let theirs = with("fixer-42", &format!("{{name: fixer-42, {labelled}, {owner}}}"));
    fixture.apply_yaml(&ours).await?;
    fixture.apply_yaml(&theirs).await?;
    fixture.repo().issue(41);
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", NEVER, "").await?;
    fixture.await_cycles("fixer", CycleResult::Failure, 1).await?;
    let status = fixture.status("fixer").await?;
    let (_, _, message) = condition(&status, "DiscoveryError").unwrap_or_default();
    assert_eq!(
        message,
        "item 42: task fixer-42 name collides with an existing Task not owned by spawner fixer"
    );
    assert_eq!(status.active_tasks, 1);
    Ok(())
}

#[tokio::test]
async fn s03_an_owned_task_in_any_phase_suppresses() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s03").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "200ms", "").await?;
    let failed = fixture.end("fixer-42", Outcome::failed_at_once()).await?;
    let cycles = fixture.cycles("fixer", CycleResult::Success);
    fixture.await_cycles("fixer", CycleResult::Success, cycles + 3).await?;
    assert_eq!(fixture.tasks().get("fixer-42").await?.uid(), failed.uid());
    // Terminating counts as well.
    fixture.set_foreign_finalizer::<Task>("fixer-42", true).await?;
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    let cycles = fixture.cycles("fixer", CycleResult::Success);
    fixture.await_cycles("fixer", CycleResult::Success, cycles + 3).await?;
    assert_eq!(fixture.tasks().get("fixer-42").await?.uid(), failed.uid());
    assert_eq!(fixture.cycles("fixer", CycleResult::Failure), 0);
    assert_eq!(fixture.status("fixer").await?.total_tasks_created, 1);
    fixture.set_foreign_finalizer::<Task>("fixer-42", false).await?;
    let next = fixture.await_task("fixer-42", "is a new one", |task| task.uid() != failed.uid());
    next.await?;
    Ok(())
}

#[tokio::test]
async fn s04_a_newer_trigger_deletes_and_creates() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s04").await?;
    let issue = fixture.repo().issue(42);
    let when = "githubIssues: {pollInterval: 300ms, commentPolicy: {triggerComment: /fix}}";
    fixture.spawner("fixer", when, "", "").await?;
    fixture.await_cycles("fixer", CycleResult::Success, 2).await?;
    assert!(fixture.names().await?.is_empty(), "created without a trigger");
    issue.comment("ann", "please\n /fix \nsoon");
    // A comment while it runs is not after its end.
    fixture.await_task_phase("fixer-42", "Running").await?;
    issue.comment("ann", "/fix");
    let failed = fixture.end("fixer-42", Outcome::failed_at_once()).await?;
    never("retriggered by an old comment", Duration::from_secs(1), async || {
        let task = fixture.tasks().get("fixer-42").await?;
        Ok((task.uid() != failed.uid() || task.metadata.deletion_timestamp.is_some()).then_some(task))
    })
    .await?;
    assert_eq!(fixture.cycles("fixer", CycleResult::Failure), 0);
    // From here a cycle may fail: if the old Task is gone between its create and its look, see S5.
    issue.comment_at("ann", "/fix", after(&failed)?);
    let next = fixture.await_task("fixer-42", "is a new one", |task| task.uid() != failed.uid());
    assert!(next.await?.metadata.deletion_timestamp.is_none());
    Ok(())
}

#[tokio::test]
async fn s05_already_exists_is_a_skip_if_ours_and_an_error_if_not() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s05").await?;
    let issue = fixture.repo().issue(42);
    let when = "githubIssues: {pollInterval: 200ms, commentPolicy: {triggerComment: /fix}}";
    fixture.spawner("fixer", when, "", "").await?;
    issue.comment("ann", "/fix");
    let failed = fixture.end("fixer-42", Outcome::failed_at_once()).await?;
    fixture.set_foreign_finalizer::<Task>("fixer-42", true).await?;
    // Deleted for a retrigger, held by a foreign finalizer: each cycle creates, and skips.
    issue.comment_at("ann", "/fix", after(&failed)?);
    let held = |task: &kelos_standin::types::Task| task.metadata.deletion_timestamp.is_some();
    fixture.await_task("fixer-42", "is being deleted", held).await?;
    let cycles = fixture.cycles("fixer", CycleResult::Success);
    fixture.await_cycles("fixer", CycleResult::Success, cycles + 3).await?;
    assert_eq!(fixture.cycles("fixer", CycleResult::Failure), 0);
    assert_eq!(fixture.status("fixer").await?.total_tasks_created, 1);
    fixture.set_foreign_finalizer::<Task>("fixer-42", false).await?;
    fixture
        .await_task("fixer-42", "is a new one", |task| task.uid() != failed.uid())
        .await?;

    // A Task without an owner under the name.
    fixture.task("plain-42", "").await?;
    fixture.spawn_issues("plain", NEVER, "").await?;
    fixture.await_cycles("plain", CycleResult::Failure, 1).await?;
    let message = fixture.status("plain").await?.message;
    assert!(
        message.contains("plain-42 name collides with an existing Task not owned by"),
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn s15_labels_annotations_and_owner_are_exact() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s15").await?;
    fixture.repo().issue(42).title("Crash").labels(["bug", "p1"]);
    let template = "branch: 'fix-{{.Number}}'
    promptTemplate: '{{.Kind}} #{{.Number}}: {{.Title}}'
    metadata:
      labels: {about: 'n{{.Number}}', kelos.dev/taskspawner: stolen}
      annotations: {kelos.dev/source-number: stolen, note: '{{.Labels}}'}";
    let when = format!("githubIssues: {{pollInterval: {NEVER}}}");
    fixture.spawner("fixer", &when, template, "").await?;
    let task = fixture.await_task("fixer-42", "exists", |_| true).await?;
    let spawner = fixture.ns.api::<TaskSpawner>().get("fixer").await?;
    let labels: Vec<_> = task.labels().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("about", "n42"), ("kelos.dev/taskspawner", "fixer")]);
    let annotations: Vec<_> = task
        .annotations()
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        annotations,
        [
            ("kelos.dev/source-kind", "issue"),
            ("kelos.dev/source-number", "42"),
            ("note", "bug, p1")
        ]
    );
    let [owner] = task.owner_references() else {
        anyhow::bail!("{:?}", task.owner_references());
    };
    assert_eq!(
        (owner.api_version.as_str(), owner.kind.as_str()),
        ("kelos.dev/v1alpha2", "TaskSpawner")
    );
    assert_eq!(
        (owner.name.as_str(), Some(&owner.uid)),
        ("fixer", spawner.metadata.uid.as_ref())
    );
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), None));
    assert_eq!(task.spec.prompt, "Issue #42: Crash");
    assert_eq!(task.spec.branch, "fix-42");

    // The garbage collector takes the Task with its spawner, and both finalizers let go.
    fixture
        .ns
        .api::<TaskSpawner>()
        .delete("fixer", &DeleteParams::default())
        .await?;
    await_gone(&fixture.ns.api::<TaskSpawner>(), "fixer").await?;
    await_gone(&fixture.tasks(), "fixer-42").await?;
    eventually("pull requests are told apart", PATIENCE, async || {
        fixture.repo().pull(7);
        let when = "githubPullRequests: {pollInterval: 1h}";
        fixture.spawner("reviewer", when, "", "").await?;
        let task = fixture.tasks().get("reviewer-7").await?;
        let kind = task.annotations().get("kelos.dev/source-kind");
        ensure!(kind.is_some_and(|kind| kind == "pull-request"), "{kind:?}");
        Ok(())
    })
    .await
}
