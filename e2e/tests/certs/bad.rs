//! Bad certificates in a Secret that taskgate does not write: the last good one is served until it expires, and both /readyz and
//! a metric report it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use taskgate_certs::{Lifetimes, San, SecretData, issue_all, issue_leaf};
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, PATIENCE, eventually};

use crate::support::{CERT_MANAGER, FAIL, SECRET, await_answer, await_certificate_check, plane, probe, secrets, trust};

/// RSA with 1024 bits, made for this test.
const WEAK_CRT: &[u8] = include_bytes!("rsa1024.crt");
const WEAK_KEY: &[u8] = include_bytes!("rsa1024.key");

fn names() -> anyhow::Result<Vec<San>> {
    Ok(vec!["taskgate.taskgate-system.svc".parse()?, "127.0.0.1".parse()?])
}

fn leaf_of(data: &SecretData, names: &[San], now: Timestamp) -> anyhow::Result<SecretData> {
    Ok(issue_leaf(data, names, Lifetimes::default(), now)?)
}

/// Replaces the content of the Secret with `data`.
async fn put(cp: &ControlPlane, data: &SecretData) -> anyhow::Result<()> {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_one_is_named_and_none_is_served() -> anyhow::Result<()> {
    let (names, now) = (names()?, Timestamp::now());
    let good = issue_all(&names, Lifetimes::default(), now)?;
    let cp = plane().await?;
    put(&cp, &good).await?;
    let gate = Gate::builder()
        .registration_flag(FAIL)
        .serve_flag(CERT_MANAGER)
        .start(&cp);
    let trusting = eventually("the configurations are there", PATIENCE, || {
        trust(&cp, good.ca_crt.as_deref().unwrap_or_default())
    });
    let (gate, ()) = tokio::try_join!(gate, trusting)?;
    let ns = cp.namespace("bad").await?;
    await_answer(&ns).await?;

    let other = issue_all(&names, Lifetimes::default(), now)?;
    let year = SignedDuration::from_hours(365 * 24);
    let with = |change: &dyn Fn(&mut SecretData)| {
        let mut data = good.clone();
        change(&mut data);
        data
    };
    let garbage = || Some(b"garbage\xff".to_vec());
    let table = [
        (with(&|data| data.tls_crt = garbage()), "tls.crt does not parse"),
        (with(&|data| data.tls_key = garbage()), "tls.key does not parse"),
        (with(&|data| data.ca_crt = garbage()), "ca.crt does not parse"),
        (with(&|data| data.ca_crt = None), "ca.crt is missing"),
        (with(&|data| data.tls_crt = None), "tls.crt is missing"),
        (
            with(&|data| data.tls_key.clone_from(&other.tls_key)),
            "tls.key is not the key of tls.crt",
        ),
        (
            with(&|data| data.ca_crt.clone_from(&other.ca_crt)),
            "not signed by the authority",
        ),
        (
            leaf_of(&good, &names, now - year)?,
            "the serving certificate has expired",
        ),
        (
            leaf_of(&good, &names, now + year)?,
            "the serving certificate is not valid yet",
        ),
        (leaf_of(&good, &["elsewhere.example".parse()?], now)?, "lacks a name"),
        (
            issue_all(&names, Lifetimes::default(), now - 11 * year)?,
            "the authority has expired",
        ),
        (
            with(&|data| {
                data.tls_crt = Some(WEAK_CRT.to_vec());
                data.tls_key = Some(WEAK_KEY.to_vec());
            }),
            "RSA key of less than 2048 bits",
        ),
    ];
    let done = AtomicBool::new(false);
    let lost = AtomicUsize::new(0);
    let load = async {
        while !done.load(Ordering::Relaxed) {
            lost.fetch_add(usize::from(probe(&ns).await.is_err()), Ordering::Relaxed);
            // Paces the load.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let swapping = async {
        let mut result = Ok(());
        for (data, words) in &table {
            result = async {
                put(&cp, data).await?;
                await_certificate_check(&gate, "the last good one is served until", true).await?;
                await_certificate_check(&gate, words, true).await
            }
            .await;
            if result.is_err() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        result
    };
    tokio::try_join!(load, swapping)?;
    ensure!(
        lost.load(Ordering::Relaxed) == 0,
        "{} calls failed",
        lost.load(Ordering::Relaxed)
    );
    put(&cp, &good).await?;
    await_certificate_check(&gate, "certificate ok", false).await
}

#[tokio::test]
async fn the_last_good_one_is_served_until_it_expires_and_then_no_replica_is_ready() -> anyhow::Result<()> {
    let names = names()?;
    let good = issue_all(&names, Lifetimes::default(), Timestamp::now())?;
    let cp = plane().await?;
    put(&cp, &good).await?;
    let gate = Gate::builder()
        .registration_flag(FAIL)
        .serve_flag(CERT_MANAGER)
        .start(&cp);
    let trusting = eventually("the configurations are there", PATIENCE, || {
        trust(&cp, good.ca_crt.as_deref().unwrap_or_default())
    });
    let (gate, ()) = tokio::try_join!(gate, trusting)?;
    let short = Lifetimes {
        leaf: SignedDuration::from_secs(20),
        ..Lifetimes::default()
    };
    put(&cp, &issue_leaf(&good, &names, short, Timestamp::now())?).await?;
    eventually("the short-lived one is served", PATIENCE, || async {
        let metrics = gate.metrics().await?;
        let left = metrics.value("taskgate_certificate_seconds_left", &[("certificate", "leaf")]);
        ensure!(left.is_some_and(|left| left < 60.0), "{left:?}");
        Ok(())
    })
    .await?;
    let mut garbage = good.clone();
    garbage.tls_crt = Some(Vec::new());
    put(&cp, &garbage).await?;
    await_certificate_check(&gate, "ok, but the last good one is served until", true).await?;
    await_certificate_check(
        &gate,
        "[-]certificate failed: the certificate or its authority has expired",
        true,
    )
    .await?;
    put(&cp, &leaf_of(&good, &names, Timestamp::now())?).await?;
    await_certificate_check(&gate, "certificate ok", false).await
}
