//! The harness itself: what every other suite takes for granted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use taskgate_e2e::{
    ControlPlane, Keep, PATIENCE, ProcessSpec, await_gone, await_object, eventually, eventually_that, free_port, never,
    scrape,
};

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: one}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: agent, image: example.invalid/agent:1}]
";

const CRD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: owners.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Owner, plural: owners, singular: owner}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
";

/// Calls a port on which no process listens, and admits the request.
const WEBHOOK: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: deaf}
webhooks:
- name: deaf.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  timeoutSeconds: 1
  clientConfig: {url: 'https://127.0.0.1:PORT/'}
  rules:
  - {apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  objectSelector: {matchLabels: {ask: deaf}}
";

fn config_map(name: &str, labels: &[(&str, &str)]) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.labels = Some(labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect());
    map
}

#[tokio::test]
async fn a_job_gets_its_pod_from_the_controller_manager() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("job").await?;
    ns.apply_yaml(JOB).await?;
    await_object(&ns.api::<Job>(), "one", "has an active pod", |job: &Job| {
        job.status.as_ref().is_some_and(|status| status.active == Some(1))
    })
    .await?;
    let pods = ns
        .api::<Pod>()
        .list(&ListParams::default().labels("job-name=one"))
        .await?;
    assert_eq!(pods.items.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_namespace_goes_with_all_it_holds() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace_with_labels("doomed", &[("team", "a")]).await?;
    ns.apply_yaml(JOB).await?;
    let namespaces: Api<Namespace> = Api::all(cp.client());
    let labels = namespaces.get(ns.name()).await?.metadata.labels.context("no labels")?;
    assert_eq!(labels["team"], "a");
    assert_eq!(labels["taskgate.dev/test"], "a_namespace_goes_with_all_it_holds");

    namespaces.delete(ns.name(), &DeleteParams::default()).await?;
    await_gone(&namespaces, ns.name()).await
}

#[tokio::test]
async fn kubectl_tells_what_users_would_see() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("kubectl").await?;
    let version = cp.kubectl(["version", "-ojson"]).await?.stdout_ok()?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    assert_eq!(version["serverVersion"]["gitVersion"], "v1.36.3");
    assert_eq!(version["clientVersion"]["gitVersion"], "v1.36.3");

    let told = ns.kubectl(["get", "configmap", "none"]).await?.stderr_failed()?;
    assert_eq!(told, "Error from server (NotFound): configmaps \"none\" not found\n");
    let wrong = ns.kubectl(["get", "configmap", "none"]).await?.stdout_ok();
    let wrong = wrong.expect_err("it does not exist").to_string();
    assert!(wrong.contains("get configmap none` failed (exit status: 1)"), "{wrong}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_while_idle_nor_by_a_dry_run() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    let ns = cp.namespace("rest").await?;
    let settled = cp.settled_revision().await?;
    never("etcd is written while idle", Duration::from_secs(12), async || {
        let now = cp.etcd_revision().await?;
        Ok((now != settled).then_some(now))
    })
    .await?;

    let maps = ns.api::<ConfigMap>();
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    maps.create(&dry, &config_map("one", &[])).await?;
    assert_eq!(cp.etcd_revision().await?, settled);
    maps.create(&PostParams::default(), &config_map("one", &[])).await?;
    assert_eq!(cp.etcd_revision().await?, settled + 1);
    Ok(())
}

#[tokio::test]
async fn the_audit_log_tells_who_asked_and_which_webhooks_were_asked() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("audit").await?;
    cp.apply_yaml(&WEBHOOK.replace("PORT", &free_port()?.to_string()))
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(cp.client_as("alice", &["system:masters"]), ns.name());
    let asked = async || anyhow::Ok(cp.apiserver_metrics().await?.webhook_requests("deaf.example.com"));
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    eventually("the webhook configuration is in force", PATIENCE, async || {
        maps.create(&dry, &config_map("probe", &[("ask", "deaf")])).await?;
        ensure!(asked().await? > 0.0, "not asked");
        Ok(())
    })
    .await?;

    let before = asked().await?;
    let mark = cp.audit().mark()?;
    maps.create(&PostParams::default(), &config_map("asked", &[("ask", "deaf")]))
        .await?;
    maps.create(&PostParams::default(), &config_map("passed", &[])).await?;
    let events = cp.audit().since(mark).await?;
    let of = |name: &str| {
        let mut events = events
            .iter()
            .filter(|e| e.object_ref.namespace == ns.name() && e.object_ref.name == name);
        let event = events.next().cloned().with_context(|| format!("no event of {name}"))?;
        ensure!(events.next().is_none(), "two events of one request");
        Ok(event)
    };
    let (sent, passed) = (of("asked")?, of("passed")?);
    assert!(sent.was_sent_to("deaf.example.com"), "{sent:#?}");
    assert!(passed.webhooks().is_empty(), "{passed:#?}");
    assert_eq!(sent.summary(), format!("create configmaps {ns}/asked by alice → 201"));
    assert_eq!(
        (sent.username(), sent.is_write(), sent.is_dry_run()),
        ("alice", true, false)
    );
    let body = sent.request_object.context("the body of a write is logged")?;
    assert_eq!(body["metadata"]["name"], "asked");
    assert!(
        (asked().await? - before - 1.0).abs() < f64::EPSILON,
        "asked once, not twice"
    );
    Ok(())
}

