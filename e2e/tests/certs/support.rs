//! What this suite adds to the fixtures: certificates, their Secret, and what is served.

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{CertManager, ControlPlane, GATE_NAMESPACE, Gate, Namespace, PATIENCE, eventually, resource, task};

pub(crate) const CONFIGURATION: &str = "admission.taskgate.dev";
pub(crate) const CERTIFICATE: &str = "taskgate-tls";
pub(crate) const SECRET: &str = "taskgate-tls";
pub(crate) const FAIL: &str = "--failure-policy=fail";
pub(crate) const CERT_MANAGER: &str = "--cert-mode=cert-manager";

/// A control plane with Kelos' kinds and taskgate's namespace.
pub(crate) async fn plane() -> anyhow::Result<ControlPlane> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATE_NAMESPACE}});
    cp.apply_yaml(&namespace.to_string()).await?;
    Ok(cp)
}

/// The flag that lets cert-manager's injector write the bundle.
pub(crate) fn inject_flag() -> String {
    format!("--inject-ca-from={GATE_NAMESPACE}/{CERTIFICATE}")
}

/// cert-manager with a Certificate for taskgate.
pub(crate) async fn cert_manager(cp: &ControlPlane) -> anyhow::Result<CertManager> {
    let cert_manager = CertManager::start(cp).await?;
    cp.apply_yaml(&CertManager::certificate()?).await?;
    Ok(cert_manager)
}

pub(crate) fn secrets(cp: &ControlPlane) -> Api<Secret> {
    Api::namespaced(cp.client(), GATE_NAMESPACE)
}

/// An entry of a Secret.
pub(crate) fn entry(secret: &Secret, key: &str) -> anyhow::Result<Vec<u8>> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    Ok(data.with_context(|| format!("no {key}"))?.0.clone())
}

/// Lets the API server trust `ca` alone, as a user with certificates of their own does.
pub(crate) async fn trust(cp: &ControlPlane, ca: &[u8]) -> anyhow::Result<()> {
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let kind = resource("admissionregistration.k8s.io/v1", kind);
        let api = Api::<DynamicObject>::all_with(cp.client(), &kind);
        let found = api.get(CONFIGURATION).await?;
        let webhooks = found.data["webhooks"].as_array().context("webhooks")?.iter();
        let patches: Vec<Value> = webhooks
            .enumerate()
            .map(|(index, _)| {
                json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"),
                    "value": ByteString(ca.to_vec())})
            })
            .collect();
        let patch = serde_json::from_value(Value::Array(patches))?;
        api.patch(CONFIGURATION, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await?;
    }
    Ok(())
}

/// A dry run, which the API server refuses when taskgate does not answer; the Task as it would be stored.
pub(crate) async fn probe(ns: &Namespace) -> anyhow::Result<Task> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Ok(ns
        .tasks()
        .create(&params, &serde_json::from_value(task("probe"))?)
        .await?)
}

/// Waits until a probe succeeds: a new configuration takes effect a moment later.
pub(crate) async fn await_answer(ns: &Namespace) -> anyhow::Result<()> {
    eventually("admission works", PATIENCE, || probe(ns)).await.map(drop)
}

pub(crate) async fn mutating(cp: &ControlPlane) -> anyhow::Result<MutatingWebhookConfiguration> {
    Ok(Api::all(cp.client()).get(CONFIGURATION).await?)
}

/// The field managers of the mutating configuration's bundle.
pub(crate) async fn owners_of_the_bundle(cp: &ControlPlane) -> anyhow::Result<Vec<String>> {
    let fields = mutating(cp).await?.metadata.managed_fields.unwrap_or_default();
    let owns = |fields: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1>| {
        fields
            .as_ref()
            .is_some_and(|fields| fields.0.to_string().contains("f:caBundle"))
    };
    Ok(fields
        .into_iter()
        .filter(|entry| owns(&entry.fields_v1))
        .filter_map(|entry| entry.manager)
        .collect())
}

/// The line of /readyz about `check`.
pub(crate) async fn readyz(gate: &Gate, check: &str) -> anyhow::Result<String> {
    let text = match gate.admin("/readyz?verbose").await {
        Ok(text) => text,
        Err(error) => format!("{error:#}"),
    };
    let line = text.lines().find(|line| line.contains(&format!("]{check} ")));
    line.map(ToOwned::to_owned).with_context(|| text.clone())
}

/// Waits until the certificate check of /readyz contains `words`, and the metric is as `failing`.
pub(crate) async fn await_certificate_check(gate: &Gate, words: &str, failing: bool) -> anyhow::Result<()> {
    eventually(format!("/readyz and /metrics: {words}"), PATIENCE, || async {
        let line = readyz(gate, "certificate").await?;
        ensure!(line.contains(words), "{line}");
        let metric = gate.metrics().await?.sum("taskgate_certificate_renewal_failing");
        ensure!((metric > 0.0) == failing, "the metric is {metric}");
        Ok(())
    })
    .await
}
