//! Whether the server is ready: each check by name, in the format of kube-apiserver.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustls::{ClientConfig, crypto::ring};
use taskgate_cache::ClusterCache;
use taskgate_certs::{Injection, InjectionState, Resolver};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

use crate::listener::{Lifecycle, ShutdownStage};

/// How long a good result of the handshake probe is reused: several kubelets and people ask.
const PROBE_TTL: Duration = Duration::from_secs(3);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The conditions that must hold before a Service sends requests to this replica (C6, C16).
#[derive(Debug)]
pub(crate) struct Readiness {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) cache: Arc<ClusterCache>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) probe: HandshakeProbe,
    /// `None` when this process does not follow the webhook configurations.
    pub(crate) injection: Option<Injection>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadinessCheck {
    name: &'static str,
    /// Why the check fails, if it does.
    result: Result<(), String>,
    /// A problem that does not fail the check yet.
    note: Option<String>,
}

impl Readiness {
    /// All checks, in the order in which they pass at a start.
    pub(super) async fn checks(&self) -> Vec<ReadinessCheck> {
        let check = |name, result| ReadinessCheck {
            name,
            result,
            note: None,
        };
        let mut checks = vec![
            check("shutdown", self.not_shutting_down()),
            check("caches", self.cache_synced()),
            ReadinessCheck {
                note: self.renewal_problem(),
                ..check("certificate", self.certificate_valid(Timestamp::now()))
            },
            check("handshake", self.probe.check().await),
            ReadinessCheck {
                note: self.clock_problem(),
                ..check("clock", Ok(()))
            },
        ];
        if let Some(injection) = &self.injection {
            checks.push(check("webhook-configurations", self.trusted(injection)));
        }
        checks
    }

    /// Why the certificate cannot be renewed. The last good one is still served, so the replica stays ready.
    fn renewal_problem(&self) -> Option<String> {
        let health = self.resolver.health();
        let until = health.leaf_not_after.into_iter().chain(health.ca_not_after).min()?;
        let problem = health.last_error?;
        Some(format!("the last good one is served until {until}: {problem}"))
    }

    /// Why this replica does not lead. It serves admission all the same, by the API server's time.
    fn clock_problem(&self) -> Option<String> {
        let clock = self.cache.clock();
        clock.is_too_far_off().then(|| {
            let skew = clock.skew().as_secs();
            format!("it is {skew} s ahead of the API server's: this replica does not lead")
        })
    }

    fn not_shutting_down(&self) -> Result<(), String> {
        match self.lifecycle.stage() {
            ShutdownStage::Serving => Ok(()),
            ShutdownStage::LameDuck | ShutdownStage::Draining => Err("shutting down".to_owned()),
        }
    }

    fn cache_synced(&self) -> Result<(), String> {
        let missing: Vec<_> = self.cache.unsynced().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("not synced yet: {}", missing.join(", ")))
        }
    }

    /// Whether the API server trusts the served certificate. A newer one may be waiting meanwhile.
    fn trusted(&self, injection: &Injection) -> Result<(), String> {
        let missing: Vec<_> = injection
            .states()
            .into_iter()
            .filter(|(target, state)| *state == InjectionState::Absent || !self.resolver.is_trusted(*target))
            .map(|(target, state)| match state {
                // Its bundle was changed a moment ago.
                InjectionState::Injected => format!("{target} does not trust what is served"),
                state => format!("{target} {state}"),
            })
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join("; "))
        }
    }

    fn certificate_valid(&self, now: Timestamp) -> Result<(), String> {
        let health = self.resolver.health();
        if health.is_valid_at(now) {
            return Ok(());
        }
        let problem = health.last_error.map(|error| format!(" ({error})")).unwrap_or_default();
        Err(match health.leaf_not_after {
            None => format!("there is none yet{problem}"),
            Some(_) => format!("the certificate or its authority has expired{problem}"),
        })
    }
}

/// The checks as text, and whether all passed.
pub(super) fn render(checks: &[ReadinessCheck]) -> (bool, String) {
    let mut text = String::new();
    for ReadinessCheck { name, result, note } in checks {
        // Writing to a string cannot fail.
        let _ = match (result, note) {
            (Ok(()), None) => writeln!(text, "[+]{name} ok"),
            (Ok(()), Some(note)) => writeln!(text, "[+]{name} ok, but {note}"),
            (Err(why), _) => writeln!(text, "[-]{name} failed: {why}"),
        };
    }
    let passed = checks.iter().all(|check| check.result.is_ok());
    text.push_str(if passed {
        "readyz check passed\n"
    } else {
        "readyz check failed\n"
    });
    (passed, text)
}

/// Completes a TLS handshake with the admission port, as the API server does: through the bound port, trusting the bundle of the
/// served certificate (C2, C6).
#[derive(Debug)]
pub(crate) struct HandshakeProbe {
    address: SocketAddr,
    resolver: Arc<Resolver>,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl HandshakeProbe {
    /// A probe of the port bound at `address`.
    pub(crate) fn new(address: SocketAddr, resolver: Arc<Resolver>) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self {
            address: SocketAddr::new(ip, address.port()),
            resolver,
            last: Mutex::new(None),
        }
    }

    /// The result of a handshake. A good one is reused for [`PROBE_TTL`]; a bad one never.
    async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, Ok(()))) = &*last
            && at.elapsed() < PROBE_TTL
        {
            return Ok(());
        }
        let result = match timeout(PROBE_TIMEOUT, self.handshake()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no handshake within {} s", PROBE_TIMEOUT.as_secs())),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    async fn handshake(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let served = self.resolver.served().ok_or("no certificate is served yet")?;
        let name = served.names().first().ok_or("the served certificate has no name")?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(served.bundle().roots()?)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name.server_name().clone(), stream).await?;
        stream.shutdown().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_named_and_one_failure_fails_all() {
        let check = |name, result| ReadinessCheck {
            name,
            result,
            note: None,
        };
        let mut good = [check("a", Ok(())), check("b", Ok(()))];
        assert_eq!(
            render(&good),
            (true, "[+]a ok\n[+]b ok\nreadyz check passed\n".to_owned())
        );
        good[1].note = Some("so".to_owned());
        assert!(render(&good).1.contains("[+]b ok, but so\n"));
        let bad = [check("a", Ok(())), check("b", Err("why".to_owned()))];
        assert_eq!(
            render(&bad),
            (false, "[+]a ok\n[-]b failed: why\nreadyz check failed\n".to_owned())
        );
    }
}
