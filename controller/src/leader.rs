//! Which replica runs the controller: the holder of a Lease. Every write has preconditions of its own, so two leaders for a
//! moment do no harm; the Lease keeps them from doing the same work twice, and the [`Fence`] keeps one that was stopped for a
//! while from writing before it has looked.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::fence::Fence;

/// How long a holder that is not heard of keeps the Lease.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews it, and others look; and how long either waits for an answer.
const INTERVAL: Duration = Duration::from_secs(4);

/// How long before the end of the Lease the holder stops writing: for a write that is on its way.
const MARGIN: Duration = Duration::from_secs(1);

/// One replica's part in the election.
pub(crate) struct Leader {
    leases: Api<Lease>,
    name: String,
    identity: String,
    fence: Fence,
    /// What was last seen of another holder, and when: only our own clock is compared with itself.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Leader {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str, fence: Fence) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            fence,
            seen: None,
        }
    }

    /// Waits until this replica leads. False when `shutdown` came first.
    pub(crate) async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            if self.try_hold().await == Some(true) {
                info!(identity = self.identity, "leading");
                return true;
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// Keeps leading; returns when the Lease is lost or could not be renewed in time, or after `shutdown`.
    pub(crate) async fn keep(&mut self, shutdown: &CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
            match self.try_hold().await {
                Some(true) => renewed = tokio::time::Instant::now(),
                Some(false) => {
                    warn!("another replica leads");
                    return;
                }
                None => {}
            }
            if renewed.elapsed() + INTERVAL >= DURATION {
                warn!("the Lease could not be renewed in time");
                return;
            }
        }
    }

    /// Hands the Lease back, so that another replica need not wait.
    pub(crate) async fn release(&self) {
        if timeout(INTERVAL, self.hand_back()).await.is_err() {
            debug!("no answer about the Lease that is handed back");
        }
    }

    async fn hand_back(&self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.name).await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            debug!(%error, "the Lease was not handed back");
        }
    }

    /// Takes or renews the Lease if it is free or ours: whether it is ours now. `None` without an answer in time: an API
    /// server that went away without a word is one, and would otherwise be waited for until the connection is given up.
    async fn try_hold(&mut self) -> Option<bool> {
        match timeout(INTERVAL, self.hold()).await {
            Ok(Ok(held)) => Some(held),
            Ok(Err(error)) => {
                debug!(%error, "no answer about the Lease");
                None
            }
            Err(late) => {
                debug!(%late, "no answer about the Lease");
                None
            }
        }
    }

    /// A lost race reads as "not ours".
    async fn hold(&mut self) -> kube::Result<bool> {
        let asked = Instant::now();
        let written = match self.leases.get_opt(&self.name).await? {
            None => {
                let mut lease = Lease::default();
                lease.metadata.name = Some(self.name.clone());
                lease.spec = Some(self.spec(None));
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let spec = lease.spec.clone().unwrap_or_default();
                if !self.may_take(&spec) {
                    return Ok(false);
                }
                lease.spec = Some(self.spec(Some(&spec)));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => {
                self.fence.open(asked, DURATION.saturating_sub(MARGIN));
                Ok(true)
            }
            Err(error) if crate::error::is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the Lease is ours, free, or has not moved for its whole duration while we watched.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        match spec.holder_identity.as_deref() {
            None | Some("") => return true,
            Some(holder) if holder == self.identity => return true,
            Some(_) => {}
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
                since.elapsed() >= Duration::from_secs(seconds)
            }
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.cloned().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| ours).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;
    use std::future::pending;
    use tower::{BoxError, service_fn};

    /// A replica whose API server went away without a word.
    fn cut_off() -> Leader {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        let client = Client::new(silent, "taskgate-system");
        Leader::new(client, "taskgate-system", "taskgate", "one", Fence::default())
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads_and_gets_no_answer_does_not_lead_when_the_lease_is_over() {
        let began = tokio::time::Instant::now();
        cut_off().keep(&CancellationToken::new()).await;
        assert!(began.elapsed() <= DURATION + INTERVAL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_lead_and_gets_no_answer_ends_when_it_is_told_to() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!cut_off().acquire(&shutdown).await);
        cut_off().release().await;
    }
}
