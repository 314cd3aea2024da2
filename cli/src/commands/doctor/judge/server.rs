//! The API server, and whether the clocks agree.

use jiff::SignedDuration;

use super::spoken;
use crate::commands::doctor::{
    facts::Facts,
    finding::{Check, Finding},
};

/// The oldest API server: match conditions of webhooks are stable from here on.
const OLDEST: (u32, u32) = (1, 30);
/// How far clocks may be apart. What the API server says of its own is rounded to seconds.
pub(super) const APART: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let (major, minor, version) = &facts.server.version;
    let server = if (*major, *minor) < OLDEST {
        let (major, minor) = OLDEST;
        Finding::failure(
            Check::ApiServer,
            format!("{version} is too old"),
            format!("upgrade Kubernetes to {major}.{minor} or later: taskgate's webhooks need match conditions"),
        )
    } else {
        Finding::ok(Check::ApiServer, format!("{version} answers"))
    };
    let mut findings = vec![server];
    if let Some((there, here)) = facts.server.clock {
        let ahead = here.duration_since(there);
        findings.push(if ahead.abs() > APART {
            let way = if ahead.is_positive() { "ahead of" } else { "behind" };
            Finding::warning(
                Check::Clock,
                format!("this machine is {} {way} the API server", spoken(ahead)),
                "set the clocks by NTP: ages and deadlines are told wrongly here",
            )
        } else {
            Finding::ok(Check::Clock, "this machine and the API server agree")
        });
    }
    findings
}
