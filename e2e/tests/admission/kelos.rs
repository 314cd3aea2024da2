//! A spawner of an unchanged Kelos (its stand-in) creates Tasks, and they and their Jobs are governed.

use anyhow::ensure;
use kelos_standin::types::Task;
use kelos_standin::{CycleResult, GitHub, Key, Options, Scope, Standin, client};
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use taskgate_e2e::{PATIENCE, eventually};

use crate::support::governed;

#[tokio::test]
async fn a_spawners_tasks_are_labelled_and_their_jobs_queued_while_kelos_stays_healthy() -> anyhow::Result<()> {
    let spec = json!({"queueName": "agents", "metadata": {"labels": {"team": "blue"}}, "failurePolicy": {"maxRetriesPerItem": 3}});
    let fixture = governed("spawner", spec).await?;
    let github = GitHub::start().await?;
    let repo = github.repo("acme", "app");
    for number in [42, 87, 103] {
        repo.issue(number).title("A title").labels(["agent-ready"]);
    }
    let objects = format!(
        r#"
apiVersion: kelos.dev/v1alpha2
kind: Workspace
metadata: {{name: app}}
spec: {{repo: "{}/acme/app.git", ref: main}}
---
apiVersion: kelos.dev/v1alpha2
kind: TaskSpawner
metadata: {{name: fixer}}
spec:
  when: {{githubIssues: {{labels: [agent-ready], pollInterval: 1h}}}}
  taskTemplate:
    type: claude-code
    credentials: {{type: none}}
    workspaceRef: {{name: app}}
    promptTemplate: "Fix {{{{.Number}}}}"
"#,
        "https://github.com"
    );
    fixture.apply_yaml(&objects).await?;
    let options = Options::new(Scope::Namespaces(vec![fixture.ns.name().to_owned()]), github.url());
    let standin = Standin::start(client(fixture.cp.config())?, options).await?;
    let tasks = fixture.ns.api::<Task>();
    let jobs = fixture.jobs();
    eventually("three Tasks are pending, their Jobs queued", PATIENCE, || async {
        let tasks = tasks.list(&ListParams::default().labels("team=blue")).await?.items;
        let phases: Vec<_> = tasks
            .iter()
            .map(|task| task.status.as_ref().map(|status| status.phase.clone()))
            .collect();
        ensure!(
            phases.len() == 3 && phases.iter().all(|phase| format!("{phase:?}").contains("Pending")),
            "{phases:?}"
        );
        let jobs = jobs
            .list(&ListParams::default().labels("kueue.x-k8s.io/queue-name=agents"))
            .await?
            .items;
        let suspended = jobs
            .iter()
            .filter(|job| job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)))
            .count();
        ensure!(
            suspended == 3,
            "{:?}",
            jobs.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await?;
    let failed = standin.cycles(&Key::new(fixture.ns.name(), "fixer"), CycleResult::Failure);
    ensure!(failed == 0, "{failed} failed cycles");
    standin.stop().await;
    Ok(())
}
