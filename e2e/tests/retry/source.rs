//! Before a run is repeated, the issue source is asked whether the issue is closed.

use anyhow::ensure;
use foreman_standin::types::Workload;
use kelos_standin::{Fault, Repo, Seen};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::retry_status::FailureClass;
use taskgate_e2e::{ForemanFixture, Namespace, PATIENCE, TASKGATE_AGENT, github, stuck, taskgate_requests};
use tokio::time::Duration;

use crate::command;
use crate::support::{apply_retry, await_reason, start, stays_unchanged, three, work_item_of, workload_with};

/// What lets taskgate read the Secret `github`.
const ROLE: &str = include_str!("../source/role.yaml");

/// The repository of the namespace.
async fn repo(ns: &Namespace) -> anyhow::Result<Repo> {
    Ok(github().await?.repo(ns.name(), "app"))
}

/// A Workload for issues of that repository, which has failed.
async fn failed_for(fixture: &ForemanFixture<'_>, name: &str, issues: Value) -> anyhow::Result<Workload> {
    let repo = format!("{}/app", fixture.ns);
    let spec = json!({"repo": repo, "issues": issues});
    fixture.created(&workload_with(name, &spec)).await?;
    let first = fixture.await_workload_phase(name, "Dispatched").await?;
    for issue in issues.as_array().into_iter().flatten() {
        fixture.finish(&format!("{name}-code-{issue}"), stuck()).await?;
    }
    Ok(first)
}

/// What taskgate requested about the issue.
async fn asked(ns: &Namespace, issue: u64) -> anyhow::Result<Vec<Seen>> {
    let path = format!("/repos/{ns}/app/issues/{issue}");
    let mut seen = taskgate_requests(github().await?, ns.name());
    seen.retain(|seen| seen.path == path);
    Ok(seen)
}

fn asking() -> Value {
    three(json!({"source": {}}))
}

#[tokio::test]
async fn a_closed_issue_is_not_run_again_until_a_user_asks_for_it() -> anyhow::Result<()> {
    let fixture = start("a63", asking()).await?;
    repo(&fixture).await?.issue(7).close();
    let first = failed_for(&fixture, "wl", json!([7])).await?;
    let item = await_reason(&fixture, "wl", "SourceClosed").await?;
    let failure = item.status.and_then(|status| status.retry?.failure);
    assert_eq!(failure.map(|failure| failure.class), Some(FailureClass::Obsolete));
    fixture
        .await_event("wl", "RetryGivenUp", &["its source is closed"])
        .await?;
    stays_unchanged(&fixture, "wl").await?;
    assert_eq!(asked(&fixture, 7).await?.len(), 1, "GitHub is not asked again");
    assert_eq!(fixture.runs("wl"), 1);
    // A user may know better.
    let alice = fixture.cp.kubeconfig_as("alice", &["system:masters"])?;
    let done = command::retry(&fixture, &alice, &["wl"]).await?;
    ensure!(done.status.success(), "{done:?}");
    fixture.await_successor(&first).await?;
    assert_eq!(asked(&fixture, 7).await?.len(), 1, "not even then");
    Ok(())
}

