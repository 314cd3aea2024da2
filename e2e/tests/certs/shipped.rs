//! The shipped manifests for cert-manager, rendered by kustomize and by Helm, called through the Service, with certificates from
//! the real cert-manager.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        core::v1::Secret,
    },
};
use kelos_standin::CRDS;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use taskgate_e2e::{CertManager, ControlPlane, Crossing, GATE_NAMESPACE, PATIENCE, Pods, eventually};

use crate::support::{CONFIGURATION, entry, owners_of_the_bundle, probe};

static CROSSING: LazyLock<Crossing> = LazyLock::new(|| Crossing::start().expect("loopback can be listened on"));

/// A path below `manifests/`.
fn manifests(path: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    folder.join(path).display().to_string()
}

/// A control plane whose API server reaches Services, with Kelos' kinds and cert-manager.
async fn plane() -> anyhow::Result<(ControlPlane, CertManager)> {
    let cp = ControlPlane::builder().crds(CRDS).crossing(&CROSSING).start().await?;
    let cert_manager = CertManager::start(&cp).await?;
    Ok((cp, cert_manager))
}

#[tokio::test]
async fn the_overlay_is_served_from_what_cert_manager_issues() -> anyhow::Result<()> {
    let (cp, _cert_manager) = plane().await?;
    let overlay = manifests("overlays/cert-manager");
    let applied = cp.kubectl(["apply", "--server-side", "-k", &overlay]).await?;
    applied.stdout_ok()?;
    is_served(&cp, GATE_NAMESPACE, "taskgate").await
}

/// With another name and namespace than the chart's defaults.
#[tokio::test]
async fn the_chart_is_served_from_what_cert_manager_issues() -> anyhow::Result<()> {
    let (cp, _cert_manager) = plane().await?;
    let chart = manifests("chart");
    let place = ["--namespace", "gate", "--create-namespace"];
    let values = [
        "--set",
        "certificates.mode=cert-manager,registration.failurePolicy=Fail",
    ];
    let args = ["install", "blue", &chart];
    cp.helm(args.iter().chain(&place).chain(&values)).await?.stdout_ok()?;
    is_served(&cp, "gate", "taskgate-blue").await
}

/// The Deployment `name` becomes ready by what cert-manager provides, and nothing else; the API server trusts it.
async fn is_served(cp: &ControlPlane, namespace: &str, name: &str) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cp.client(), namespace);
    let certificate = format!("{name}-tls");
    let issued = eventually("the certificate is issued", PATIENCE, || async {
        let secret = secrets.get(&certificate).await?;
        entry(&secret, "tls.crt")?;
        Ok(secret)
    })
    .await?;
    let by = issued.annotations().get("cert-manager.io/certificate-name");
    ensure!(by == Some(&certificate), "{by:?}");
    let running = Pods::start(cp, &CROSSING, namespace, name).await?;
    ensure!(running.processes().len() == 2);

    let authority = entry(&issued, "ca.crt")?;
    for client in clients(cp).await? {
        let bundle = client.ca_bundle.map(|ByteString(pem)| pem).unwrap_or_default();
        let trusts = bundle.windows(authority.len()).any(|window| window == authority);
        ensure!(trusts, "{:?} does not trust the authority", client.service);
    }
    let owners = owners_of_the_bundle(cp).await?;
    ensure!(
        !owners.is_empty() && owners.iter().all(|owner| owner.contains("cainjector")),
        "{owners:?}"
    );

    let ns = cp.namespace("shipped").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
        "spec": {"metadata": {"labels": {"team": "blue"}}},
    });
    ns.apply_yaml(&policy.to_string()).await?;
    eventually("Tasks are governed", PATIENCE, || async {
        let made = probe(&ns).await?;
        ensure!(made.labels().contains_key("team"), "{:?}", made.metadata);
        Ok(())
    })
    .await?;
    eventually("no right is missing", PATIENCE, || async {
        let missing = running.metrics().await?.value("taskgate_rights_missing", &[]);
        ensure!(missing == Some(0.0), "{missing:?}");
        Ok(())
    })
    .await?;
    // The authority of its own that the other mode makes is not there.
    let own = format!("{name}-serving-cert");
    let made = secrets.get_opt(&own).await?.and_then(|secret| secret.data);
    ensure!(made.is_none(), "{own} holds certificates");
    Ok(())
}

/// The client configurations of all webhooks: address and bundle.
async fn clients(cp: &ControlPlane) -> anyhow::Result<Vec<WebhookClientConfig>> {
    let mutating: MutatingWebhookConfiguration = Api::all(cp.client()).get(CONFIGURATION).await?;
    let validating: ValidatingWebhookConfiguration = Api::all(cp.client()).get(CONFIGURATION).await?;
    let mutating = mutating
        .webhooks
        .context("webhooks")?
        .into_iter()
        .map(|webhook| webhook.client_config);
    let validating = validating
        .webhooks
        .context("webhooks")?
        .into_iter()
        .map(|webhook| webhook.client_config);
    Ok(mutating.chain(validating).collect())
}
