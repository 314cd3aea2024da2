//! The conditions that a cycle writes (kelos S7, S13).

use crate::types::{TaskSpawner, TaskSpawnerStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition says.
pub(super) struct Says<'a> {
    pub(super) holds: bool,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

/// Sets a condition as `meta.SetStatusCondition`: the transition time moves with the status only.
pub(super) fn set(status: &mut TaskSpawnerStatus, generation: Option<i64>, type_: &str, says: &Says<'_>) {
    let value = if says.holds { "True" } else { "False" };
    let conditions = &mut status.conditions;
    let old = conditions.iter().position(|c| c.type_ == type_);
    let since = old
        .map(|index| &conditions[index])
        .filter(|condition| condition.status == value)
        .map_or_else(|| Time(Timestamp::now()), |c| c.last_transition_time.clone());
    let new = Condition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: says.reason.to_owned(),
        message: says.message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match old {
        Some(index) => conditions[index] = new,
        None => conditions.push(new),
    }
}

/// `DiscoveryError`, true with the joined errors of the items.
pub(super) fn discovery_error(status: &mut TaskSpawnerStatus, generation: Option<i64>, error: Option<&str>) {
    let says = Says {
        holds: error.is_some(),
        reason: if error.is_some() {
            "TaskCreationFailed"
        } else {
            "NoErrors"
        },
        message: error.unwrap_or("Task creation succeeded for all discovered items"),
    };
    set(status, generation, "DiscoveryError", &says);
}

/// `Suspended`.
pub(super) fn suspended(status: &mut TaskSpawnerStatus, generation: Option<i64>, holds: bool) {
    let (reason, message) = if holds {
        ("UserSuspended", "TaskSpawner is suspended by user")
    } else {
        ("Running", "TaskSpawner is running")
    };
    let says = Says { holds, reason, message };
    set(status, generation, "Suspended", &says);
}

/// `MaxTotalTasksReached` and its older name, with the same content.
pub(super) fn limit(status: &mut TaskSpawnerStatus, spawner: &TaskSpawner) {
    let max = i64::from(spawner.spec.max_total_tasks.unwrap_or(0));
    let created = status.total_tasks_created;
    let reached = max > 0 && created >= max;
    let message = if reached {
        format!("Total tasks created ({created}) has reached maxTotalTasks ({max})")
    } else {
        "maxTotalTasks limit has not been reached".to_owned()
    };
    let says = Says {
        holds: reached,
        reason: if reached { "LimitReached" } else { "LimitAvailable" },
        message: &message,
    };
    for type_ in ["MaxTotalTasksReached", "TaskBudgetExhausted"] {
        set(status, spawner.metadata.generation, type_, &says);
    }
}
