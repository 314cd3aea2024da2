//! What taskgate's service account may not do.

use super::unseen;
use crate::{
    commands::doctor::{
        facts::Facts,
        finding::{Check, Finding},
    },
    rights::questions::missing,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let installation = &facts.installation;
    let account = format!("{}/{}", installation.namespace, installation.account);
    let denied = match &facts.denied {
        Ok(denied) => denied,
        Err(refused) => {
            return vec![unseen(
                Check::Rights,
                &format!("what ServiceAccount {account} may do"),
                refused,
            )];
        }
    };
    let missing = missing(&installation.names, |question| !denied.contains(question));
    if missing.is_empty() {
        return vec![Finding::ok(
            Check::Rights,
            format!("ServiceAccount {account} may do all that it has to"),
        )];
    }
    let finding = |missing: crate::rights::questions::Missing| {
        Finding::failure(
            Check::Rights,
            format!("ServiceAccount {account} lacks a right: {}", missing.why),
            format!("add to its {}: {}", missing.role, missing.rule),
        )
    };
    missing.into_iter().map(finding).collect()
}