#[tokio::test]
async fn others_may_do_what_rbac_lets_them() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("rbac").await?;
    ns.kubectl(["create", "role", "reader", "--verb=list", "--resource=configmaps"])
        .await?
        .stdout_ok()?;
    let account = format!("--serviceaccount={ns}:default");
    ns.kubectl(["create", "rolebinding", "reader", "--role=reader", &account])
        .await?
        .stdout_ok()?;

    let maps: Api<ConfigMap> = Api::namespaced(cp.client_as_service_account(ns.name(), "default"), ns.name());
    maps.list(&ListParams::default()).await?;
    let refused = maps.create(&PostParams::default(), &config_map("one", &[])).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403),
        "{refused:?}"
    );

    let file = cp.kubeconfig_of_service_account(ns.name(), "default").await?;
    let flag = format!("--kubeconfig={}", file.display());
    ns.kubectl([&flag, "get", "configmaps"]).await?.stdout_ok()?;
    let told = ns.kubectl([&flag, "get", "secrets"]).await?.stderr_failed()?;
    assert!(told.contains("forbidden: User \"system:serviceaccount:"), "{told}");

    let file = cp.kubeconfig_as("bob", &["guests"])?;
    let flag = format!("--kubeconfig={}", file.display());
    let told = ns.kubectl([&flag, "get", "configmaps"]).await?.stderr_failed()?;
    assert!(told.contains("forbidden: User \"bob\""), "{told}");
    Ok(())
}

