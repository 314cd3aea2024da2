//! Whether we are ready: each check by name, as kube-apiserver tells it.

use std::{fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use taskgate_certs::{Injection, InjectionState, Resolver};

use crate::{
    caches::Caches,
    lifecycle::{Lifecycle, Stage},
    probe::Probe,
};

/// Everything that must hold before a Service may send us requests (C6, C16).
#[derive(Debug)]
pub struct Readiness {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) caches: Arc<Caches>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) probe: Probe,
    /// `None`: somebody else takes care of the webhook configurations.
    pub(crate) injection: Option<Injection>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What is wrong, if anything.
    pub result: Result<(), String>,
    /// What is to be known although nothing is wrong yet.
    pub note: Option<String>,
}

impl Readiness {
    /// All checks, in the order in which they come true at a start.
    pub async fn checks(&self) -> Vec<Check> {
        let check = |name, result| Check {
            name,
            result,
            note: None,
        };
        let mut checks = vec![
            check("shutdown", self.not_ending()),
            check("caches", self.caches_synced()),
            Check {
                note: self.certificate_trouble(),
                ..check("certificate", self.certificate_valid(Timestamp::now()))
            },
            check("handshake", self.probe.check().await),
        ];
        if let Some(injection) = &self.injection {
            checks.push(check("webhook-configurations", self.trusted(injection)));
        }
        checks
    }

    /// The last good certificate goes on being served: no reason to send nobody to us, but one to look.
    fn certificate_trouble(&self) -> Option<String> {
        let health = self.resolver.health();
        let until = health.leaf_not_after.into_iter().chain(health.ca_not_after).min()?;
        let problem = health.last_error?;
        Some(format!("the last good one is served until {until}: {problem}"))
    }

    fn not_ending(&self) -> Result<(), String> {
        match self.lifecycle.stage() {
            Stage::Serving => Ok(()),
            Stage::LameDuck | Stage::Draining => Err("shutting down".to_owned()),
        }
    }

    fn caches_synced(&self) -> Result<(), String> {
        let caches = self.caches.report();
        let missing: Vec<_> = caches
            .iter()
            .filter(|cache| !cache.synced)
            .map(|cache| cache.kind)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("not filled yet: {}", missing.join(", ")))
        }
    }

    /// Whether the API server trusts what is served. A newer certificate may be on its way meanwhile.
    fn trusted(&self, injection: &Injection) -> Result<(), String> {
        let missing: Vec<_> = injection
            .states()
            .into_iter()
            .filter(|(target, state)| *state == InjectionState::Absent || !self.resolver.is_trusted(*target))
            .map(|(target, state)| match state {
                // Somebody changed it this moment.
                InjectionState::Carried => format!("{target} does not trust what is served"),
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
pub(crate) fn render(checks: &[Check]) -> (bool, String) {
    let mut text = String::new();
    for Check { name, result, note } in checks {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_named_and_one_failure_fails_all() {
        let check = |name, result| Check {
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
