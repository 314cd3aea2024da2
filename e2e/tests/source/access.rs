//! Access to an issue source: tokens, proxies, and rights to read them.

use anyhow::ensure;
use kelos_standin::CRDS;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, taskgate_requests};

use crate::support::{await_baseline, await_request, await_source_readable, gate, proxy, start_on, start_with, trip};

/// What lets taskgate read the one Secret.
const ROLE: &str = include_str!("role.yaml");

fn secret(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github"}, "stringData": data}).to_string()
}

#[tokio::test]
async fn the_token_of_the_workspace_is_used_and_comments_of_its_account_change_nothing() -> anyhow::Result<()> {
    let fixture = start_with("token", json!({"secretRef": {"name": "github"}})).await?;
    fixture.apply_yaml(ROLE).await?;
    let issue = fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = trip(&fixture).await?;
    let told = await_source_readable(&fixture, "SecretMissing").await?;
    ensure!(told.contains("/github does not exist"), "{told}");
    ensure!(fixture.taskgate_requests().is_empty(), "asked without the token");
    let app = json!({"appID": "1", "installationID": "2", "privateKey": "3"});
    fixture.apply_yaml(&secret(&app)).await?;
    let told = await_source_readable(&fixture, "Unsupported").await?;
    ensure!(told.contains("GitHub App") && told.contains("ghproxy"), "{told}");
    fixture.kubectl(["delete", "secret", "github"]).await?.stdout_ok()?;
    fixture.github.viewer("fixer-account");
    fixture
        .apply_yaml(&secret(&json!({"GITHUB_TOKEN": "very-secret"})))
        .await?;
    await_source_readable(&fixture, "Answered").await?;
    let hash = await_baseline(&fixture).await?;
    ensure!(fixture.taskgate_requests().iter().all(|seen| seen.authorized));
    let before = fixture.taskgate_requests().len();
    issue.comment("Fixer-Account", "I could not do it.");
    await_request(&fixture, "/issues/42/comments", before).await?;
    ensure!(await_baseline(&fixture).await? == hash);
    issue.comment("ann", "Try the other way.");
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn a_workspace_with_a_proxy_needs_no_token() -> anyhow::Result<()> {
    let spec = json!({"ghproxy": {}, "secretRef": {"name": "no-such-secret"}});
    let fixture = start_with("proxy", spec).await?;
    let proxy = proxy().await?;
    let shown = proxy.repo(fixture.ns.name(), "r").issue(42);
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = trip(&fixture).await?;
    await_baseline(&fixture).await?;
    let requests = taskgate_requests(proxy, fixture.name());
    ensure!(
        !requests.is_empty() && requests.iter().all(|seen| !seen.authorized),
        "{requests:?}"
    );
    ensure!(fixture.taskgate_requests().is_empty(), "the proxy was bypassed");
    shown.title("Another title");
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}

/// A tenant writes the Workspace: it must not choose to which host taskgate connects, or sends the token.
#[tokio::test]
async fn a_host_that_the_operator_does_not_allow_is_not_asked() -> anyhow::Result<()> {
    let fixture = start_with("host", json!({"secretRef": {"name": "no-such-secret"}})).await?;
    let elsewhere = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": format!("https://127.0.0.1:6443/{}/r", fixture.ns.name()), "secretRef": {"name": "no-such-secret"}},
    });
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    fixture.apply_yaml(&elsewhere.to_string()).await?;
    trip(&fixture).await?;
    let told = await_source_readable(&fixture, "HostNotAllowed").await?;
    ensure!(
        told.contains("127.0.0.1:6443") && told.contains("--source-hosts"),
        "{told}"
    );
    ensure!(
        fixture.taskgate_requests().is_empty(),
        "the token's host was chosen by the tenant"
    );
    Ok(())
}

/// On a control plane of its own, since taskgate is killed.
#[tokio::test]
async fn a_secret_is_read_only_where_a_role_allows_it() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate().await?.start(&cp).await?;
    let fixture = start_on(&cp, &gate, "narrow", json!({"secretRef": {"name": "github"}})).await?;
    fixture
        .apply_yaml(&secret(&json!({"GITHUB_TOKEN": "very-secret"})))
        .await?;
    let issue = fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = trip(&fixture).await?;
    let told = await_source_readable(&fixture, "Forbidden").await?;
    for part in ["may not read Secret", "resourceNames: [github]", "verbs: [get]"] {
        ensure!(told.contains(part), "{told}");
    }
    ensure!(fixture.taskgate_requests().is_empty(), "asked without the token");
    fixture.apply_yaml(ROLE).await?;
    await_source_readable(&fixture, "Answered").await?;
    await_baseline(&fixture).await?;
    // A change while taskgate is unavailable is found when it is back: the baseline is in the WorkItem.
    gate.process().kill().await?;
    issue.title("Changed meanwhile");
    gate.process().start().await?;
    let next = fixture.await_next_task("fixer-42", &uid).await?;
    ensure!(next.uid().as_ref() != Some(&uid));
    ensure!(
        !gate.process().log()?.contains("very-secret"),
        "the token is in the log"
    );
    Ok(())
}
