//! Which replica runs the controller, and whether its clock is right.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{list, name_of, server, spoken, text, unseen};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

/// Beyond that taskgate stamps times that others of its replicas take for forged.
const FAR: SignedDuration = SignedDuration::from_mins(1);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    if !facts.installation.elects {
        return vec![Finding::ok(
            Check::Leader,
            "none is elected: the one replica runs the controller",
        )];
    }
    let lease = &facts.installation.names.lease;
    let title = format!("Lease {}/{lease}", facts.installation.namespace);
    let advice = "see replicas, and rights: while nobody leads, failures are not counted and no Task is let go";
    match &facts.lease {
        Ok(found) => held(facts, &title, found, advice),
        Err(Unseen::Absent) => {
            vec![Finding::failure(
                Check::Leader,
                format!("nobody leads: there is no {title}"),
                advice,
            )]
        }
        Err(refused) => vec![unseen(Check::Leader, &title, refused)],
    }
}

fn held(facts: &Facts, title: &str, lease: &Value, advice: &str) -> Vec<Finding> {
    let holder = text(lease, "/spec/holderIdentity");
    let renewed: Option<Timestamp> = text(lease, "/spec/renewTime").parse().ok();
    let Some(renewed) = renewed.filter(|_| !holder.is_empty()) else {
        return vec![Finding::failure(
            Check::Leader,
            format!("nobody leads: {title} is free"),
            advice,
        )];
    };
    // The API server notes when it was written, by its own clock.
    let written: Option<Timestamp> = list(lease, "/metadata/managedFields")
        .iter()
        .filter(|entry| entry["fieldsV1"].to_string().contains("\"f:renewTime\""))
        .filter_map(|entry| text(entry, "/time").parse().ok())
        .max();
    let server = facts.server.clock.map_or(facts.now, |(there, _)| there);
    let length = lease
        .pointer("/spec/leaseDurationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(15);
    let age = server.duration_since(written.unwrap_or(renewed));
    let mut findings = Vec::new();
    if age > SignedDuration::from_secs(length) + server::APART {
        findings.push(Finding::failure(
            Check::Leader,
            format!(
                "nobody leads: {holder} held {title}, and was heard of {} ago",
                spoken(age)
            ),
            advice,
        ));
        return findings;
    }
    findings.push(if stranger(facts, holder) {
        Finding::warning(
            Check::Leader,
            format!("{holder} leads, and is none of the pods of this Deployment"),
            "is there another installation, or a replica outside of the cluster? Two of them share one Lease",
        )
    } else {
        Finding::ok(Check::Leader, format!("{holder} leads, heard of {} ago", spoken(age)))
    });
    if let Some(written) = written {
        let ahead = renewed.duration_since(written);
        let level = match ahead.abs() {
            far if far > FAR => Finding::failure,
            far if far > server::APART => Finding::warning,
            _ => return findings,
        };
        let way = if ahead.is_positive() { "ahead of" } else { "behind" };
        findings.push(level(
            Check::Clock,
            format!("the clock of {holder} is {} {way} the API server's", spoken(ahead)),
            "set the clocks of the nodes by NTP: backoffs, TTLs and cancellations are due by them".to_owned(),
        ));
    }
    findings
}

/// Whether no pod that is there is called like the holder, which adds its process ID.
fn stranger(facts: &Facts, holder: &str) -> bool {
    let pods = facts.pods.as_deref().unwrap_or_default();
    let is = |pod: &Value| {
        holder
            .strip_prefix(name_of(pod))
            .is_some_and(|rest| rest.starts_with('-'))
    };
    !pods.is_empty() && !pods.iter().any(is)
}
