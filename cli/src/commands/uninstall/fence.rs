//! The Lease of the replicas, held by us so that none of them acts.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams};

use super::super::{Connection, said};

/// The holder that the Lease shows meanwhile: no replica takes it for its own.
const HOLDER: &str = "taskgate-uninstall";
/// For how long no replica leads. Should the uninstall not go on, one does afterwards.
const HELD: Duration = Duration::from_mins(2);
/// How old the Lease gets before it is renewed.
const RENEWED: Duration = Duration::from_secs(30);
/// After how long no replica takes itself for the leader any more: it looks every 4 s, and ends what it has begun.
const NOTICED: Duration = Duration::from_secs(6);

/// Keeps replicas from acting for as long as [`Fence::keep()`] is called.
pub(super) struct Fence<'a> {
    /// `None`: nobody is kept from anything.
    lease: Option<(Api<Lease>, &'a str)>,
    renewed: Instant,
    closed: Instant,
}

impl<'a> Fence<'a> {
    /// Where nothing is changed, replicas may act.
    pub(super) fn none() -> Self {
        let now = Instant::now();
        Self {
            lease: None,
            renewed: now,
            closed: now,
        }
    }

    /// Takes the Lease away from the replica that leads. Where there is no Lease, none does.
    pub(super) async fn take(connection: &Connection, name: &'a str) -> Result<Self> {
        let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
        let mut fence = Self {
            lease: Some((leases, name)),
            ..Self::none()
        };
        // One that was interrupted may have taken it a moment ago: its holder counts like a replica.
        fence
            .write(|spec| spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()))
            .await?;
        Ok(fence)
    }

    /// Renews the Lease when it is due. If it ran out, and a replica took it, that one is shut out anew.
    pub(super) async fn keep(&mut self) -> Result<()> {
        if self.renewed.elapsed() < RENEWED {
            return Ok(());
        }
        self.renew().await
    }

    /// Renews the Lease now.
    pub(super) async fn renew(&mut self) -> Result<()> {
        self.write(|spec| spec.holder_identity.as_deref() != Some(HOLDER)).await
    }

    /// From when on no replica changes anything: what was found and done since stays so.
    pub(super) fn closed(&self) -> Instant {
        self.closed
    }

    /// Writes us into the Lease. `led` tells of what it was before whether somebody has yet to notice.
    async fn write(&mut self, led: impl Fn(&LeaseSpec) -> bool) -> Result<()> {
        let Some((leases, name)) = &self.lease else {
            return Ok(());
        };
        loop {
            let found = leases.get_opt(name).await.map_err(said).context("reading the Lease")?;
            // Before it is written: so it is never thought younger than it is.
            let renewed = Instant::now();
            let Some(mut lease) = found else {
                self.renewed = renewed;
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            let to_be_noticed = led(spec);
            hold(spec, Timestamp::now());
            match leases.replace(name, &PostParams::default(), &lease).await {
                Ok(_) => {
                    self.renewed = renewed;
                    if to_be_noticed {
                        self.closed = Instant::now() + NOTICED;
                    }
                    return Ok(());
                }
                // It was renewed meanwhile, or went.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(said(error).context("taking the Lease")),
            }
        }
    }
}

fn hold(spec: &mut LeaseSpec, now: Timestamp) {
    spec.holder_identity = Some(HOLDER.to_owned());
    spec.lease_duration_seconds = i32::try_from(HELD.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
}
