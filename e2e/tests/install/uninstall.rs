//! Uninstalling in any order, and after an interruption, leaves nothing.

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use kelos_standin::CRDS;
use serde_json::json;
use taskgate_e2e::{ControlPlane, Marker, Namespace, PATIENCE, Pods, binary, eventually, never, run_job};
use tokio::process::Command;
use tokio::time::timeout;

use crate::helm::install;
use crate::support::{SYSTEM, apply_overlay, crossing, governed, plane, pods, project, task, task_with_status};

/// A namespace with a Task under way, one whose TTL is over and one whose TTL is not.
async fn populated(cp: &ControlPlane) -> anyhow::Result<Namespace> {
    let ns = governed(cp, "team").await?;
    let ttl = |seconds: u32| json!({"ttlSecondsAfterFinished": seconds});
    let ended =
        |at: Timestamp| json!({"phase": "Failed", "completionTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let now = Timestamp::now();
    ns.created(&task("running", &ttl(3600))).await?;
    task_with_status(&ns, "due", &ttl(1), &ended(now - SignedDuration::from_mins(10))).await?;
    task_with_status(&ns, "later", &ttl(86_400), &ended(now)).await?;
    eventually("taskgate holds them", PATIENCE, || async {
        let items = ns
            .kubectl(["get", "workitems", "-ojsonpath={.items[*].status.breaker}"])
            .await?
            .stdout_ok()?;
        ensure!(items == "Open Open", "{items}");
        ensure!(has_finalizer(&ns, "running").await?);
        Ok(())
    })
    .await?;
    Ok(ns)
}

/// Whether taskgate's finalizer is on the Task.
async fn has_finalizer(ns: &Namespace, name: &str) -> anyhow::Result<bool> {
    let task = ns.stored("task.kelos.dev", name).await?.unwrap_or_default();
    let finalizers = task["metadata"]["finalizers"].as_array().into_iter().flatten();
    Ok(finalizers
        .into_iter()
        .any(|finalizer| finalizer == "taskgate.dev/accounting"))
}

/// Nothing waits for taskgate any more, nothing of it is left, and nothing comes back.
async fn is_gone(cp: &ControlPlane, ns: &Namespace, system: &str) -> anyhow::Result<()> {
    for name in ["running", "later"] {
        ensure!(
            ns.stored("task.kelos.dev", name).await?.is_some(),
            "{name} is gone before its time"
        );
    }
    ensure!(
        ns.stored("task.kelos.dev", "due").await?.is_none(),
        "a Task whose TTL is over is still there"
    );
    let left = async || {
        let everywhere = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,roles,rolebindings";
        let inside =
            "deployments,services,leases,secrets,serviceaccounts,configmaps,jobs,poddisruptionbudgets,networkpolicies";
        let label = "-lapp.kubernetes.io/part-of=taskgate";
        let mut left = cp
            .kubectl(["get", everywhere, "-A", label, "-oname"])
            .await?
            .stdout_ok()?;
        left += &cp
            .kubectl(["get", inside, "-n", system, label, "-oname"])
            .await?
            .stdout_ok()?;
        for name in ["running", "later"] {
            if has_finalizer(ns, name).await? {
                left += name;
            }
        }
        anyhow::Ok(left)
    };
    eventually("nothing is left", PATIENCE, || async {
        let left = left().await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await?;
    never("something comes back", Duration::from_secs(3), || async {
        let left = left().await?;
        Ok((!left.is_empty()).then_some(left))
    })
    .await?;
    // With no one to take a finalizer off, this would wait for ever.
    ns.kubectl(["delete", "task.kelos.dev", "running", "--timeout=20s"])
        .await?
        .stdout_ok()?;
    cp.kubectl(["delete", "namespace", ns.name(), "--timeout=60s"])
        .await?
        .stdout_ok()
        .map(drop)
}

/// `taskgate uninstall`, as the admin.
fn command(cp: &ControlPlane, namespace: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("taskgate")?);
    let kubeconfig = format!("--kubeconfig={}", cp.kubeconfig().display());
    let namespace = format!("--taskgate-namespace={namespace}");
    command
        .args(["uninstall", "--yes", &namespace, &kubeconfig])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn uninstall(cp: &ControlPlane, namespace: &str) -> anyhow::Result<String> {
    let output = command(cp, namespace)?.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `helm uninstall`, with a kubelet that runs its hook.
async fn helm_uninstall(cp: &ControlPlane, namespace: &str) -> anyhow::Result<String> {
    let helm = async {
        cp.helm(["uninstall", "taskgate", "--namespace", namespace])
            .await?
            .stdout_ok()
    };
    let (_, told) = tokio::try_join!(helm, run_job(cp, namespace, "taskgate-uninstall"))?;
    Ok(told)
}

async fn delete_k(cp: &ControlPlane) -> anyhow::Result<()> {
    let overlay = project("manifests/overlays/self-signed").display().to_string();
    cp.kubectl(["delete", "-k", &overlay, "--ignore-not-found", "--timeout=60s"])
        .await?
        .stdout_ok()
        .map(drop)
}

async fn installed_by_helm(cp: &ControlPlane, values: &[&str]) -> anyhow::Result<(Pods, Namespace)> {
    install(cp, "taskgate", "gate", values).await?;
    let running = pods(cp, "gate", "taskgate").await?;
    Ok((running, populated(cp).await?))
}

async fn installed_by_kustomize(cp: &ControlPlane) -> anyhow::Result<(Pods, Namespace)> {
    apply_overlay(cp, "self-signed").await?;
    let running = pods(cp, SYSTEM, "taskgate").await?;
    Ok((running, populated(cp).await?))
}

/// The hook takes the Lease before it looks at Tasks, and before each further look it has renewed it.
async fn reads_under_the_lease(cp: &ControlPlane, mark: Marker) -> anyhow::Result<()> {
    let events = cp.audit().since(mark).await?;
    let asked: Vec<_> = events
        .iter()
        .filter(|event| event.user.username == "system:serviceaccount:gate:taskgate-uninstall")
        .filter(|event| event.response_status.as_ref().is_some_and(|status| status.code == 200))
        .map(|event| (event.verb.as_str(), event.object_ref.resource.as_str()))
        .filter(|asked| [("update", "leases"), ("list", "tasks")].contains(asked))
        .collect();
    let looks = asked.iter().filter(|(verb, _)| *verb == "list").count();
    ensure!(
        looks >= 2,
        "one look cannot be enough while a leader was there: {asked:?}"
    );
    ensure!(asked.first() == Some(&("update", "leases")), "{asked:?}");
    let unfenced = asked.windows(2).any(|pair| pair[0].0 == "list" && pair[1].0 == "list");
    ensure!(!unfenced, "a look without the Lease renewed: {asked:?}");
    Ok(())
}

/// Its replicas run all the while, longer than any kubelet would let them.
#[tokio::test]
async fn helm_uninstall_alone_and_then_the_command() -> anyhow::Result<()> {
    let cp = plane().await?;
    let (_running, ns) = installed_by_helm(&cp, &[]).await?;
    let mark = cp.audit().mark()?;
    let told = helm_uninstall(&cp, "gate").await?;
    ensure!(told.contains("Tasks, deleted 1 whose TTL had expired"), "{told}");
    reads_under_the_lease(&cp, mark).await?;
    ensure!(told.contains(&format!("{}/running (under way)", ns.name())), "{told}");
    ensure!(told.contains(&format!("{}/later (due at ", ns.name())), "{told}");
    let told = uninstall(&cp, "gate").await?;
    ensure!(told.contains("removed the finalizer of 0 Tasks, deleted 0"), "{told}");
    is_gone(&cp, &ns, "gate").await?;
    // What people wrote is kept, until they say otherwise.
    ensure!(cp.kubectl(["get", "clustertaskpolicies"]).await?.status.success());
    let data = command(&cp, "gate")?.arg("--with-data").output().await?;
    ensure!(data.status.success());
    eventually("its kinds are gone", PATIENCE, || async {
        let kinds = cp.kubectl(["get", "crds", "-oname"]).await?.stdout_ok()?;
        ensure!(!kinds.contains("taskgate.dev"), "{kinds}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_command_and_then_helm_uninstall() -> anyhow::Result<()> {
    let cp = plane().await?;
    // The command is not told what the registration is called, and without taskgate it would refuse every Task.
    let values = ["registration.name=acme.taskgate,registration.failurePolicy=Fail"];
    let (_running, ns) = installed_by_helm(&cp, &values).await?;
    let told = uninstall(&cp, "gate").await?;
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        ensure!(told.contains(&format!("removed {kind} acme.taskgate")), "{told}");
    }
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let left = cp.kubectl(["get", kinds, "-oname"]).await?.stdout_ok()?;
    ensure!(left.is_empty(), "{left}");
    helm_uninstall(&cp, "gate").await?;
    is_gone(&cp, &ns, "gate").await
}

#[tokio::test]
async fn the_command_and_then_kubectl_delete() -> anyhow::Result<()> {
    let cp = plane().await?;
    let (_running, ns) = installed_by_kustomize(&cp).await?;
    let would = command(&cp, SYSTEM)?.arg("--dry-run").output().await?;
    let would = (would.status.success(), String::from_utf8(would.stdout)?);
    for told in [
        "removed Deployment taskgate (dry run)",
        "removed Namespace taskgate-system (dry run)",
        "removed the finalizer of ",
    ] {
        ensure!(would.0 && would.1.contains(told), "{told}: {would:?}");
    }
    cp.kubectl(["get", "-n", SYSTEM, "deployment/taskgate"])
        .await?
        .stdout_ok()?;
    ensure!(has_finalizer(&ns, "running").await?, "its finalizer was removed");
    uninstall(&cp, SYSTEM).await?;
    delete_k(&cp).await?;
    is_gone(&cp, &ns, SYSTEM).await
}

/// `kubectl delete` does not remove the finalizers: the command finds what is left, without taskgate's own kinds and roles.
#[tokio::test]
async fn kubectl_delete_and_then_the_command() -> anyhow::Result<()> {
    let cp = plane().await?;
    let (running, ns) = installed_by_kustomize(&cp).await?;
    // A replica that is quick enough removes finalizers when the policies are deleted: here none runs.
    for process in running.processes() {
        process.kill().await?;
    }
    delete_k(&cp).await?;
    ensure!(has_finalizer(&ns, "running").await?, "this test proves nothing");
    uninstall(&cp, SYSTEM).await?;
    is_gone(&cp, &ns, SYSTEM).await
}

/// Killed again and again, a little later each time, until it gets through.
#[tokio::test]
async fn an_uninstall_that_is_interrupted_is_finished_by_the_next() -> anyhow::Result<()> {
    let cp = plane().await?;
    let (_running, ns) = installed_by_helm(&cp, &[]).await?;
    let mut interrupted = 0;
    for patience in (1..).map(|round: u64| Duration::from_millis(60 * round * round)) {
        let mut child = command(&cp, "gate")?.stdout(Stdio::null()).spawn()?;
        if let Ok(ended) = timeout(patience, child.wait()).await {
            ensure!(ended?.success());
            break;
        }
        child.kill().await?;
        interrupted += 1;
    }
    ensure!(interrupted >= 3, "it was interrupted only {interrupted} times");
    helm_uninstall(&cp, "gate").await?;
    is_gone(&cp, &ns, "gate").await
}

/// In a Kelos whose Tasks may be changed, the TTL goes back to where it came from.
#[tokio::test]
async fn where_the_spec_may_change_the_ttl_goes_back_into_it() -> anyhow::Result<()> {
    let changeable = CRDS.replace("self == oldSelf", "'true'");
    ensure!(changeable != CRDS);
    let cp = ControlPlane::builder()
        .crds(changeable)
        .crossing(crossing())
        .start()
        .await?;
    let (_running, ns) = installed_by_helm(&cp, &[]).await?;
    ensure!(
        ns.stored("task.kelos.dev", "running").await?.unwrap_or_default()["spec"]["ttlSecondsAfterFinished"].is_null()
    );
    let told = helm_uninstall(&cp, "gate").await?;
    ensure!(!told.contains("no controller enforces"), "{told}");
    let running = ns.stored("task.kelos.dev", "running").await?.unwrap_or_default();
    ensure!(running["spec"]["ttlSecondsAfterFinished"] == 3600, "{running}");
    ensure!(
        running["metadata"]["annotations"]["taskgate.dev/ttl-seconds-after-finished"].is_null(),
        "{running}"
    );
    is_gone(&cp, &ns, "gate").await
}
