//! Which replica runs the controller: the holder of a Lease. Every write has preconditions, so two leaders for a moment do no
//! harm. The Lease keeps them from doing the same work twice, and the [`WriteFence`] keeps a replica that was stopped for a while from
//! writing before it has read the Lease again. A replica whose clock is too far off does not lead, as its work depends on the time.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use taskgate_cache::{Clock, MAX_CLOCK_SKEW};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use tracing::{debug, error, info, warn};

use super::WriteFence;

/// How long a holder that does not renew the Lease keeps it.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews the Lease, and the others read it; and how long either waits for an answer.
const INTERVAL: Duration = Duration::from_secs(4);

/// How long before the end of the Lease the holder stops writing, as a write takes a moment to arrive.
const MARGIN: Duration = Duration::from_secs(1);

/// The result of a try to take or to renew the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Election {
    /// This replica leads.
    Leads,
    /// Another replica leads, or may.
    Follows,
    /// This replica must not lead: its clock is too far off.
    Unfit,
}

/// One replica's part in the election.
pub(crate) struct Leader {
    leases: Api<Lease>,
    name: String,
    identity: String,
    fence: WriteFence,
    clock: Clock,
    /// Whether the clock is too far off, as it was logged.
    too_far_off: bool,
    /// The Lease of another holder as it was read last, and when by this replica's clock: clocks of two replicas are never compared.
    observed: Option<(LeaseSpec, Instant)>,
}

impl Leader {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        fence: WriteFence,
        clock: Clock,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            fence,
            clock,
            too_far_off: false,
            observed: None,
        }
    }

    /// Waits until this replica leads. False when `shutdown` came first.
    pub(crate) async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            if self.try_acquire().await == Some(Election::Leads) {
                info!(identity = self.identity, "leading");
                return true;
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// Keeps leading; returns when the Lease is lost, could not be renewed in time or was released because of the clock, or after
    /// `shutdown`.
    pub(crate) async fn keep(&mut self, shutdown: &CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
            match self.try_acquire().await {
                Some(Election::Leads) => renewed = tokio::time::Instant::now(),
                Some(Election::Follows) => {
                    warn!("another replica leads");
                    return;
                }
                Some(Election::Unfit) => {
                    self.fence.close();
                    return self.release().await;
                }
                None => {}
            }
            if renewed.elapsed() + INTERVAL >= DURATION {
                warn!("the Lease could not be renewed in time");
                return;
            }
        }
    }

    /// Releases the Lease, so that another replica need not wait.
    pub(crate) async fn release(&self) {
        if timeout(INTERVAL, self.try_release()).await.is_err() {
            debug!("the API server did not answer the release of the Lease");
        }
    }

    async fn try_release(&self) {
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
            debug!(%error, "the Lease was not released");
        }
    }

    /// Takes or renews the Lease if it is free or this replica's. `None` without an answer in time: of an API server that is gone, the
    /// connection would wait for minutes.
    async fn try_acquire(&mut self) -> Option<Election> {
        let answer = timeout(INTERVAL, self.acquire_or_renew()).await;
        let answer = answer.map_err(BoxError::from).and_then(|answer| Ok(answer?));
        answer
            .inspect_err(|error| debug!(%error, "no answer about the Lease"))
            .ok()
    }

    /// [`Election::Follows`] also after a lost race.
    async fn acquire_or_renew(&mut self) -> kube::Result<Election> {
        let asked = Instant::now();
        // Also of a replica that does not lead: the answer shows how far off its clock is now.
        let found = self.leases.get_opt(&self.name).await?;
        if self.is_too_far_off() {
            return Ok(Election::Unfit);
        }
        let (exists, mut lease) = (found.is_some(), found.unwrap_or_default());
        let before = lease.spec.take().unwrap_or_default();
        if !self.may_take(&before) {
            return Ok(Election::Follows);
        }
        lease.metadata.name = Some(self.name.clone());
        lease.spec = Some(self.spec(before));
        let written = if exists {
            self.leases.replace(&self.name, &PostParams::default(), &lease).await
        } else {
            self.leases.create(&PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => {
                self.fence.open(asked, DURATION.saturating_sub(MARGIN));
                Ok(Election::Leads)
            }
            Err(error) if crate::error::is_conflict(&error) => Ok(Election::Follows),
            Err(error) => Err(error),
        }
    }

    /// Whether the clock is too far off to lead. Logged whenever that changes.
    fn is_too_far_off(&mut self) -> bool {
        let is_off = self.clock.is_too_far_off();
        if std::mem::replace(&mut self.too_far_off, is_off) != is_off {
            let (ahead_seconds, at_most) = (self.clock.skew().as_secs(), MAX_CLOCK_SKEW.as_secs());
            if is_off {
                error!(
                    ahead_seconds,
                    at_most, "not leading: this replica's clock differs too much from the API server's"
                );
            } else {
                info!(ahead_seconds, "this replica's clock allows it to lead again");
            }
        }
        is_off
    }

    /// Whether the Lease is this replica's, free, or was not renewed for its whole duration while this replica watched.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        match spec.holder_identity.as_deref() {
            None | Some("") => return true,
            Some(holder) if holder == self.identity => return true,
            Some(_) => {}
        }
        match &self.observed {
            Some((observed, since)) if observed == spec => {
                let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
                since.elapsed() >= Duration::from_secs(seconds)
            }
            _ => {
                self.observed = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: LeaseSpec) -> LeaseSpec {
        // By this replica's own clock: beside the API server's time of the write, it shows users how far that is off.
        let now = MicroTime(Timestamp::now());
        let is_holder = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_holder).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_holder))),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use std::future::pending;
    use tower::service_fn;

    fn replica(client: Client, clock: Clock) -> Leader {
        Leader::new(
            client,
            "taskgate-system",
            "taskgate",
            "one",
            WriteFence::default(),
            clock,
        )
    }

    /// A replica whose API server never answers.
    fn cut_off() -> Leader {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        replica(Client::new(silent, "taskgate-system"), Clock::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_without_an_answer_stops_leading_when_the_lease_ends() {
        let began = tokio::time::Instant::now();
        cut_off().keep(&CancellationToken::new()).await;
        assert!(began.elapsed() <= DURATION + INTERVAL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_without_an_answer_ends_at_shutdown() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!cut_off().acquire(&shutdown).await);
        cut_off().release().await;
    }

    /// The Lease is free: only the clock decides.
    #[tokio::test]
    async fn a_replica_whose_clock_is_too_far_off_does_not_lead_until_it_is_set() {
        let free = service_fn(|request: Request<Body>| async move {
            let body = match *request.method() {
                http::Method::GET => br#"{"metadata": {"name": "taskgate"}, "spec": {}}"#.to_vec(),
                _ => request.into_body().collect().await?.to_bytes().to_vec(),
            };
            Response::builder().body(Body::from(body)).map_err(BoxError::from)
        });
        let clock = Clock::default();
        let mut replica = replica(Client::new(free, "taskgate-system"), clock.clone());
        let (own, ten_minutes) = (Timestamp::now(), jiff::SignedDuration::from_mins(10));
        clock.observe(own, Duration::ZERO, own - ten_minutes);
        assert_eq!(replica.try_acquire().await, Some(Election::Unfit));
        for _ in 0..3 {
            clock.observe(own, Duration::ZERO, own);
        }
        assert_eq!(replica.try_acquire().await, Some(Election::Leads));
        for _ in 0..3 {
            clock.observe(own, Duration::ZERO, own + ten_minutes);
        }
        assert_eq!(replica.try_acquire().await, Some(Election::Unfit));
    }
}
