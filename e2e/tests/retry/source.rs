//! Whether the source is closed, asked before a run is repeated: A63 to A66, with a GitHub to ask.

use anyhow::ensure;
use foreman_standin::types::Workload;
use kelos_standin::{Fault, Repo, Seen, SharedGitHub};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::retry_status::FailureClass;
use taskgate_e2e::{Gate, GateBuilder, PATIENCE};
use tokio::time::Duration;

use crate::{
    command,
    steps::{stuck, three, workload_with},
    world::World,
};

static GITHUB: SharedGitHub = SharedGitHub::new();

/// How taskgate calls itself.
const AGENT: &str = "taskgate/";
/// What lets taskgate read the Secret `github`.
const ROLE: &str = include_str!("../source/role.yaml");

/// A taskgate that asks that GitHub.
pub(crate) async fn gate() -> anyhow::Result<GateBuilder> {
    Ok(Gate::builder().asking(GITHUB.get().await?.url()))
}

impl World {
    async fn repo(&self) -> anyhow::Result<Repo> {
        Ok(GITHUB.get().await?.repo(self.ns.name(), "app"))
    }

    /// A Workload for issues of the namespace's own repository, which has failed.
    async fn failed_for(&self, name: &str, issues: Value) -> anyhow::Result<Workload> {
        let repo = format!("{}/app", self.ns.name());
        self.make(&workload_with(name, &json!({"repo": repo, "issues": issues})))
            .await?;
        let first = self.phase(name, "Dispatched").await?;
        for issue in issues.as_array().into_iter().flatten() {
            self.finish(&format!("{name}-code-{issue}"), stuck()).await?;
        }
        Ok(first)
    }

    /// What taskgate asked about the issue.
    async fn asked(&self, issue: u64) -> anyhow::Result<Vec<Seen>> {
        let path = format!("/repos/{}/app/issues/{issue}", self.ns.name());
        let mut seen = GITHUB.get().await?.seen();
        seen.retain(|seen| seen.user_agent.starts_with(AGENT) && seen.path == path);
        Ok(seen)
    }
}

fn asking() -> Value {
    three(json!({"source": {}}))
}

#[tokio::test]
async fn a63_what_was_closed_is_not_run_again_until_somebody_asks_for_it() -> anyhow::Result<()> {
    let world = World::start("a63", asking()).await?;
    world.repo().await?.issue(7).close();
    let first = world.failed_for("wl", json!([7])).await?;
    let memory = world.reason("wl", "SourceClosed", PATIENCE).await?;
    let failure = memory.status.and_then(|status| status.retry?.failure);
    assert_eq!(failure.map(|failure| failure.class), Some(FailureClass::Obsolete));
    world.told("wl", "RetryGivenUp", &["its source is closed"]).await?;
    world.stays("wl").await?;
    assert_eq!(world.asked(7).await?.len(), 1, "nobody is asked again");
    assert_eq!(world.runs("wl"), 1);
    // A person may know better.
    let alice = world.cp.kubeconfig_as("alice", &["system:masters"])?;
    let done = command::retry(&world, &alice, &["wl"]).await?;
    ensure!(done.status.success(), "{done:?}");
    world.next(&first).await?;
    assert_eq!(world.asked(7).await?.len(), 1, "not even then");
    Ok(())
}

