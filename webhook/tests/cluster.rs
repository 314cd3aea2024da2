//! The whole server on a real API server: certificates, registration, caches, live reads, readiness.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use taskgate_cache::Clock;
use taskgate_certs::{Authority, AuthorityConfig, BundleManager, Injector, Lifetimes, Resolver, San};
use taskgate_e2e::{ControlPlane, PATIENCE, eventually, eventually_that};
use taskgate_webhook::{
    Addresses, ClientTarget, Dependencies, Registration, ServeError, Server, ServerConfig, ShutdownConfig,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "taskgate-system";
const TASK_CRD: &str = include_str!("../../e2e/standin/crds/task.yaml");
const SPAWNER_CRD: &str = include_str!("../../e2e/standin/crds/taskspawner.yaml");
const WORKSPACE_CRD: &str = include_str!("../../e2e/standin/crds/workspace.yaml");

/// What the binary wires, in a test.
struct Taskgate {
    addresses: Addresses,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Taskgate {
    async fn start(cp: &ControlPlane) -> anyhow::Result<Self> {
        Self::start_as(cp, false).await
    }

    async fn start_as(cp: &ControlPlane, metrics_auth: bool) -> anyhow::Result<Self> {
        let client = cp.client();
        let shutdown = CancellationToken::new();
        let resolver = Resolver::new();
        let authority = Authority::new(
            client.clone(),
            AuthorityConfig {
                namespace: NAMESPACE.to_owned(),
                secret: "taskgate-certificates".to_owned(),
                names: [San::of_service("taskgate", NAMESPACE)?, vec!["127.0.0.1".parse()?]].concat(),
                labels: Vec::new(),
                lifetimes: Lifetimes::default(),
                clock: jiff::Timestamp::now,
            },
        );
        let name = taskgate_webhook::rules::CONFIGURATION.to_owned();
        let injector = Injector::new(client.clone(), name, resolver.clone(), BundleManager::Taskgate);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ServerConfig {
            metrics_auth,
            shutdown: ShutdownConfig {
                quiet: Duration::from_millis(300),
                ..ShutdownConfig::default()
            },
            ..ServerConfig::new(any, any)
        };
        let dependencies = Dependencies {
            client,
            clock: Clock::default(),
            resolver: resolver.clone(),
            clients: None,
            injection: Some(injector.injection()),
            registry: Registry::default(),
        };
        let server = Server::bind(config, dependencies).await?;
        let addresses = server.addresses();
        tokio::spawn(authority.run(resolver, shutdown.clone()));
        tokio::spawn(injector.run(shutdown.clone()));
        let server = tokio::spawn(server.run(shutdown.clone()));
        Ok(Self {
            addresses,
            shutdown,
            server,
        })
    }

    /// Installs both webhook configurations, as a package manager does.
    async fn register(&self, cp: &ControlPlane) -> anyhow::Result<()> {
        let url = format!("https://{}", self.addresses.admission);
        let (mutating, validating) = Registration::new(NAMESPACE, ClientTarget::Url(url)).configurations();
        apply_cluster(cp, &serde_json::to_value(mutating)?).await?;
        apply_cluster(cp, &serde_json::to_value(validating)?).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        self.get_with(path, "").await
    }

    async fn get_with(&self, path: &str, header: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.addresses.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("a status line")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
        Ok((status, body.to_owned()))
    }

    async fn await_ready(&self) -> anyhow::Result<()> {
        let ready = || async { self.get("/readyz").await };
        eventually_that("ready", PATIENCE, ready, |(status, _)| *status == 200).await?;
        Ok(())
    }
}

async fn apply_cluster(cp: &ControlPlane, object: &Value) -> anyhow::Result<()> {
    let yaml = object.to_string();
    let apply = ["apply", "--server-side", "--field-manager=operator", "-f-"];
    cp.kubectl_with_input(apply, &yaml).await?.stdout_ok()?;
    Ok(())
}

async fn install_crds(cp: &ControlPlane) -> anyhow::Result<()> {
    for crd in [TASK_CRD, SPAWNER_CRD, WORKSPACE_CRD] {
        cp.install_crds(crd).await?;
    }
    for crd in taskgate_api::crds::all() {
        cp.install_crds(&serde_json::to_string(&crd)?).await?;
    }
    Ok(())
}

fn task(name: &str) -> Value {
    json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {"name": name, "labels": {"kelos.dev/taskspawner": "fixer"}},
        "spec": {"type": "claude-code", "prompt": "Fix it.",
            "credentials": {"type": "api-key", "secretRef": {"name": "key"}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_cluster_to_decisions_and_back() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    cp.kubectl(["create", "namespace", NAMESPACE]).await?.stdout_ok()?;
    let taskgate = Taskgate::start(&cp).await?;

    // No CRD is installed, which counts as synced, so only the registration is missing.
    let only_registration = |(status, text): &(u16, String)| {
        *status == 503
            && text.contains("[+]caches ok")
            && text.contains("[+]certificate ok")
            && text.contains("[+]handshake ok")
            && text.contains("[-]webhook-configurations failed: MutatingWebhookConfiguration does not exist")
    };
    let probe = || async { taskgate.get("/readyz").await };
    eventually_that("all but the registration", PATIENCE, probe, only_registration).await?;
    taskgate.register(&cp).await?;
    taskgate.await_ready().await?;
    assert_eq!(taskgate.get("/livez").await?, (200, "ok\n".to_owned()));

    // Kelos and our own kinds come later.
    install_crds(&cp).await?;
    let ns = cp.namespace("webhook").await?;
    let tasks = Api::<DynamicObject>::namespaced_with(cp.client(), ns.name(), &task_resource());
    let create = |name: &str| {
        let (tasks, task) = (tasks.clone(), serde_json::from_value::<DynamicObject>(task(name)));
        async move { anyhow::Ok(tasks.create(&PostParams::default(), &task?).await?) }
    };
    ns.apply_yaml(
        "{apiVersion: taskgate.dev/v1alpha1, kind: TaskPolicy, metadata: {name: agents}, spec: {queueName: agents,
          metadata: {labels: {team: a}}, failurePolicy: {maxRetriesPerItem: 3}}}",
    )
    .await?;
    eventually("the policy is known", PATIENCE, || async {
        let (_, metrics) = taskgate.get("/metrics").await?;
        ensure!(
            metrics.contains("taskgate_cache_objects{kind=\"taskpolicies\"} 1"),
            "{metrics}"
        );
        Ok(())
    })
    .await?;

    // A Task, and the Job that Kelos makes for it.
    let created = create("fixer-1").await?;
    assert_eq!(label(&created, "team").as_deref(), Some("a"));
    let uid = created.metadata.uid.context("a uid")?;
    ns.apply_yaml(&job("fixer-1", &uid)).await?;
    let job = ns.api::<Job>().get("fixer-1").await?;
    assert_eq!(job.spec.and_then(|spec| spec.suspend), Some(true));
    assert_eq!(
        job.metadata
            .labels
            .and_then(|labels| labels.get("kueue.x-k8s.io/queue-name").cloned())
            .as_deref(),
        Some("agents")
    );
    // The Job of a deleted Task has no owner. (Dry run: the garbage collector would delete it.)
    let orphan = serde_json::from_str(&self::job("fixer-9", "long-gone"))?;
    let job = ns.api::<Job>().create(&dry_run(), &orphan).await?;
    assert_eq!(job.spec.and_then(|spec| spec.suspend), Some(false));

    // A tripped item.
    let item = taskgate_policy::identify(taskgate_api::kelos::Task::of(&task("fixer-42"))).context("an item")?;
    let work_item = item.work_item_name();
    ns.apply_yaml(
        &json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": work_item},
        "spec": {"key": item.key, "item": item.item, "spawner": "fixer"}})
        .to_string(),
    )
    .await?;
    let items = ns.api::<taskgate_api::WorkItem>();
    let open = json!({"status": {"breaker": "Open", "consecutiveFailures": 3}});
    items
        .patch_status(&work_item, &PatchParams::default(), &Patch::Merge(open))
        .await?;
    let denied = eventually("the Task of the tripped item is denied", PATIENCE, || async {
        let task: DynamicObject = serde_json::from_value(task("fixer-42"))?;
        let answer = tasks.create(&dry_run(), &task).await;
        Ok(answer.err().context("admitted")?.to_string())
    })
    .await?;
    assert!(denied.contains("item 42 failed 3 times"), "{denied}");

    // Policies that cannot be applied are refused when they are written.
    let refused = ns
        .apply_yaml("{apiVersion: taskgate.dev/v1alpha1, kind: TaskPolicy, metadata: {name: bad}, spec: {metadata: {labels: {kelos.dev/task: x}}}}")
        .await;
    assert!(format!("{refused:?}").contains("kelos.dev/task"), "{refused:?}");

    // Kelos is removed, which is no reason to be unready.
    cp.kubectl(["delete", "crd", "taskspawners.kelos.dev"])
        .await?
        .stdout_ok()?;
    taskgate.await_ready().await?;

    taskgate.shutdown.cancel();
    let (status, text) = taskgate.get("/readyz").await?;
    assert!(status == 503 && text.contains("[-]shutdown failed"), "{text}");
    taskgate.server.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_first_ready_answer_every_create_is_governed() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    cp.kubectl(["create", "namespace", NAMESPACE]).await?.stdout_ok()?;
    install_crds(&cp).await?;
    let ns = cp.namespace("ready").await?;
    ns.apply_yaml(
        "{apiVersion: taskgate.dev/v1alpha1, kind: TaskPolicy, metadata: {name: agents}, spec: {metadata: {labels: {team: a}}}}",
    )
    .await?;
    let taskgate = Taskgate::start(&cp).await?;
    taskgate.register(&cp).await?;
    taskgate.await_ready().await?;
    let tasks = Api::<DynamicObject>::namespaced_with(cp.client(), ns.name(), &task_resource());
    // A webhook configuration takes a moment to reach the API server's own cache (C27).
    eventually("the API server knows the registration", PATIENCE, || async {
        let task: DynamicObject = serde_json::from_value(task("probe"))?;
        let seen = tasks.create(&dry_run(), &task).await?;
        ensure!(label(&seen, "team").is_some(), "not labelled yet");
        Ok(())
    })
    .await?;
    for n in 0..200 {
        let task: DynamicObject = serde_json::from_value(task(&format!("fixer-{n}")))?;
        let created = tasks.create(&PostParams::default(), &task).await?;
        assert_eq!(label(&created, "team").as_deref(), Some("a"), "{n}");
    }

    // The API server restarts: the caches follow it again.
    cp.apiserver().restart().await?;
    ns.apply_yaml(
        "{apiVersion: taskgate.dev/v1alpha1, kind: TaskPolicy, metadata: {name: agents}, spec: {metadata: {labels: {team: b}}}}",
    )
    .await?;
    eventually("the changed policy is in force", PATIENCE, || async {
        let task: DynamicObject = serde_json::from_value(task("later"))?;
        let seen = tasks.create(&dry_run(), &task).await?;
        ensure!(
            label(&seen, "team").as_deref() == Some("b"),
            "{:?}",
            seen.metadata.labels
        );
        Ok(())
    })
    .await?;
    taskgate.await_ready().await?;
    let kinds = [
        "taskpolicies",
        "clustertaskpolicies",
        "workitems",
        "tasks",
        "taskspawners",
        "workspaces",
        "namespaces",
    ];
    // Each cache recovers with its own backoff.
    eventually("every cache follows the API server", PATIENCE, || async {
        let (_, metrics) = taskgate.get("/metrics").await?;
        let behind: Vec<_> = kinds
            .iter()
            .filter(|kind| !metrics.contains(&format!("taskgate_cache_age_seconds{{kind=\"{kind}\"}} 0.0")))
            .collect();
        ensure!(behind.is_empty(), "{behind:?}");
        Ok(())
    })
    .await?;
    taskgate.shutdown.cancel();
    taskgate.server.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_shown_to_users_whom_the_api_server_allows() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    cp.kubectl(["create", "namespace", NAMESPACE]).await?.stdout_ok()?;
    cp.apply_yaml(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader},
          rules: [{nonResourceURLs: [/metrics], verbs: [get]}]}",
    )
    .await?;
    let mut tokens = Vec::new();
    for name in ["prometheus", "stranger"] {
        cp.kubectl(["create", "serviceaccount", name, "-n", NAMESPACE])
            .await?
            .stdout_ok()?;
        let token = cp
            .kubectl(["create", "token", name, "-n", NAMESPACE])
            .await?
            .stdout_ok()?;
        tokens.push(format!("authorization: Bearer {}\r\n", token.trim()));
    }
    let bind = [
        "create",
        "clusterrolebinding",
        "reader",
        "--clusterrole=reader",
        "--serviceaccount=taskgate-system:prometheus",
    ];
    cp.kubectl(bind).await?.stdout_ok()?;
    let taskgate = Taskgate::start_as(&cp, true).await?;
    let read = |header: String| async { Ok(taskgate.get_with("/metrics", &{ header }).await?.0) };
    let allowed = || read(tokens[0].clone());
    eventually_that("the binding counts", PATIENCE, allowed, |status| *status == 200).await?;
    assert_eq!(read(tokens[1].clone()).await?, 403);
    for header in ["", "authorization: Basic eDp5\r\n", "authorization: Bearer garbage\r\n"] {
        assert_eq!(read(header.to_owned()).await?, 401, "{header}");
    }
    // A flood of bad tokens asks the API server a few times, and rejects no user who was accepted before.
    let mut flooded = Vec::new();
    for index in 0..60 {
        flooded.push(read(format!("authorization: Bearer bad-{index}\r\n")).await?);
    }
    assert!(flooded.contains(&429), "{flooded:?}");
    assert_eq!(read(tokens[0].clone()).await?, 200);
    // A probe has no token.
    assert_eq!(taskgate.get("/livez").await?.0, 200);
    assert!(taskgate.get("/readyz").await?.1.contains("[+]shutdown ok"));
    taskgate.shutdown.cancel();
    taskgate.server.await??;
    Ok(())
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn task_resource() -> ApiResource {
    let gvk = GroupVersionKind::gvk("kelos.dev", "v1alpha2", "Task");
    ApiResource::from_gvk_with_plural(&gvk, "tasks")
}

fn label(object: &DynamicObject, key: &str) -> Option<String> {
    object.metadata.labels.as_ref()?.get(key).cloned()
}

fn job(name: &str, owner: &str) -> String {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {"kelos.dev/task": name},
        "ownerReferences": [{"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name, "uid": owner,
            "controller": true}]},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]}}}})
    .to_string()
}
