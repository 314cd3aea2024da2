//! Who answered the dry-runs.

use super::{KELOS_CRD, switch};
use crate::commands::doctor::{
    facts::{Answer, Facts, Seen},
    finding::{Check, Finding},
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    if switch::is_off(facts) {
        // It is told that it is off; that nobody answers follows from that.
        return Vec::new();
    }
    let mut findings = vec![finding(
        "a policy that cannot be applied",
        "validating",
        &facts.probes.validating,
    )];
    match &facts.probes.mutating {
        Some((namespace, answer)) => {
            findings.push(finding(&format!("a Task in {namespace}"), "mutating", answer));
        }
        None if facts.crds.get(KELOS_CRD).is_some_and(Seen::is_ok) => findings.push(Finding::warning(
            Check::Answers,
            "the mutating side was not asked: every namespace is left out, or none may be read",
            "see registration and namespaces",
        )),
        // Without Kelos there are no Tasks to ask with.
        None => {}
    }
    findings
}

fn finding(what: &str, side: &str, answer: &Answer) -> Finding {
    match answer {
        Answer::Taskgate => Finding::ok(
            Check::Answers,
            format!("the API server asks taskgate about {what} ({side})"),
        ),
        Answer::Nobody => Finding::failure(
            Check::Answers,
            format!("the API server does not ask taskgate about {what}: it went through ({side})"),
            "see registration; a moment after it was written, and for as long as taskgate is away where a failure is ignored, this is so",
        ),
        Answer::Failed(why) => Finding::failure(Check::Answers, format!("{side}: {why}"), advice(why)),
        Answer::Refused(why) => Finding::warning(
            Check::Answers,
            format!("whether taskgate is asked could not be found out ({side}): {why}"),
            format!("ask as somebody who may create {what}; it is a dry run"),
        ),
    }
}

/// What to do about a call that failed, by what the API server says of it.
fn advice(why: &str) -> &'static str {
    for (words, advice) in [
        ("x509", "see certificate and ca-bundle"),
        ("certificate", "see certificate and ca-bundle"),
        ("connection refused", "no pod listens: see replicas"),
        ("no endpoints available", "no pod is ready: see replicas"),
        (
            "service \"",
            "the Service is missing: apply the manifests of this release again",
        ),
        (
            "deadline exceeded",
            "the network between API server and pods, a NetworkPolicy or a firewall, or a pod that hangs",
        ),
        (
            "imeout",
            "the network between API server and pods, a NetworkPolicy or a firewall, or a pod that hangs",
        ),
    ] {
        if why.contains(words) {
            return advice;
        }
    }
    "see replicas, and the log of taskgate's pods"
}
