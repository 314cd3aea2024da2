//! Bad certificates in a Secret that somebody else provides: the last good one is served until it expires, and both /readyz and a
//! metric tell.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use taskgate_certs::{Lifetimes, San, SecretData, issue_all, issue_leaf};
use taskgate_e2e::{Gate, PATIENCE, eventually};

use crate::world::{CERT_MANAGER, FAIL, answers, plane, probe, put, told, trust};

/// RSA with 1024 bits, made for this test.
const WEAK_CRT: &[u8] = include_bytes!("rsa1024.crt");
const WEAK_KEY: &[u8] = include_bytes!("rsa1024.key");

fn names() -> anyhow::Result<Vec<San>> {
    Ok(vec!["taskgate.taskgate-system.svc".parse()?, "127.0.0.1".parse()?])
}

fn leaf_of(data: &SecretData, names: &[San], now: Timestamp) -> anyhow::Result<SecretData> {
    Ok(issue_leaf(data, names, Lifetimes::default(), now)?)
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
    answers(&ns).await?;

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
                told(&gate, "the last good one is served until", true).await?;
                told(&gate, words, true).await
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
    told(&gate, "certificate ok", false).await
}

#[tokio::test]
async fn the_last_good_one_is_served_until_it_expires_and_then_nobody_is_ready() -> anyhow::Result<()> {
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
    told(&gate, "ok, but the last good one is served until", true).await?;
    told(
        &gate,
        "[-]certificate failed: the certificate or its authority has expired",
        true,
    )
    .await?;
    put(&cp, &leaf_of(&good, &names, Timestamp::now())?).await?;
    told(&gate, "certificate ok", false).await
}
