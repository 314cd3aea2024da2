//! `kubectl apply -k`.

use std::time::Duration;

use anyhow::ensure;
use taskgate_e2e::{ControlPlane, PATIENCE, eventually, never};

use crate::support::{SYSTEM, apply_overlay, governed, plane, pods, project};

/// Renders an overlay.
async fn rendered(cp: &ControlPlane, name: &str) -> anyhow::Result<String> {
    let overlay = project("manifests/overlays").join(name).display().to_string();
    cp.kubectl(["kustomize", &overlay]).await?.stdout_ok()
}

/// The pods exist although the namespace enforces restricted Pod Security, their Service is called by its name, and RBAC lets
/// them do all of it.
#[tokio::test]
async fn the_base_governs_under_its_own_roles_and_a_second_apply_changes_nothing() -> anyhow::Result<()> {
    let cp = plane().await?;
    apply_overlay(&cp, "self-signed").await?;
    let running = pods(&cp, SYSTEM, "taskgate").await?;
    ensure!(running.processes().len() == 2);
    governed(&cp, "team").await?;
    eventually("no right is missing", PATIENCE, || async {
        let missing = running.metrics().await?.value("taskgate_rights_missing", &[]);
        ensure!(missing == Some(0.0), "{missing:?}");
        Ok(())
    })
    .await?;
    let versions = async || {
        let kinds = "deployments,services,secrets,leases,clusterroles,mutatingwebhookconfigurations,validatingwebhookconfigurations";
        let columns = "-ocustom-columns=N:.metadata.name,G:.metadata.generation,U:.metadata.uid";
        cp.kubectl(["get", kinds, "-A", "-lapp.kubernetes.io/part-of=taskgate", columns])
            .await?
            .stdout_ok()
    };
    let before = versions().await?;
    let mark = cp.audit().mark()?;
    apply_overlay(&cp, "self-signed").await?;
    apply_overlay(&cp, "self-signed").await?;
    ensure!(versions().await? == before);
    // Nor does taskgate set right what was applied: there is nothing to fight over.
    never(
        "taskgate writes to the registration",
        Duration::from_secs(3),
        || async {
            let events = cp.audit().since(mark).await?;
            Ok(events.into_iter().find(|event| {
                let is_taskgate = event.user_agent.starts_with("taskgate/");
                is_taskgate && event.is_write() && event.object_ref.resource.contains("webhook")
            }))
        },
    )
    .await?;
    governed(&cp, "still").await.map(drop)
}

#[tokio::test]
async fn every_overlay_is_rendered_alike_twice_and_taken_by_the_api_server() -> anyhow::Result<()> {
    let cp = plane().await?;
    for overlay in std::fs::read_dir(project("manifests/overlays"))? {
        let name = overlay?.file_name().to_string_lossy().into_owned();
        let first = rendered(&cp, &name).await?;
        ensure!(first == rendered(&cp, &name).await?, "{name} differs from itself");
        if name == "cert-manager" {
            // Its kinds are not here.
            continue;
        }
        cp.apply_yaml(&first).await?;
        let policy = "-ojsonpath={.webhooks[?(@.name=='mutate.tasks.taskgate.dev')].failurePolicy}";
        let told = cp
            .kubectl(["get", "mutatingwebhookconfiguration", "admission.taskgate.dev", policy])
            .await?
            .stdout_ok()?;
        let wanted = if name == "fail-closed" { "Fail" } else { "Ignore" };
        ensure!(told == wanted, "{name}: {told}");
    }
    Ok(())
}

/// Each component takes the rights of one feature away, and together they leave the rest as it is.
#[tokio::test]
async fn without_features_there_are_no_roles_for_them() -> anyhow::Result<()> {
    let cp = plane().await?;
    let rendered = rendered(&cp, "minimal").await?;
    for feature in ["kueue", "foreman", "task-retry"] {
        ensure!(
            !rendered.contains(&format!("name: taskgate-{feature}\n")),
            "{feature} has a role"
        );
        ensure!(
            rendered.contains(&format!("- --no-{feature}\n")),
            "{feature} is enabled"
        );
    }
    ensure!(
        rendered.contains("name: taskgate-tasks\n"),
        "the admission policies are gone"
    );
    Ok(())
}
