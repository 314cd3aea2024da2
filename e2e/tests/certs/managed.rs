//! The real cert-manager issues, renews and injects; taskgate serves, and writes none of it.

use anyhow::{Context as _, ensure};
use kube::api::DeleteParams;
use taskgate_e2e::{GATE_NAMESPACE, Gate, PATIENCE, await_object, eventually};

use crate::support::{
    CERT_MANAGER, FAIL, SECRET, await_answer, cert_manager, entry, inject_flag, owners_of_the_bundle, plane, probe,
    secrets,
};

#[tokio::test]
async fn cert_manager_provides_everything_and_taskgate_writes_nothing() -> anyhow::Result<()> {
    let cp = plane().await?;
    let mark = cp.audit().mark()?;
    // taskgate first, and what it needs later.
    let gate = Gate::builder()
        .registration_flag(FAIL)
        .registration_flag(inject_flag())
        .serve_flag(CERT_MANAGER);
    let (gate, cert_manager) = tokio::try_join!(gate.start(&cp), cert_manager(&cp))?;
    let ns = cp.namespace("managed").await?;
    await_answer(&ns).await?;

    // A deleted leaf is issued anew, with a new key, and served without a restart. No call is lost meanwhile.
    let api = secrets(&cp);
    let before = entry(&api.get(SECRET).await?, "tls.crt")?;
    api.delete(SECRET, &DeleteParams::default()).await?;
    let after = await_object(&api, SECRET, "holds another leaf", |secret| {
        entry(secret, "tls.crt").is_ok_and(|leaf| leaf != before)
    })
    .await?;
    eventually("the new leaf is served", PATIENCE, || async {
        probe(&ns).await?;
        let served = gate.process().log()?.matches("serving a new certificate").count();
        ensure!(served >= 2, "served {served} certificates");
        Ok(())
    })
    .await?;
    ensure!(
        entry(&after, "tls.key")?.starts_with(b"-----BEGIN EC PRIVATE KEY-----"),
        "no ECDSA key"
    );

    // The bundle belongs to the injector alone, and taskgate wrote neither it nor the Secret.
    let owners = owners_of_the_bundle(&cp).await?;
    ensure!(
        !owners.is_empty() && owners.iter().all(|owner| owner.contains("cainjector")),
        "{owners:?}"
    );
    let events = cp.audit().since(mark).await?;
    let ours: Vec<_> = events
        .iter()
        .filter(|event| event.is_write() && event.user_agent.starts_with("taskgate/"))
        .filter(|event| {
            let resource = event.object_ref.resource.as_str();
            resource == "secrets" || resource.ends_with("webhookconfigurations")
        })
        .map(|event| format!("{} {}", event.verb, event.request_uri))
        .collect();
    ensure!(ours.is_empty(), "{ours:?}");

    // Without cert-manager everything goes on.
    cert_manager.process().kill().await?;
    gate.process().restart().await?;
    probe(&ns).await.context("cert-manager does not run")?;
    let log = gate.process().log()?;
    ensure!(
        !log.contains("PRIVATE KEY") && log.contains(GATE_NAMESPACE),
        "no key is ever logged"
    );
    Ok(())
}