/// At the cap there is nothing to ask about.
#[tokio::test]
async fn a63_at_the_cap_it_stays_whether_it_is_closed_or_not() -> anyhow::Result<()> {
    let world = World::start("a63-cap", json!({"maxAttempts": 1, "source": {}})).await?;
    world.repo().await?.issue(7).close();
    world.failed_for("wl", json!([7])).await?;
    world.reason("wl", "MaxAttemptsReached", PATIENCE).await?;
    world.stays("wl").await?;
    assert_eq!(world.asked(7).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a64_open_unknown_or_without_a_source_is_run_again_as_ever() -> anyhow::Result<()> {
    let world = World::start("a64", asking()).await?;
    world.repo().await?.issue(7);
    let open = world.failed_for("open", json!([7])).await?;
    world.next(&open).await?;
    assert_eq!(world.asked(7).await?.len(), 1);
    ensure!(
        world
            .events(&world.memory("open").await?.name_any())
            .await?
            .iter()
            .all(|(reason, _)| reason != "SourceUnknown")
    );

    let missing = world.failed_for("missing", json!([404])).await?;
    world.next(&missing).await?;
    let item = world.memory("missing").await?.name_any();
    world
        .told(&item, "SourceUnknown", &["Workload missing", "answers 404"])
        .await?;

    world
        .make(&workload_with("bare", &json!({"repo": "no-repository", "issues": [7]})))
        .await?;
    let bare = world.end("bare", stuck()).await?;
    world.next(&bare).await?;
    let item = world.memory("bare").await?.name_any();
    world.told(&item, "SourceUnknown", &["none of GitHub's"]).await?;
    // Nobody asks where the policy does not say so.
    world.repo().await?.issue(9).close();
    world.set(three(json!({}))).await?;
    let silent = world.failed_for("silent", json!([9])).await?;
    world.next(&silent).await?;
    assert_eq!(world.asked(9).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a65_each_object_is_asked_about_by_its_own_issues() -> anyhow::Result<()> {
    let world = World::start("a65", asking()).await?;
    let repo = world.repo().await?;
    repo.issue(7).close();
    repo.issue(8);
    repo.issue(9).close();
    let open = world.failed_for("open", json!([8])).await?;
    let some = world.failed_for("some", json!([7, 8])).await?;
    world.failed_for("closed", json!([7])).await?;
    world.failed_for("all", json!([7, 9])).await?;
    for (name, before) in [("open", &open), ("some", &some)] {
        ensure!(world.next(before).await?.name_any() == name);
    }
    for name in ["closed", "all"] {
        world.reason(name, "SourceClosed", PATIENCE).await?;
        assert_eq!(world.runs(name), 1, "{name}");
    }
    Ok(())
}

/// HTTP errors, nonsense and silence say nothing, and hold nobody up for ever.
#[tokio::test]
async fn a66_what_is_no_answer_keeps_nothing_from_being_run_again() -> anyhow::Result<()> {
    let world = World::start("a66", asking()).await?;
    let (github, repo) = (GITHUB.get().await?, world.repo().await?);
    let faults = [
        ("broken", 1, Fault::status(500)),
        ("forbidden", 2, Fault::status(403)),
        ("nonsense", 3, Fault::garbage()),
        ("silent", 4, Fault::delay(Duration::from_mins(10))),
    ];
    for (name, issue, fault) in faults {
        // One that would say "closed" if it were heard.
        repo.issue(issue).close();
        github.fault(fault.of(AGENT).on(&format!("{}/app/issues/{issue}", world.ns.name())));
        let first = world.failed_for(name, json!([issue])).await?;
        world.next(&first).await?;
        let item = world.memory(name).await?.name_any();
        world.told(&item, "SourceUnknown", &[name]).await?;
    }
    Ok(())
}

/// A limit holds for everything behind the same token; nobody waits for its end.
#[tokio::test]
async fn a66_where_nothing_may_be_asked_everything_is_run_again() -> anyhow::Result<()> {
    let world = World::start("a66-limits", asking()).await?;
    let repo = world.repo().await?;
    let limited = Fault::rate_limited_for(Duration::from_hours(1));
    let path = format!("{}/app/issues/5", world.ns.name());
    GITHUB.get().await?.fault(limited.of(AGENT).on(&path));
    for issue in [5, 6] {
        repo.issue(issue).close();
        let name = format!("wl-{issue}");
        let first = world.failed_for(&name, json!([issue])).await?;
        world.next(&first).await?;
        let item = world.memory(&name).await?.name_any();
        world.told(&item, "SourceUnknown", &[&name]).await?;
    }
    assert_eq!((world.asked(5).await?.len(), world.asked(6).await?.len()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_secret_of_the_namespace_is_used_where_a_role_allows_it() -> anyhow::Result<()> {
    let world = World::start(
        "asking-secret",
        three(json!({"source": {"secretRef": {"name": "github"}}})),
    )
    .await?;
    let repo = world.repo().await?;
    repo.issue(7).close();
    let first = world.failed_for("wl", json!([7])).await?;
    let second = world.next(&first).await?;
    let item = world.memory("wl").await?.name_any();
    world
        .told(
            &item,
            "SourceUnknown",
            &["may not read Secret", "resourceNames: [github]"],
        )
        .await?;
    ensure!(world.asked(7).await?.is_empty(), "asked without the token");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github"}, "stringData": {"GITHUB_TOKEN": "very-secret"},
    });
    world.ns.apply_yaml(&format!("{secret}\n---\n{ROLE}")).await?;
    // The authorizer learns of the Role a moment later.
    eventually_reads(&world).await?;
    world.finish("wl-code-7", stuck()).await?;
    ensure!(second.uid() != first.uid());
    world.reason("wl", "SourceClosed", PATIENCE).await?;
    let asked = world.asked(7).await?;
    ensure!(
        !asked.is_empty() && asked.iter().all(|seen| seen.authorized),
        "{asked:?}"
    );
    // A repository of another host does not get to see it.
    let repo = format!("https://evil.example/{}/app", world.ns.name());
    world.make(&workload_with("evil", &json!({"repo": repo}))).await?;
    let evil = world.end("evil", stuck()).await?;
    world.next(&evil).await?;
    let item = world.memory("evil").await?.name_any();
    world.told(&item, "SourceUnknown", &["evil.example"]).await
}

async fn eventually_reads(world: &World) -> anyhow::Result<()> {
    taskgate_e2e::eventually("taskgate may read the Secret", PATIENCE, || async {
        let account = "--as=system:serviceaccount:taskgate-system:taskgate";
        let may = world
            .ns
            .kubectl(["auth", "can-i", "get", "secrets/github", account])
            .await?;
        may.stdout_ok().map(drop)
    })
    .await
}
