//! What the server counts. Labels come from closed sets only; the names of objects never become labels.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use taskgate_api::Mode;
use taskgate_certs::Resolver;
use taskgate_policy::{Decision, Kind, Phase, Reason};

use crate::{caches::Caches, refusal::Refusal, review::ReviewOperation};

/// Upper bounds in seconds: a review takes tens of microseconds, and its deadline is a few seconds.
const BUCKETS: [f64; 13] = [
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1.0, 2.0,
];

/// The server's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: Family<ReviewLabels, Counter>,
    duration: Family<EndpointLabels, Histogram>,
    in_flight: Gauge,
    refused: Family<CauseLabels, Counter>,
    reasons: Family<ReasonLabels, Counter>,
    connections: Gauge,
    connections_refused: Family<CauseLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    kind: &'static str,
    phase: &'static str,
    operation: &'static str,
    verdict: &'static str,
    dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    path: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    section: &'static str,
    code: &'static str,
    mode: &'static str,
}

/// Why a connection ended before it carried a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionRefusal {
    /// There are too many, and none that another could be closed for.
    TooMany,
    /// It was closed for a newer one: it had waited longest for its peer.
    Evicted,
    /// The TLS client showed no certificate of the client authority.
    ClientCertificate,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The headers of a request took too long.
    HeaderTimeout,
}

impl Metrics {
    /// Registers the metrics. `registry` carries the prefix `taskgate`.
    pub fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            reviews: Family::default(),
            duration: Family::new_with_constructor(histogram),
            in_flight: Gauge::default(),
            refused: Family::default(),
            reasons: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
        };
        registry.register("reviews", "Reviews that got a verdict", metrics.reviews.clone());
        registry.register(
            "review_duration_seconds",
            "Time from the end of a request's headers to its answer",
            metrics.duration.clone(),
        );
        registry.register(
            "reviews_in_flight",
            "Requests that are being answered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "reviews_refused",
            "Requests that got an error instead of a verdict, by cause",
            metrics.refused.clone(),
        );
        registry.register(
            "reasons",
            "What was found about requests, dry runs included, by how far the policy may go",
            metrics.reasons.clone(),
        );
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "connections_refused",
            "Connections that ended before they carried a request, by cause",
            metrics.connections_refused.clone(),
        );
        metrics
    }

    pub(crate) fn review(
        &self,
        kind: Kind,
        phase: Phase,
        operation: ReviewOperation,
        dry_run: bool,
        decision: &Decision,
    ) {
        self.reviews
            .get_or_create(&ReviewLabels {
                kind: kind_name(kind),
                phase: phase_name(phase),
                operation: operation.as_str(),
                verdict: decision.verdict().as_str(),
                dry_run,
            })
            .inc();
        for reason in &decision.reasons {
            self.reasons.get_or_create(&ReasonLabels::of(reason)).inc();
        }
    }

    pub(crate) fn unexpected(&self, phase: Phase, operation: ReviewOperation, dry_run: bool) {
        self.reviews
            .get_or_create(&ReviewLabels {
                kind: "other",
                phase: phase_name(phase),
                operation: operation.as_str(),
                verdict: "unexpected",
                dry_run,
            })
            .inc();
    }

    pub(crate) fn refusal(&self, refusal: &Refusal) {
        let cause = refusal.cause();
        self.refused.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn took(&self, path: &'static str, duration: Duration) {
        self.duration
            .get_or_create(&EndpointLabels { path })
            .observe(duration.as_secs_f64());
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    pub(crate) fn connections(&self) -> &Gauge {
        &self.connections
    }

    pub(crate) fn connection_refusal(&self, refusal: ConnectionRefusal) {
        let cause = match refusal {
            ConnectionRefusal::TooMany => "too_many",
            ConnectionRefusal::Evicted => "evicted",
            ConnectionRefusal::ClientCertificate => "client_certificate",
            ConnectionRefusal::Handshake => "handshake",
            ConnectionRefusal::HandshakeTimeout => "handshake_timeout",
            ConnectionRefusal::HeaderTimeout => "header_timeout",
        };
        self.connections_refused.get_or_create(&CauseLabels { cause }).inc();
    }
}

impl ReasonLabels {
    fn of(reason: &Reason) -> Self {
        Self {
            section: reason.section.as_str(),
            code: reason.code(),
            mode: match reason.mode {
                Mode::Off => "off",
                Mode::Observe => "observe",
                Mode::Warn => "warn",
                Mode::Enforce => "enforce",
            },
        }
    }
}

/// The kind in metrics and logs.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Task => "Task",
        Kind::Job => "Job",
        Kind::TaskPolicy => "TaskPolicy",
        Kind::ClusterTaskPolicy => "ClusterTaskPolicy",
        Kind::WorkItem => "WorkItem",
        Kind::WorkItemStatus => "WorkItemStatus",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Mutating => "mutating",
        Phase::Validating => "validating",
    }
}

/// Reads the state of the certificates at scrape time, so that it cannot drift.
#[derive(Debug)]
pub(crate) struct CertificateCollector(pub(crate) Arc<Resolver>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

impl Collector for CertificateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let health = self.0.health();
        let now = Timestamp::now();
        let mut family = encoder.encode_descriptor(
            "certificate_seconds_left",
            "How long the served certificate and its authority remain valid; negative when expired",
            None,
            MetricType::Gauge,
        )?;
        for (certificate, end) in [("leaf", health.leaf_not_after), ("ca", health.ca_not_after)] {
            if let Some(end) = end {
                let left = ConstGauge::new(end.duration_since(now).as_secs());
                left.encode(family.encode_family(&CertificateLabels { certificate })?)?;
            }
        }
        for (name, help, is) in [
            (
                "certificate_renewal_failing",
                "1 while the certificates cannot be renewed or read",
                health.last_error.is_some(),
            ),
            (
                "certificate_waiting",
                "1 while a newer certificate waits until the API server trusts it",
                health.waiting,
            ),
        ] {
            let gauge = ConstGauge::new(i64::from(is));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Reads the sizes of the caches at scrape time.
#[derive(Debug)]
pub(crate) struct CacheCollector(pub(crate) Arc<Caches>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    kind: &'static str,
}

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let caches = self.0.report();
        let mut family = encoder.encode_descriptor("cache_objects", "Objects in a cache", None, MetricType::Gauge)?;
        for cache in &caches {
            let objects = ConstGauge::new(i64::try_from(cache.objects).unwrap_or(i64::MAX));
            objects.encode(family.encode_family(&CacheLabels { kind: cache.kind })?)?;
        }
        let mut family = encoder.encode_descriptor(
            "cache_age_seconds",
            "How long a cache has been without a working watch; 0 while it follows the API server",
            None,
            MetricType::Gauge,
        )?;
        for cache in &caches {
            ConstGauge::new(cache.age.as_secs_f64())
                .encode(family.encode_family(&CacheLabels { kind: cache.kind })?)?;
        }
        let rejected = ConstGauge::new(i64::try_from(self.0.rejected_policies()).unwrap_or(i64::MAX));
        let encoder = encoder.encode_descriptor(
            "policies_rejected",
            "Stored policies that cannot be applied and are left out",
            None,
            rejected.metric_type(),
        )?;
        rejected.encode(encoder)
    }
}
