//! The server's settings. The binary reads them from flags, environment and file.
//!
//! Imports nothing of this crate. Called by `server`, `listener` and `admission`.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use taskgate_api::{kelos_fields::KelosWriters, kueue::ConfigRef};

/// How the server runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where admission requests are served, over TLS. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where probes and metrics are served, over plain HTTP. Port 0 takes a free one.
    pub admin: SocketAddr,
    /// What one request or connection may use.
    pub limits: ServerLimits,
    /// Whether `/metrics` needs a token with the right to `get` that path.
    pub metrics_auth: bool,
    /// How the server shuts down.
    pub shutdown: ShutdownConfig,
    /// Where Kueue's configuration is; `None`: Kueue is not followed, and manages no namespace.
    pub kueue: Option<ConfigRef>,
    /// taskgate's own namespace, where the setting is that extends Kelos' schemas.
    pub namespace: String,
    /// The service accounts of Kelos that write whole objects.
    pub kelos_writers: KelosWriters,
}

/// Limits on requests and connections. Every duration is longer than zero. One peer gets at most its share of connections,
/// requests and bytes (`peer_share`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Concurrent connections. One more evicts another, or is closed at once.
    pub connections: NonZeroUsize,
    /// Requests that are answered concurrently, counted from when their bodies are read; further ones get 503 at once. Half
    /// must be more than the 200 creates and updates that an API server handles at once by default
    /// (`--max-mutating-requests-inflight`).
    pub in_flight: NonZeroUsize,
    /// The largest body, in bytes. An UPDATE review carries two objects of up to 3 MiB.
    pub body_bytes: NonZeroUsize,
    /// The memory that one review may take once it is parsed, in bytes.
    pub review_bytes: NonZeroUsize,
    /// The memory that all reviews together may take, in bytes, bodies included.
    pub buffered_bytes: NonZeroUsize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the first byte of an HTTP/1.1 request to the end of its headers.
    pub header: Duration,
    /// From the end of a request's headers to the end of its body.
    pub body: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// Between two requests on a connection. Longer than the API server's own 90 s, so that the API server closes first: a
    /// request that crosses our close would be a failed call. Shorter than common NAT timeouts.
    pub idle: Duration,
    /// For a review whose URL does not say how long the API server waits.
    pub review: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).expect("the defaults are not zero");
        Self {
            connections: count(1024),
            in_flight: count(512),
            body_bytes: count(8 << 20),
            review_bytes: count(64 << 20),
            buffered_bytes: count(160 << 20),
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            body: Duration::from_secs(2),
            stall: Duration::from_secs(1),
            idle: Duration::from_mins(2),
            review: Duration::from_secs(2),
        }
    }
}

/// How the server shuts down (C7): unready at once, but still serving while Services send requests, each answered with
/// `Connection: close`; then no new connections, and open requests may finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// The longest time in which requests are still accepted.
    pub lame_duck: Duration,
    /// Once requests arrived and then none for this long, accepting ends before [`Self::lame_duck`] is over.
    pub quiet: Duration,
    /// How long open requests may take after that.
    pub drain: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self {
            lame_duck: Duration::from_secs(8),
            quiet: Duration::from_secs(3),
            drain: Duration::from_secs(10),
        }
    }
}

/// The share of `limit` that one peer, which is one IP address, may use: half.
///
/// No more, so that a pod that takes all it can get leaves the other half to the API server. No less, because all API servers may
/// come from one address (konnectivity, NAT), each with 25 connections.
pub(crate) fn peer_share(limit: usize) -> usize {
    limit.div_ceil(2)
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A duration that must be longer than zero is not.
    #[error("{0} must be longer than zero")]
    Zero(&'static str),
    /// One review may take more than a peer's share.
    #[error(
        "limits.bufferedBytes ({buffered}) must be twice limits.bodyBytes and limits.reviewBytes together ({review})"
    )]
    Buffered {
        /// `limits.bufferedBytes`.
        buffered: usize,
        /// `limits.bodyBytes` and `limits.reviewBytes`.
        review: usize,
    },
}

impl ServerConfig {
    /// Listening on `listen` and `admin`, with the default limits.
    pub fn new(listen: SocketAddr, admin: SocketAddr) -> Self {
        Self {
            listen,
            admin,
            limits: ServerLimits::default(),
            metrics_auth: false,
            shutdown: ShutdownConfig::default(),
            kueue: Some(ConfigRef::default()),
            namespace: "taskgate-system".to_owned(),
            kelos_writers: KelosWriters::default(),
        }
    }

    /// Refuses settings that cannot work, by the field's name (C24).
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        for (field, duration) in [
            ("limits.handshake", limits.handshake),
            ("limits.header", limits.header),
            ("limits.body", limits.body),
            ("limits.stall", limits.stall),
            ("limits.idle", limits.idle),
            ("limits.review", limits.review),
        ] {
            if duration.is_zero() {
                return Err(ConfigError::Zero(field));
            }
        }
        let buffered = limits.buffered_bytes.get();
        let review = limits.body_bytes.get().saturating_add(limits.review_bytes.get());
        if peer_share(buffered) < review {
            return Err(ConfigError::Buffered { buffered, review });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let good = ServerConfig::new(any, any);
        good.check().unwrap();
        let mut zero = good.clone();
        zero.limits.header = Duration::ZERO;
        assert!(zero.check().unwrap_err().to_string().starts_with("limits.header "));
        let mut small = good;
        small.limits.buffered_bytes = NonZeroUsize::MIN;
        assert!(
            small
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("limits.bufferedBytes ")
        );
    }
}
