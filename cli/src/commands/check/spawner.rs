//! What the policy fields of a TaskSpawner do, and whether the cluster keeps them.

use serde::Serialize;
use serde_json::Value;
use taskgate_api::{
    Mode,
    kelos_fields::{KelosField, KelosFields, SpawnerFields},
    metadata::Metadata,
    task_policy::{CancellationPolicy, FailurePolicy, Reaction},
};
use taskgate_offline::SourceLocation;

/// The report on one TaskSpawner with policy fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpawnerReport {
    #[serde(flatten)]
    pub(super) place: SourceLocation,
    /// As `TaskSpawner team-a/fixer`.
    pub(super) object: String,
    /// What each field does.
    pub(super) effects: Vec<String>,
    /// What keeps fields from having an effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
    /// What is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

impl SpawnerReport {
    /// The report on `object`, if it is a TaskSpawner with policy fields. `kept` are the fields that the cluster keeps for taskgate;
    /// `None`: it is not known.
    pub(super) fn of(
        place: &SourceLocation,
        object: &Value,
        namespace: &str,
        kept: Option<&KelosFields>,
    ) -> Option<Self> {
        let is_kelos = object["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("kelos.dev/"));
        if !is_kelos || object["kind"] != "TaskSpawner" {
            return None;
        }
        let given: Vec<_> = SpawnerFields::FIELDS
            .into_iter()
            .filter(|field| field.of(object).is_some())
            .collect();
        if given.is_empty() {
            return None;
        }
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or(namespace);
        let (warning, note) = match kept {
            Some(kept) => (dropped(&given, kept), None),
            None => (None, Some(unknown())),
        };
        // What cannot be read is among the policies that are not in force.
        let effects = SpawnerFields::read(object, &KelosField::all()).map(|fields| effects(&fields));
        Some(Self {
            place: place.clone(),
            object: format!("TaskSpawner {namespace}/{}", metadata.name().unwrap_or_default()),
            effects: effects.unwrap_or_default(),
            warning,
            note,
        })
    }
}

/// The warning about fields that the cluster does not keep for taskgate.
fn dropped(given: &[KelosField], kept: &KelosFields) -> Option<String> {
    let dropped: Vec<_> = given
        .iter()
        .filter(|field| !kept.contains(field))
        .map(|field| field.dotted())
        .collect();
    (!dropped.is_empty()).then(|| {
        format!(
            "{} has no effect by taskgate in this cluster: Kelos' schema lacks it, or defines it itself. `taskgate kelos-fields enable` \
             adds what it lacks; `taskgate convert` prints a TaskPolicy",
            dropped.join(", ")
        )
    })
}

fn unknown() -> String {
    "the cluster keeps these fields only after `taskgate kelos-fields enable`; `taskgate convert` prints a TaskPolicy"
        .to_owned()
}

/// What each field does, in words.
fn effects(fields: &SpawnerFields) -> Vec<String> {
    let of = |field: KelosField, effect: String| format!("{}: {effect}", field.dotted());
    let failure = fields
        .failure_policy
        .as_ref()
        .map(|section| of(KelosField::FailurePolicy, of_failure(section)));
    let cancellation = fields.cancellation_policy.as_ref();
    let cancellation = cancellation.map(|section| of(KelosField::CancellationPolicy, of_cancellation(section)));
    let queue = fields.queue_name.as_ref().map(|queue| {
        let effect = format!("the Jobs are created suspended, for Kueue's LocalQueue {queue}");
        of(KelosField::QueueName, effect)
    });
    [failure, cancellation, queue].into_iter().flatten().collect()
}

fn of_failure(section: &FailurePolicy) -> String {
    let limit = match section.max_retries_per_item {
        0 => "the failures of an item are counted, without a limit".to_owned(),
        1 => "an item gets one Task, and none after it failed".to_owned(),
        limit => format!("an item gets no further Task after {limit} failed in a row"),
    };
    let reset = if section.reset_on_change {
        "; a change of the item resets it"
    } else {
        ""
    };
    format!("{limit}{reset}{}", of_mode(section.mode))
}

fn of_cancellation(section: &CancellationPolicy) -> String {
    let triggers = [
        (section.on_source_removed, "the spawner no longer finds its item"),
        (section.on_retrigger, "its item is triggered again"),
    ];
    let triggers: Vec<_> = triggers
        .iter()
        .filter(|(reaction, _)| *reaction == Reaction::Cancel)
        .map(|(_, trigger)| *trigger)
        .collect();
    if triggers.is_empty() {
        return "nothing is cancelled".to_owned();
    }
    let grace = match section.grace_period_seconds {
        0 => String::new(),
        seconds => format!(", {seconds} s later"),
    };
    format!(
        "a Task is cancelled when {}{grace}{}",
        triggers.join(" or "),
        of_mode(section.mode)
    )
}

fn of_mode(mode: Option<Mode>) -> String {
    match mode {
        None | Some(Mode::Enforce) => String::new(),
        Some(mode) => format!(" (mode {mode:?})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(spec: &Value, kept: Option<&KelosFields>) -> Option<SpawnerReport> {
        let object = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": "fixer"}, "spec": spec});
        let place = SourceLocation {
            file: "a.yaml".to_owned(),
            line: 1,
        };
        SpawnerReport::of(&place, &object, "team", kept)
    }

    #[test]
    fn the_effects_are_in_words() {
        let spec = json!({
            "failurePolicy": {"maxRetriesPerItem": 3, "resetOnChange": true},
            "cancellationPolicy": {"onSourceRemoved": "Cancel", "gracePeriodSeconds": 30, "mode": "Observe"},
            "taskTemplate": {"queueName": "agents"},
        });
        let all = KelosField::all();
        let found = report(&spec, Some(&all)).unwrap();
        assert_eq!(found.object, "TaskSpawner team/fixer");
        assert_eq!(
            found.effects,
            [
                "spec.failurePolicy: an item gets no further Task after 3 failed in a row; a change of the item resets it",
                "spec.cancellationPolicy: a Task is cancelled when the spawner no longer finds its item, 30 s later (mode Observe)",
                "spec.taskTemplate.queueName: the Jobs are created suspended, for Kueue's LocalQueue agents",
            ]
        );
        assert_eq!((found.warning, found.note), (None, None));
        assert!(report(&json!({"suspend": true}), None).is_none());
    }

    #[test]
    fn fields_that_the_cluster_drops_are_named() {
        let spec = json!({"failurePolicy": {}, "taskTemplate": {"queueName": "agents"}});
        let kept = [KelosField::QueueName].into();
        let warning = report(&spec, Some(&kept)).unwrap().warning.unwrap();
        assert!(warning.starts_with("spec.failurePolicy has no effect"), "{warning}");
        let found = report(&spec, None).unwrap();
        assert!(found.warning.is_none() && found.note.unwrap().contains("kelos-fields enable"));
    }
}
