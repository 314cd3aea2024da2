//! The server's metrics. Labels have closed sets of values; names of objects never become labels.
//!
//! Imports nothing of this crate. Called by `listener` and `admission`, which count; `cache` collects its own metrics.

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
    registry::{Metric, Registry},
};
use taskgate_api::Mode;
use taskgate_certs::Resolver;
use taskgate_policy::{Decision, Kind, Phase};

/// Upper bounds in seconds: a review takes tens of microseconds, and its deadline is a few seconds.
const BUCKETS: [f64; 13] = [
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1.0, 2.0,
];

/// The server's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    reviews: Family<ReviewLabels, Counter>,
    duration: Family<EndpointLabels, Histogram>,
    pub(crate) in_flight: Gauge,
    refused: Family<CauseLabels, Counter>,
    reasons: Family<DecisionReasonLabels, Counter>,
    pub(crate) connections: Gauge,
    connections_refused: Family<CauseLabels, Counter>,
}

/// What a review asks, as labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReviewedOperation {
    pub(crate) phase: Phase,
    pub(crate) operation: &'static str,
    pub(crate) dry_run: bool,
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
struct DecisionReasonLabels {
    section: &'static str,
    code: &'static str,
    mode: &'static str,
}

/// Why a connection ended before it carried a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionRefusal {
    /// There are too many, and none that could be evicted.
    TooMany,
    /// It was evicted for a newer one: it had waited longest for its peer.
    Evicted,
    /// The TLS client presented no certificate of the client authority.
    ClientCertificate,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The headers of a request took too long.
    HeaderTimeout,
}

/// Registers `metric`.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl ServerMetrics {
    /// Registers the metrics. `registry` carries the prefix `taskgate`.
    pub fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self {
            reviews: registered(registry, "reviews", "Reviews that got a verdict", Family::default()),
            duration: registered(
                registry,
                "review_duration_seconds",
                "Time from the end of a request's headers to its answer",
                Family::new_with_constructor(histogram),
            ),
            in_flight: registered(
                registry,
                "reviews_in_flight",
                "Requests that are being answered",
                Gauge::default(),
            ),
            refused: registered(
                registry,
                "reviews_refused",
                "Requests that got an error instead of a verdict, by cause",
                Family::default(),
            ),
            reasons: registered(
                registry,
                "reasons",
                "What was found about requests, dry runs included, by how far the policy may go",
                Family::default(),
            ),
            connections: registered(registry, "connections", "Open connections", Gauge::default()),
            connections_refused: registered(
                registry,
                "connections_refused",
                "Connections that ended before they carried a request, by cause",
                Family::default(),
            ),
        }
    }

    /// Counts a decision and its reasons.
    pub(crate) fn decided(&self, kind: Kind, reviewed: ReviewedOperation, decision: &Decision) {
        self.count(kind_name(kind), reviewed, decision.verdict().into());
        for reason in &decision.reasons {
            let labels = DecisionReasonLabels {
                section: reason.section.into(),
                code: reason.code(),
                mode: match reason.mode {
                    Mode::Off => "off",
                    Mode::Observe => "observe",
                    Mode::Warn => "warn",
                    Mode::Enforce => "enforce",
                },
            };
            self.reasons.get_or_create(&labels).inc();
        }
    }

    /// Counts a review of a kind that its endpoint is not registered for.
    pub(crate) fn unexpected_kind(&self, reviewed: ReviewedOperation) {
        self.count("other", reviewed, "unexpected");
    }

    fn count(&self, kind: &'static str, reviewed: ReviewedOperation, verdict: &'static str) {
        let labels = ReviewLabels {
            kind,
            phase: match reviewed.phase {
                Phase::Mutating => "mutating",
                Phase::Validating => "validating",
            },
            operation: reviewed.operation,
            verdict,
            dry_run: reviewed.dry_run,
        };
        self.reviews.get_or_create(&labels).inc();
    }

    /// Counts a request that got an error instead of a decision.
    pub(crate) fn refused(&self, cause: &'static str) {
        self.refused.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Records how long the request at `path` took.
    pub(crate) fn observe_duration(&self, path: &'static str, duration: Duration) {
        self.duration
            .get_or_create(&EndpointLabels { path })
            .observe(duration.as_secs_f64());
    }

    /// Counts a connection that ended before it carried a request.
    pub(crate) fn connection_refused(&self, refusal: ConnectionRefusal) {
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

/// The kind in metrics and logs.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Task => "Task",
        Kind::Job => "Job",
        Kind::TaskSpawner => "TaskSpawner",
        Kind::TaskPolicy => "TaskPolicy",
        Kind::ClusterTaskPolicy => "ClusterTaskPolicy",
        Kind::WorkItem => "WorkItem",
        Kind::WorkItemStatus => "WorkItemStatus",
    }
}

/// Keeps a gauge one higher while it lives.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Collects the state of the certificates when metrics are scraped.
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
