//! Words that the scenarios share.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_certs::SecretData;
use taskgate_e2e::{CertManager, ControlPlane, GATE_NAMESPACE, Gate, Namespace, PATIENCE, eventually};

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

/// The flag that asks cert-manager's injector for the bundle.
pub(crate) fn injected() -> String {
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

/// Puts `data` into the Secret, whatever is there.
pub(crate) async fn put(cp: &ControlPlane, data: &SecretData) -> anyhow::Result<()> {
    let entries = [
        ("tls.crt", &data.tls_crt),
        ("tls.key", &data.tls_key),
        ("ca.crt", &data.ca_crt),
    ];
    let entries: BTreeMap<_, _> = entries
        .into_iter()
        .filter_map(|(key, bytes)| Some((key, ByteString(bytes.clone()?))))
        .collect();
    let patch = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": GATE_NAMESPACE},
        "type": "Opaque",
        "data": entries,
    });
    let params = PatchParams::apply("operator").force();
    secrets(cp).patch(SECRET, &params, &Patch::Apply(patch)).await?;
    Ok(())
}

/// Tells the API server to trust `ca` and nobody else, as a user with certificates of their own does.
pub(crate) async fn trust(cp: &ControlPlane, ca: &[u8]) -> anyhow::Result<()> {
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let plural = format!("{}s", kind.to_lowercase());
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind),
            &plural,
        );
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

/// A trial create, which the API server refuses when taskgate does not answer it; the Task as it would be stored.
pub(crate) async fn probe(ns: &Namespace) -> anyhow::Result<Task> {
    let task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "probe"},
        "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
    });
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Ok(ns.api().create(&params, &serde_json::from_value(task)?).await?)
}

/// Waits until a probe succeeds: a new configuration takes a moment.
pub(crate) async fn answers(ns: &Namespace) -> anyhow::Result<()> {
    eventually("admission works", PATIENCE, || probe(ns)).await.map(drop)
}

pub(crate) async fn mutating(cp: &ControlPlane) -> anyhow::Result<MutatingWebhookConfiguration> {
    Ok(Api::all(cp.client()).get(CONFIGURATION).await?)
}

/// Who owns the bundle of the mutating configuration, as the API server tells it.
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

/// Waits until the certificate check says `words`, and the metric says whether something is wrong.
pub(crate) async fn told(gate: &Gate, words: &str, failing: bool) -> anyhow::Result<()> {
    eventually(format!("/readyz and /metrics tell: {words}"), PATIENCE, || async {
        let line = readyz(gate, "certificate").await?;
        ensure!(line.contains(words), "{line}");
        let metric = gate.metrics().await?.sum("taskgate_certificate_renewal_failing");
        ensure!((metric > 0.0) == failing, "the metric says {metric}");
        Ok(())
    })
    .await
}