#[tokio::test]
async fn two_stand_side_by_side() -> anyhow::Result<()> {
    let (one, two) = tokio::try_join!(ControlPlane::start(), ControlPlane::start())?;
    assert_ne!(one.dir(), two.dir());
    let ns = one.namespace("mine").await?;
    let in_two: Api<Namespace> = Api::all(two.client());
    assert!(in_two.get_opt(ns.name()).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_api_server_comes_back_with_its_data() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    let ns = cp.namespace("back").await?;
    ns.api()
        .create(&PostParams::default(), &config_map("kept", &[]))
        .await?;

    let exit = cp.apiserver().kill().await?;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert!(!cp.apiserver().is_running());
    let refused = ns.api::<ConfigMap>().get("kept").await;
    assert!(
        matches!(refused, Err(kube::Error::Service(_) | kube::Error::HyperError(_))),
        "{refused:?}"
    );
    cp.apiserver().start().await?;
    ns.api::<ConfigMap>().get("kept").await?;

    cp.apiserver().restart().await?;
    cp.controller_manager().terminate().await?;
    ns.apply_yaml(JOB).await?;
    never(
        "a pod appears without a controller manager",
        Duration::from_secs(2),
        async || Ok(ns.api::<Pod>().list(&ListParams::default()).await?.items.pop()),
    )
    .await?;
    cp.controller_manager().start().await?;
    eventually_that(
        "the pod of the Job",
        PATIENCE,
        async || Ok(ns.api::<Pod>().list(&ListParams::default()).await?.items.len()),
        |&pods| pods == 1,
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn crds_of_the_builder_are_known_to_the_garbage_collector() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRD).start().await?;
    let ns = cp.namespace("owned").await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Owner"));
    let owners = ns.dynamic_api(&kind);
    let owner = owners
        .create(&PostParams::default(), &DynamicObject::new("owner", &kind))
        .await?;
    let mut dependent = config_map("dependent", &[]);
    dependent.metadata.owner_references = Some(vec![serde_json::from_value(serde_json::json!({
        "apiVersion": "example.com/v1", "kind": "Owner", "name": "owner",
        "uid": owner.metadata.uid,
    }))?]);
    let maps = ns.api::<ConfigMap>();
    maps.create(&PostParams::default(), &dependent).await?;

    owners.delete("owner", &DeleteParams::default()).await?;
    eventually(
        "the owned object is gone, sooner than a resync",
        Duration::from_secs(20),
        async || {
            ensure!(maps.get_opt("dependent").await?.is_none(), "it is still there");
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn crds_can_be_installed_later() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("crd").await?;
    cp.install_crds(CRD).await?;
    ns.apply_yaml("{apiVersion: example.com/v1, kind: Owner, metadata: {name: one}}")
        .await?;
    let none = cp
        .install_crds("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
        .await;
    let none = none.expect_err("that is no CRD").to_string();
    assert!(none.starts_with("no CRD among what was applied"), "{none}");
    Ok(())
}

#[tokio::test]
async fn a_component_that_does_not_start_says_why() {
    let failed = ControlPlane::builder().apiserver_flag("--no-such-flag").start().await;
    let why = format!("{:#}", failed.expect_err("there is no such flag"));
    assert!(
        why.contains("kube-apiserver ended before it was up: exit code 1"),
        "{why}"
    );
    assert!(why.contains("unknown flag: --no-such-flag"), "{why}");
}

#[tokio::test]
async fn a_process_can_be_ended_in_every_way() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let script = "echo up; trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done";
    let process = cp.spawn(ProcessSpec::new("sh", "/bin/sh").args(["-c", script])).await?;
    let said = async |what: &str| {
        eventually(format!("it says {what}"), PATIENCE, async || {
            ensure!(process.log()?.ends_with(what), "{}", process.log_tail(9));
            Ok(())
        })
        .await
    };
    said("up\n").await?;
    process.pause().await?;
    let exit = process.terminate().await?;
    assert_eq!(exit.code, Some(3), "a paused process is asked too");
    assert!(process.log()?.ends_with("\nasked\n"), "{}", process.log_tail(9));

    process.start().await?;
    said("asked\nup\n").await?;
    assert!(process.start().await.is_err(), "it runs already");
    assert_eq!(process.kill().await?.signal, Some(9));

    process.start().await?;
    let pid = process.pid();
    drop(process);
    eventually("the dropped process is gone", PATIENCE, async || {
        ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_that_is_not_up_in_time_says_what_it_said() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let url = format!("http://127.0.0.1:{}/", free_port()?);
    let spec = ProcessSpec::new("mute", "/bin/sh").args(["-c", "echo busy; exec sleep 60"]);
    let late = cp.spawn(spec.ready_at(&url).ready_within(Duration::from_secs(1))).await;
    let late = late.expect_err("it never listens").to_string();
    assert!(
        late.starts_with(&format!("mute is not up after 1s, asked at {url}\n")),
        "{late}"
    );
    assert!(late.ends_with("busy"), "{late}");

    let spec = ProcessSpec::new("broken", "/bin/sh").args(["-c", "echo no port; exit 4"]);
    let ended = cp.spawn(spec.ready_at(&url)).await.expect_err("it ends").to_string();
    assert!(
        ended.starts_with("broken ended before it was up: exit code 4\n"),
        "{ended}"
    );
    assert!(ended.ends_with("no port"), "{ended}");
    Ok(())
}

#[tokio::test]
async fn metrics_of_anything_can_be_scraped() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let etcd = scrape(&format!("{}/metrics", cp.etcd_url())).await?;
    assert_eq!(etcd.value("etcd_server_has_leader", &[]), Some(1.0));
    let apiserver = cp.apiserver_metrics().await?;
    assert!(apiserver.value("apiserver_request_total", &[("verb", "POST")]) > Some(0.0));
    Ok(())
}

mod left_behind {
    //! The test runs itself as a child, ends it, and looks for what is left.

    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;

    /// Tells the child what to do.
    const WAY: &str = "TASKGATE_E2E_CHILD";

    #[tokio::test]
    async fn nothing_when_killed() -> anyhow::Result<()> {
        let mut child = Victim::start("wait").await?;
        child.process.kill()?;
        child.leaves_nothing().await
    }

    #[tokio::test]
    async fn nothing_when_interrupted() -> anyhow::Result<()> {
        let child = Victim::start("wait-shared").await?;
        // As a terminal does it: to the whole group.
        let group = format!("-{}", child.process.id());
        let sent = Command::new("kill").args(["-INT", "--", &group]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        child.leaves_nothing().await
    }

    #[tokio::test]
    async fn nothing_when_it_panics() -> anyhow::Result<()> {
        Victim::start("panic").await?.leaves_nothing().await
    }

    #[tokio::test]
    async fn nothing_when_it_returns_with_a_shared_one() -> anyhow::Result<()> {
        Victim::start("return-shared").await?.leaves_nothing().await
    }

    #[tokio::test]
    async fn nothing_when_the_supervisor_is_killed() -> anyhow::Result<()> {
        let cp = ControlPlane::start().await?;
        let dir = cp.dir().to_owned();
        let status = std::fs::read_to_string(format!("/proc/{}/status", cp.etcd().pid()))?;
        let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
        let supervisor = supervisor.context("etcd has no parent")?;
        ensure!(Command::new("kill").args(["-KILL", supervisor]).status()?.success());

        eventually("no process is left", Duration::from_secs(10), async || {
            let left = processes_in(&dir)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        eventually("its end is known", Duration::from_secs(10), async || {
            ensure!(!cp.apiserver().is_running());
            Ok(())
        })
        .await?;
        assert!(
            cp.apiserver().start().await.is_err(),
            "no supervisor is left to start it"
        );
        drop(cp);
        ensure!(!dir.exists(), "{} is left", dir.display());
        Ok(())
    }

    #[tokio::test]
    async fn the_logs_when_asked_to() -> anyhow::Result<()> {
        let child = Victim::start("keep-logs").await?;
        let dir = child.dir.clone();
        child.has_no_process().await?;
        let left = std::fs::read_dir(&dir)?.collect::<Result<Vec<_>, _>>()?;
        let log = dir.join("log");
        assert_eq!(
            left.iter().map(std::fs::DirEntry::path).collect::<Vec<_>>(),
            vec![log.clone()]
        );
        assert!(std::fs::read_to_string(log.join("audit.log"))?.contains("\"stage\""));
        Ok(std::fs::remove_dir_all(dir)?)
    }

    #[tokio::test]
    #[ignore = "no test, but what the child process does"]
    async fn child() -> anyhow::Result<()> {
        let way = std::env::var(WAY).context("started manually")?;
        let keep = if way == "keep-logs" { Keep::Logs } else { Keep::Nothing };
        let owned;
        let cp = if way.ends_with("shared") {
            ControlPlane::shared().await?
        } else {
            owned = ControlPlane::builder().keep(keep).start().await?;
            &owned
        };
        // Further processes are no exception, even if they do not want to end.
        let deaf = "trap '' TERM; while :; do sleep 1; done";
        let spec = ProcessSpec::new("deaf", "/bin/sh").args(["-c", deaf]);
        let _deaf = cp.spawn(spec.grace(Duration::from_millis(300))).await?;
        println!("\nready {}", cp.dir().display());
        if way.starts_with("wait") {
            std::future::pending::<()>().await;
        }
        assert!(way != "panic", "as asked");
        Ok(())
    }

    struct Victim {
        process: Child,
        dir: PathBuf,
    }

    impl Victim {
        async fn start(way: &str) -> anyhow::Result<Self> {
            let mut process = Command::new(std::env::current_exe()?)
                .args(["left_behind::child", "--exact", "--ignored", "--nocapture"])
                .env(WAY, way)
                .env_remove("TASKGATE_E2E_KEEP")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()?;
            let stdout = process.stdout.take().context("the child has no stdout")?;
            let stdout = tokio::process::ChildStdout::from_std(stdout)?;
            let mut lines = BufReader::new(stdout).lines();
            let ready = async {
                while let Some(line) = lines.next_line().await? {
                    if let Some(dir) = line.strip_prefix("ready ") {
                        return Ok(PathBuf::from(dir));
                    }
                }
                anyhow::bail!("the child ended before it was ready")
            };
            let dir = tokio::time::timeout(PATIENCE, ready).await??;
            // It would not be much of a test if there were nothing to leave behind.
            if way.starts_with("wait") {
                let found = processes_in(&dir)?;
                ensure!(found.len() >= 5, "supervisor, three components, one more: {found:?}");
            }
            Ok(Self { process, dir })
        }

        async fn has_no_process(mut self) -> anyhow::Result<()> {
            let Self { process, dir } = &mut self;
            eventually("the child has ended", PATIENCE, async || {
                process.try_wait()?.context("it runs")
            })
            .await?;
            eventually("no process is left", Duration::from_secs(10), async || {
                let left = processes_in(dir)?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })
            .await
        }

        async fn leaves_nothing(self) -> anyhow::Result<()> {
            let dir = self.dir.clone();
            ensure!(dir.is_absolute(), "{}", dir.display());
            self.has_no_process().await?;
            // Removing it was the last thing that the supervisor did.
            ensure!(!dir.exists(), "{} is left", dir.display());
            Ok(())
        }
    }

    /// Command lines of all processes that work in `dir`, or name it.
    fn processes_in(dir: &Path) -> anyhow::Result<Vec<String>> {
        let dir = dir.to_str().context("a path of our own making")?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let proc = entry?.path();
            // Others end while we look, and a zombie has neither.
            let cwd = std::fs::read_link(proc.join("cwd")).unwrap_or_default();
            let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if cwd.to_string_lossy().starts_with(dir) || line.contains(dir) {
                found.push(line);
            }
        }
        Ok(found)
    }
}
