//! From one mode to the other in a running cluster, under load and fail-closed, as in docs/certificates.md: no call is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use kube::api::DeleteParams;
use taskgate_e2e::{Balancer, ControlPlane, Gate, PATIENCE, eventually, register};

use crate::support::{
    CERT_MANAGER, FAIL, SECRET, await_answer, cert_manager, entry, inject_flag, mutating, owners_of_the_bundle, plane,
    probe, secrets,
};

/// A replica behind the balancer, which is ready when this returns.
async fn replica(
    cp: &ControlPlane,
    balancer: &Balancer,
    name: &str,
    flags: &[&str],
    more: &[&str],
) -> anyhow::Result<Gate> {
    let mut gate = Gate::builder()
        .named(name)
        .registered_at(balancer.url())
        .registration_flag(FAIL)
        .serve_flag("--lame-duck=3s")
        .grace(Duration::from_secs(15));
    for flag in flags {
        gate = gate.serve_flag(*flag);
    }
    for flag in more {
        gate = gate.registration_flag(*flag);
    }
    let gate = gate.start(cp).await?;
    let ready = balancer.ready();
    balancer.add(&gate);
    eventually("it is known to be ready", PATIENCE, || async {
        ensure!(balancer.ready() > ready, "{}", balancer.ready());
        Ok(())
    })
    .await?;
    Ok(gate)
}

async fn end(balancer: &Balancer, gate: Gate) -> anyhow::Result<()> {
    gate.process().terminate().await?;
    balancer.remove(&gate);
    Ok(())
}

/// Waits until the load has sent some more calls.
async fn more(sent: &AtomicUsize) -> anyhow::Result<()> {
    let before = sent.load(Ordering::Relaxed);
    eventually("the load goes on", PATIENCE, || async {
        let calls = sent.load(Ordering::Relaxed) - before;
        ensure!(calls >= 50, "{calls} calls");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn to_cert_manager_and_back_loses_no_call() -> anyhow::Result<()> {
    let cp = plane().await?;
    let balancer = Balancer::start().await?;
    let old = [
        replica(&cp, &balancer, "own-a", &[], &[]).await?,
        replica(&cp, &balancer, "own-b", &[], &[]).await?,
    ];
    let ns = cp.namespace("switching").await?;
    await_answer(&ns).await?;
    let (done, sent, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let load = async {
        while !done.load(Ordering::Relaxed) {
            sent.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = probe(&ns).await {
                eprintln!("lost: {error:#}");
                lost.fetch_add(1, Ordering::Relaxed);
            }
            // Paces the load.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let switching = async {
        let result = there_and_back(&cp, &balancer, old, &sent).await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let ((), ()) = tokio::try_join!(load, switching)?;
    let (sent, lost) = (sent.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    eprintln!("{sent} creates, {lost} lost");
    ensure!(sent > 100 && lost == 0, "{lost} of {sent} creates were lost");
    Ok(())
}

async fn there_and_back(
    cp: &ControlPlane,
    balancer: &Balancer,
    old: [Gate; 2],
    sent: &AtomicUsize,
) -> anyhow::Result<()> {
    let _cert_manager = cert_manager(cp).await?;
    let api = secrets(cp);
    let issued = eventually("the certificate is issued", PATIENCE, || async {
        let secret = api.get(SECRET).await?;
        entry(&secret, "tls.crt")?;
        entry(&secret, "ca.crt")
    })
    .await?;

    // There: the annotation first, so that both authorities are trusted; then the replicas.
    register(cp, balancer.url(), &[FAIL.to_owned(), inject_flag()]).await?;
    eventually("both authorities are trusted", PATIENCE, || async {
        let found = mutating(cp).await?;
        for webhook in found.webhooks.iter().flatten() {
            let bundle = webhook.client_config.ca_bundle.clone().unwrap_or_default().0;
            let count = String::from_utf8_lossy(&bundle).matches("BEGIN CERTIFICATE").count();
            let has = bundle.windows(issued.len()).any(|window| window == issued);
            ensure!(has && count == 2, "{count} in it, cert-manager's: {has}");
        }
        Ok(())
    })
    .await?;
    let mut managed = Vec::new();
    for (index, gate) in old.into_iter().enumerate() {
        let name = format!("managed-{index}");
        managed.push(replica(cp, balancer, &name, &[CERT_MANAGER], &[&inject_flag()]).await?);
        end(balancer, gate).await?;
    }
    more(sent).await?;

    // And back: the annotation is removed, the bundle stays; then the replicas, which add a new authority of their own, as the
    // Secret of the old one is deleted.
    api.delete("taskgate-serving-cert", &DeleteParams::default()).await?;
    register(cp, balancer.url(), &[FAIL.to_owned()]).await?;
    let mut own = Vec::new();
    for (index, gate) in managed.into_iter().enumerate() {
        own.push(replica(cp, balancer, &format!("again-{index}"), &[], &[]).await?);
        end(balancer, gate).await?;
    }
    more(sent).await?;
    let owners = owners_of_the_bundle(cp).await?;
    ensure!(owners.iter().any(|owner| owner == "taskgate-ca"), "{owners:?}");
    Ok(())
}
