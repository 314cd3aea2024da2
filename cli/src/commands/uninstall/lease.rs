//! The Lease of the replicas, which the uninstall holds so that no replica leads meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams};

use crate::cluster::{Connection, api_error, is_conflict, is_not_found};

/// The holder of the Lease meanwhile.
const HOLDER: &str = "taskgate-uninstall";
/// The duration of the Lease. When the uninstall does not continue, a replica leads afterwards.
const DURATION: Duration = Duration::from_mins(2);
/// The age at which the Lease is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// How long a replica may act after it lost the Lease: it reads the Lease every 4 s, and finishes its current request.
const LOSS_NOTICED: Duration = Duration::from_secs(6);

/// Fences the replicas for as long as [`FencingLease::keep()`] is called.
pub(super) struct FencingLease<'a> {
    /// `None`: nothing is fenced.
    lease: Option<(Api<Lease>, &'a str)>,
    renewed: Instant,
    effective: Instant,
}

impl<'a> FencingLease<'a> {
    /// For a dry run, which needs no fencing.
    pub(super) fn none() -> Self {
        let now = Instant::now();
        Self {
            lease: None,
            renewed: now,
            effective: now,
        }
    }

    /// Takes the Lease from the leader. Without a Lease there is no leader.
    pub(super) async fn take(connection: &Connection, name: &'a str) -> Result<Self> {
        let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
        let mut taken = Self {
            lease: Some((leases, name)),
            ..Self::none()
        };
        // An interrupted uninstall may have taken it a moment ago: it counts like a replica.
        taken
            .write(|spec| spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()))
            .await?;
        Ok(taken)
    }

    /// Renews the Lease when it is due. If it expired and a replica took it, it is taken again.
    pub(super) async fn keep(&mut self) -> Result<()> {
        if self.renewed.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        self.renew().await
    }

    /// Renews the Lease now.
    pub(super) async fn renew(&mut self) -> Result<()> {
        self.write(|spec| spec.holder_identity.as_deref() != Some(HOLDER)).await
    }

    /// The time after which no replica writes.
    pub(super) fn effective(&self) -> Instant {
        self.effective
    }

    /// Writes the holder into the Lease. `had_leader` decides from its previous spec whether a leader has yet to notice.
    async fn write(&mut self, had_leader: impl Fn(&LeaseSpec) -> bool) -> Result<()> {
        let Some((leases, name)) = &self.lease else {
            return Ok(());
        };
        loop {
            let found = leases
                .get_opt(name)
                .await
                .map_err(api_error)
                .context("reading the Lease")?;
            // Before the write, so that the Lease is never assumed younger than it is.
            let renewed = Instant::now();
            let Some(mut lease) = found else {
                self.renewed = renewed;
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            let had_leader = had_leader(spec);
            hold(spec, Timestamp::now());
            match leases.replace(name, &PostParams::default(), &lease).await {
                Ok(_) => {
                    self.renewed = renewed;
                    if had_leader {
                        self.effective = Instant::now() + LOSS_NOTICED;
                    }
                    return Ok(());
                }
                // It was renewed or deleted meanwhile.
                Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                Err(error) => return Err(api_error(error).context("taking the Lease")),
            }
        }
    }
}

fn hold(spec: &mut LeaseSpec, now: Timestamp) {
    spec.holder_identity = Some(HOLDER.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
}
