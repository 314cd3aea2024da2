//! The way to a tracker: tokens, proxies, and who may read what.

use anyhow::ensure;
use kelos_standin::CRDS;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Shared};

use crate::world::{World, asked, gate};

/// What lets taskgate read the one Secret.
const ROLE: &str = include_str!("role.yaml");

static NARROW: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

fn secret(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github"}, "stringData": data}).to_string()
}

#[tokio::test]
async fn the_token_of_the_workspace_is_used_and_what_it_writes_is_not_a_persons() -> anyhow::Result<()> {
    let world = World::with("token", json!({"secretRef": {"name": "github"}})).await?;
    world.ns.apply_yaml(ROLE).await?;
    let issue = world.repo().issue(42);
    world.issues().await?;
    let uid = world.fail("fixer-42").await?;
    let told = world.readable("SecretMissing").await?;
    ensure!(told.contains("/github does not exist"), "{told}");
    ensure!(world.asked().is_empty(), "asked without the token");
    let app = json!({"appID": "1", "installationID": "2", "privateKey": "3"});
    world.ns.apply_yaml(&secret(&app)).await?;
    let told = world.readable("Unsupported").await?;
    ensure!(told.contains("GitHub App") && told.contains("ghproxy"), "{told}");
    world.ns.kubectl(["delete", "secret", "github"]).await?.stdout_ok()?;
    world.github.viewer("fixer-account");
    world
        .ns
        .apply_yaml(&secret(&json!({"GITHUB_TOKEN": "very-secret"})))
        .await?;
    world.readable("Answered").await?;
    let hash = world.baseline().await?;
    ensure!(world.asked().iter().all(|seen| seen.authorized));
    let before = world.asked().len();
    issue.comment("Fixer-Account", "I could not do it.");
    world.asks("/issues/42/comments", before).await?;
    ensure!(world.baseline().await? == hash);
    issue.comment("ann", "Try the other way.");
    world.next(&uid).await.map(drop)
}

#[tokio::test]
async fn a_workspace_with_a_proxy_needs_no_token() -> anyhow::Result<()> {
    let spec = json!({"ghproxy": {}, "secretRef": {"name": "no-such-secret"}});
    let world = World::with("proxy", spec).await?;
    let shown = world.proxy.repo(world.ns.name(), "r").issue(42);
    world.repo().issue(42);
    world.issues().await?;
    let uid = world.fail("fixer-42").await?;
    world.baseline().await?;
    let asked = asked(world.proxy, world.ns.name());
    ensure!(
        !asked.is_empty() && asked.iter().all(|seen| !seen.authorized),
        "{asked:?}"
    );
    ensure!(world.asked().is_empty(), "the proxy was bypassed");
    shown.title("Another title");
    world.next(&uid).await.map(drop)
}

/// A tenant writes the Workspace: it must not choose whom taskgate connects to, or shows the token.
#[tokio::test]
async fn a_host_that_the_operator_does_not_allow_is_not_asked() -> anyhow::Result<()> {
    let world = World::with("host", json!({"secretRef": {"name": "no-such-secret"}})).await?;
    let elsewhere = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": format!("https://127.0.0.1:6443/{}/r", world.ns.name()), "secretRef": {"name": "no-such-secret"}},
    });
    world.repo().issue(42);
    world.issues().await?;
    world.ns.apply_yaml(&elsewhere.to_string()).await?;
    world.fail("fixer-42").await?;
    let told = world.readable("HostNotAllowed").await?;
    ensure!(
        told.contains("127.0.0.1:6443") && told.contains("--source-hosts"),
        "{told}"
    );
    ensure!(world.asked().is_empty(), "the token's host was chosen by the tenant");
    Ok(())
}

/// On a control plane of its own, since it is killed.
#[tokio::test]
async fn a_secret_is_read_only_where_a_role_allows_it() -> anyhow::Result<()> {
    let cp = NARROW.get().await?;
    let gate = gate().await?.start(cp).await?;
    let world = World::on(cp, "narrow", json!({"secretRef": {"name": "github"}})).await?;
    world
        .ns
        .apply_yaml(&secret(&json!({"GITHUB_TOKEN": "very-secret"})))
        .await?;
    let issue = world.repo().issue(42);
    world.issues().await?;
    let uid = world.fail("fixer-42").await?;
    let told = world.readable("Forbidden").await?;
    for part in ["may not read Secret", "resourceNames: [github]", "verbs: [get]"] {
        ensure!(told.contains(part), "{told}");
    }
    ensure!(world.asked().is_empty(), "asked without the token");
    world.ns.apply_yaml(ROLE).await?;
    world.readable("Answered").await?;
    world.baseline().await?;
    // What changes while taskgate is away is found when it is back: the baseline is in the WorkItem.
    gate.process().kill().await?;
    issue.title("Changed meanwhile");
    gate.process().start().await?;
    let next = world.next(&uid).await?;
    ensure!(next.uid().as_ref() != Some(&uid));
    ensure!(
        !gate.process().log()?.contains("very-secret"),
        "the token is in the log"
    );
    Ok(())
}
