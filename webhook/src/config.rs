//! What can be set, as types. Where a value came from (flags, environment, a file) is the binary's business.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use taskgate_api::kueue::ConfigRef;

use crate::peers::share;

/// How the server runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where admission requests are served, over TLS. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where probes and metrics are served, over plain HTTP. Port 0 takes a free one.
    pub admin: SocketAddr,
    /// What one request or connection may use.
    pub limits: Limits,
    /// Whether `/metrics` takes a token, and the right to `get` that path.
    pub metrics_auth: bool,
    /// How the server ends.
    pub shutdown: ShutdownConfig,
    /// Where Kueue's configuration is.
    pub kueue: Option<ConfigRef>,
}

/// Bounds on what requests and connections may use. Every duration is longer than zero.
///
/// Of connections, requests and bytes one peer, which is one IP address, gets at most half: a flood from one leaves the other
/// half to the API server. It gets no less, because several API servers may come from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time. One more closes another, or is closed as it comes.
    pub connections: NonZeroUsize,
    /// Requests that are answered at the same time, from when their bodies are read; more are answered with 503 at once. Half
    /// must be more than the 200 creates and updates that an API server handles at once by default
    /// (`--max-mutating-requests-inflight`).
    pub in_flight: NonZeroUsize,
    /// The largest body, in bytes. An UPDATE review carries two objects of up to 3 MiB.
    pub body_bytes: NonZeroUsize,
    /// What one review may take in memory once it is parsed, in bytes.
    pub review_bytes: NonZeroUsize,
    /// What all reviews together may take in memory, in bytes, bodies included.
    pub buffered_bytes: NonZeroUsize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the first byte of an HTTP/1.1 request to the end of its headers.
    pub header: Duration,
    /// From the end of a request's headers to the end of its body.
    pub body: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// Between two requests on a connection. Longer than the API server's own 90 s, so that it is the API server that
    /// closes: a request that crosses our closing would be a failed call. Shorter than what NAT forgets after (C7).
    pub idle: Duration,
    /// For a review whose URL does not say how long the API server waits.
    pub review: Duration,
}

impl Default for Limits {
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

/// How the server ends (C7): unready at once, but serving on while Services still send requests, each answered with
/// `Connection: close`; then nothing new, and what runs may finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long requests are still accepted at most.
    pub lame_duck: Duration,
    /// Once requests came and then none for this long, accepting ends before [`Self::lame_duck`] is over.
    pub quiet: Duration,
    /// How long requests that are being answered may take after that.
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

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A duration that must be longer than zero is not.
    #[error("{0} must be longer than zero")]
    Zero(&'static str),
    /// One review may take more than a peer may have.
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
            limits: Limits::default(),
            metrics_auth: false,
            shutdown: ShutdownConfig::default(),
            kueue: Some(ConfigRef::default()),
        }
    }

    /// Refuses what cannot work, by the field's name (C24).
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
        if share(buffered) < review {
            return Err(ConfigError::Buffered { buffered, review });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
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
