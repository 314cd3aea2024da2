//! Whether somebody has taken taskgate out of the way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, Disabled, webhooks};

use super::{name_of, unseen};
use crate::commands::{
    disable::told,
    doctor::{
        facts::{Facts, Unseen},
        finding::{Check, Finding},
    },
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![match &facts.switch {
        Ok(map) => disabled(map, facts.now),
        Err(Unseen::Absent) => match off(facts) {
            0 => Finding::ok(Check::Switch, "enabled"),
            off => Finding::failure(
                Check::Switch,
                format!("{off} webhooks are off, although nobody has disabled taskgate"),
                "run `taskgate enable`",
            ),
        },
        Err(refused) => unseen(Check::Switch, &format!("ConfigMap {CONFIG_MAP}"), refused),
    }]
}

fn disabled(map: &Value, now: Timestamp) -> Finding {
    let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap_or_default();
    let (disabled, problem) = Disabled::read(&data);
    let mut message = told(&disabled);
    if let Some(problem) = problem {
        message = format!("{message}; {problem}");
    }
    let over = disabled.until.is_some_and(|until| until <= now);
    let advice = if over {
        "its time is over and nobody has enabled it: run `taskgate enable`, and see whether a controller runs"
    } else {
        "run `taskgate enable` when the incident is over"
    };
    Finding::failure(Check::Switch, message, advice)
}

/// Whether taskgate is disabled, or its webhooks are off.
pub(super) fn is_off(facts: &Facts) -> bool {
    facts.switch.is_ok() || off(facts) > 0
}

/// How many of our webhooks are off.
fn off(facts: &Facts) -> usize {
    let configurations = facts.mutating.iter().chain(&facts.validating).flatten();
    let ours = configurations.filter(|found| name_of(found) == facts.installation.configuration);
    ours.flat_map(webhooks).filter(|(_, off)| *off).count()
}
