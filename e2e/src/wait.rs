//! Waiting, with a deadline, and with the last observation when it failed.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long to wait for what should take a second or two, on a machine that has more to do.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Between two probes.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `probe` until it succeeds, and returns what it found.
///
/// An error of the probe means "not yet": let it contain what was seen.
///
/// ```no_run
/// # use taskgate_e2e::{Namespace, eventually, PATIENCE};
/// # use k8s_openapi::api::core::v1::Pod;
/// # async fn f(ns: Namespace) -> anyhow::Result<()> {
/// let pods = ns.api::<Pod>();
/// let pod = eventually("the Job has its pod", PATIENCE, || async {
///     let mut found = pods.list(&Default::default()).await?.items;
///     anyhow::ensure!(found.len() == 1, "{} pods", found.len());
///     Ok(found.remove(0))
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// After `deadline`: what was awaited, how long, and the probe's last error.
pub async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    let mut last = anyhow!("nothing, not a single probe was finished");
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(not_yet)) => last = not_yet,
            Err(_) => {}
        }
        if began.elapsed() >= deadline {
            let elapsed = began.elapsed().as_secs_f32();
            bail!("waited {elapsed:.1} s in vain: {what}\nlast seen: {last:#}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Calls `probe` until its result meets `condition`, and returns that.
///
/// # Errors
/// As [`eventually`], with the last value.
pub async fn eventually_that<T: Debug>(
    what: impl Display,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<T>,
    condition: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    eventually(what, deadline, async || {
        let seen = probe().await?;
        if condition(&seen) {
            Ok(seen)
        } else {
            Err(anyhow!("{seen:#?}"))
        }
    })
    .await
}

/// Waits up to [`PATIENCE`] until the object exists and meets `condition`; returns it.
///
/// # Errors
/// With the object as it was last seen, as YAML.
pub async fn await_object<K>(
    api: &Api<K>,
    name: &str,
    what: impl Display,
    condition: impl Fn(&K) -> bool,
) -> anyhow::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let path = format!("{}/{name}", api.resource_url());
    eventually(format!("{path}: {what}"), PATIENCE, async || {
        let seen = api.get(name).await?;
        if condition(&seen) {
            Ok(seen)
        } else {
            Err(anyhow!("\n{}", yaml(&seen)?))
        }
    })
    .await
}

/// Waits up to [`PATIENCE`] until the object does not exist.
///
/// # Errors
/// With the object as it was last seen, as YAML.
pub async fn await_gone<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let path = format!("{}/{name}", api.resource_url());
    eventually(format!("{path}: gone"), PATIENCE, async || {
        match api.get_opt(name).await? {
            None => Ok(()),
            Some(seen) => Err(anyhow!("\n{}", yaml(&seen)?)),
        }
    })
    .await
}

/// Calls `probe` for the whole of `duration`, and a last time at its end; a value that it returns is
/// evidence that `what` happened.
///
/// # Errors
/// With the evidence; or if a probe fails, as that proves nothing.
pub async fn never<T: Debug>(
    what: impl Display,
    duration: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let last_probe = began.elapsed() >= duration;
        let evidence = probe().await.with_context(|| format!("probing whether: {what}"))?;
        if let Some(evidence) = evidence {
            let elapsed = began.elapsed().as_secs_f32();
            bail!("must not happen, and did after {elapsed:.1} s: {what}\nseen: {evidence:#?}");
        }
        if last_probe {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn yaml<T: Serialize>(object: &T) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(object)?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::ensure;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn an_error_contains_what_was_seen_last() {
        let probes = Cell::new(0);
        let probe = async || {
            probes.set(probes.get() + 1);
            ensure!(probes.get() < 0, "probe {}", probes.get());
            Ok(())
        };
        let error = eventually("a miracle", SHORT, probe)
            .await
            .expect_err("in vain")
            .to_string();
        assert!(probes.get() > 1);
        let last = format!("s in vain: a miracle\nlast seen: probe {}", probes.get());
        assert!(error.ends_with(&last), "{error}");

        let error = eventually_that("three", SHORT, async || Ok([1, 2]), |seen| seen.len() == 3);
        let error = error.await.expect_err("in vain").to_string();
        assert!(error.ends_with("three\nlast seen: [\n    1,\n    2,\n]"), "{error}");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlast_the_deadline() {
        let began = Instant::now();
        let error = eventually("an answer", SHORT, async || {
            std::future::pending::<()>().await;
            Ok(())
        });
        let error = error.await.expect_err("in vain").to_string();
        assert!(
            error.ends_with("last seen: nothing, not a single probe was finished"),
            "{error}"
        );
        assert!(began.elapsed() < SHORT * 5);
    }

    #[tokio::test]
    async fn never_has_the_evidence_and_fails_with_a_failed_probe() -> anyhow::Result<()> {
        never("rain", SHORT, async || Ok(None::<()>)).await?;
        let probes = Cell::new(0);
        let seen = never("rain", PATIENCE, async || {
            probes.set(probes.get() + 1);
            Ok((probes.get() == 3).then_some("drops"))
        });
        let seen = seen.await.expect_err("it rains").to_string();
        assert!(seen.ends_with("s: rain\nseen: \"drops\""), "{seen}");
        let blind = never("rain", SHORT, async || -> anyhow::Result<Option<()>> {
            Err(anyhow!("fog"))
        });
        let blind = format!("{:#}", blind.await.expect_err("no evidence"));
        assert_eq!(blind, "probing whether: rain: fog");
        Ok(())
    }
}