/// At the limit there is nothing to ask.
#[tokio::test]
async fn at_the_limit_it_stays_whether_it_is_closed_or_not() -> anyhow::Result<()> {
    let fixture = start("limit", json!({"maxAttempts": 1, "source": {}})).await?;
    repo(&fixture).await?.issue(7).close();
    failed_for(&fixture, "wl", json!([7])).await?;
    await_reason(&fixture, "wl", "MaxAttemptsReached").await?;
    stays_unchanged(&fixture, "wl").await?;
    assert_eq!(asked(&fixture, 7).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn open_unknown_or_without_a_source_is_run_again_as_ever() -> anyhow::Result<()> {
    let fixture = start("a64", asking()).await?;
    repo(&fixture).await?.issue(7);
    let open = failed_for(&fixture, "open", json!([7])).await?;
    fixture.await_successor(&open).await?;
    assert_eq!(asked(&fixture, 7).await?.len(), 1);
    let item = work_item_of(&fixture, "open").await?.name_any();
    ensure!(fixture.events_with_reason(&item, "SourceUnknown").await?.is_empty());

    let missing = failed_for(&fixture, "missing", json!([404])).await?;
    fixture.await_successor(&missing).await?;
    let item = work_item_of(&fixture, "missing").await?.name_any();
    fixture
        .await_event(&item, "SourceUnknown", &["Workload missing", "answers 404"])
        .await?;

    fixture
        .created(&workload_with("bare", &json!({"repo": "no-repository", "issues": [7]})))
        .await?;
    let bare = fixture.end("bare", stuck()).await?;
    fixture.await_successor(&bare).await?;
    let item = work_item_of(&fixture, "bare").await?.name_any();
    fixture
        .await_event(&item, "SourceUnknown", &["none of GitHub's"])
        .await?;
    // Without the section in the policy the issue source is not asked.
    repo(&fixture).await?.issue(9).close();
    apply_retry(&fixture, three(json!({}))).await?;
    let silent = failed_for(&fixture, "silent", json!([9])).await?;
    fixture.await_successor(&silent).await?;
    assert_eq!(asked(&fixture, 9).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn each_object_is_asked_about_by_its_own_issues() -> anyhow::Result<()> {
    let fixture = start("a65", asking()).await?;
    let repo = repo(&fixture).await?;
    repo.issue(7).close();
    repo.issue(8);
    repo.issue(9).close();
    let open = failed_for(&fixture, "open", json!([8])).await?;
    let some = failed_for(&fixture, "some", json!([7, 8])).await?;
    failed_for(&fixture, "closed", json!([7])).await?;
    failed_for(&fixture, "all", json!([7, 9])).await?;
    for (name, before) in [("open", &open), ("some", &some)] {
        ensure!(fixture.await_successor(before).await?.name_any() == name);
    }
    for name in ["closed", "all"] {
        await_reason(&fixture, name, "SourceClosed").await?;
        assert_eq!(fixture.runs(name), 1, "{name}");
    }
    Ok(())
}

/// HTTP errors, malformed answers and silence prove nothing, and block no retry for ever.
#[tokio::test]
async fn what_is_no_answer_keeps_nothing_from_being_run_again() -> anyhow::Result<()> {
    let fixture = start("a66", asking()).await?;
    let (github, repo) = (github().await?, repo(&fixture).await?);
    let faults = [
        ("broken", 1, Fault::status(500)),
        ("forbidden", 2, Fault::status(403)),
        ("nonsense", 3, Fault::garbage()),
        ("silent", 4, Fault::delay(Duration::from_mins(10))),
    ];
    for (name, issue, fault) in faults {
        // One that would say "closed" if it were heard.
        repo.issue(issue).close();
        github.fault(
            fault
                .of(TASKGATE_AGENT)
                .on(&format!("{}/app/issues/{issue}", fixture.ns.name())),
        );
        let first = failed_for(&fixture, name, json!([issue])).await?;
        fixture.await_successor(&first).await?;
        let item = work_item_of(&fixture, name).await?.name_any();
        fixture.await_event(&item, "SourceUnknown", &[name]).await?;
    }
    Ok(())
}

/// A rate limit applies to all requests with the same token; no retry waits for its end.
#[tokio::test]
async fn where_nothing_may_be_asked_everything_is_run_again() -> anyhow::Result<()> {
    let fixture = start("a66-limits", asking()).await?;
    let repo = repo(&fixture).await?;
    let limited = Fault::rate_limited_for(Duration::from_hours(1));
    let path = format!("{}/app/issues/5", fixture.ns.name());
    github().await?.fault(limited.of(TASKGATE_AGENT).on(&path));
    for issue in [5, 6] {
        repo.issue(issue).close();
        let name = format!("wl-{issue}");
        let first = failed_for(&fixture, &name, json!([issue])).await?;
        fixture.await_successor(&first).await?;
        let item = work_item_of(&fixture, &name).await?.name_any();
        fixture.await_event(&item, "SourceUnknown", &[&name]).await?;
    }
    assert_eq!(
        (asked(&fixture, 5).await?.len(), asked(&fixture, 6).await?.len()),
        (1, 0)
    );
    Ok(())
}

#[tokio::test]
async fn a_secret_of_the_namespace_is_used_where_a_role_allows_it() -> anyhow::Result<()> {
    let fixture = start(
        "asking-secret",
        three(json!({"source": {"secretRef": {"name": "github"}}})),
    )
    .await?;
    let repo = repo(&fixture).await?;
    repo.issue(7).close();
    let first = failed_for(&fixture, "wl", json!([7])).await?;
    let second = fixture.await_successor(&first).await?;
    let item = work_item_of(&fixture, "wl").await?.name_any();
    fixture
        .await_event(
            &item,
            "SourceUnknown",
            &["may not read Secret", "resourceNames: [github]"],
        )
        .await?;
    ensure!(asked(&fixture, 7).await?.is_empty(), "asked without the token");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github"}, "stringData": {"GITHUB_TOKEN": "very-secret"},
    });
    fixture.apply_yaml(&format!("{secret}\n---\n{ROLE}")).await?;
    // The authorizer learns of the Role a moment later.
    eventually_reads(&fixture).await?;
    fixture.finish("wl-code-7", stuck()).await?;
    ensure!(second.uid() != first.uid());
    await_reason(&fixture, "wl", "SourceClosed").await?;
    let asked = asked(&fixture, 7).await?;
    ensure!(
        !asked.is_empty() && asked.iter().all(|seen| seen.authorized),
        "{asked:?}"
    );
    // A repository of another host does not get to see it.
    let repo = format!("https://evil.example/{}/app", fixture.ns.name());
    fixture.created(&workload_with("evil", &json!({"repo": repo}))).await?;
    let evil = fixture.end("evil", stuck()).await?;
    fixture.await_successor(&evil).await?;
    let item = work_item_of(&fixture, "evil").await?.name_any();
    fixture.await_event(&item, "SourceUnknown", &["evil.example"]).await
}

async fn eventually_reads(fixture: &ForemanFixture<'_>) -> anyhow::Result<()> {
    taskgate_e2e::eventually("taskgate may read the Secret", PATIENCE, || async {
        let account = "--as=system:serviceaccount:taskgate-system:taskgate";
        let may = fixture
            .kubectl(["auth", "can-i", "get", "secrets/github", account])
            .await?;
        may.stdout_ok().map(drop)
    })
    .await
}
