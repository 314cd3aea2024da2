//! Random changes of stored objects: mostly cancellations, requested, withdrawn, forged; and harmless changes.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use taskgate_api::keys;

use crate::draw::{Chance, SPAWNERS};

/// The states of a cancellation.
const STATES: [&str; 6] = ["", "Announced", "Cancelling", "Cancelled", "TooLate", "Refused"];
/// The phases of a Task.
const PHASES: [&str; 7] = ["", "Pending", "Running", "Running", "Waiting", "Succeeded", "Failed"];
/// Values of the grace annotation.
const GRACES: [&str; 7] = ["0", "30", " 60 ", "86400", "86401", "-1", "soon"];
/// Values of other clients than taskgate.
const FORGED: [&str; 3] = ["user:root", "Cancelled", "2026-01-01T00:00:00Z"];

fn hours_from_now(hours: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(hours))
        .strftime("%FT%TZ")
        .to_string()
}

/// The annotations of `object`, which get a place if there is none.
fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations.as_object_mut().expect("it is an object by now")
}

impl Chance {
    /// A stored Task that is somewhere on its way, perhaps to its cancellation. Times are hours away. Apart: its status.
    pub(crate) fn stored_task(&mut self, number: usize) -> (Value, Value) {
        let mut task = self.task(number);
        task["metadata"]["name"] = json!(format!("stored-{number}"));
        task["spec"] = json!({"prompt": "p", "type": "claude-code", "credentials": {"type": "none"}});
        let metadata = task["metadata"].as_object_mut().expect("it has metadata");
        metadata.remove("generateName");
        metadata.remove("finalizers");
        let annotations = annotations(&mut task);
        annotations.retain(|key, _| !keys::CANCELLATION.contains(&key.as_str()));
        if self.once_in(2) {
            let deadline = if self.once_in(2) { -5 } else { 12 };
            annotations.insert(keys::CANCEL.to_owned(), json!("asked for before"));
            annotations.insert(keys::CANCELLED_BY.to_owned(), json!("user:bob"));
            annotations.insert(keys::CANCEL_TRIGGER.to_owned(), json!("ByHand"));
            annotations.insert(keys::CANCEL_REQUESTED.to_owned(), json!(hours_from_now(-5)));
            annotations.insert(keys::CANCEL_DEADLINE.to_owned(), json!(hours_from_now(deadline)));
            let state = *self.one_of(&STATES);
            if !state.is_empty() {
                annotations.insert(keys::CANCEL_STATE.to_owned(), json!(state));
            }
            match self.below(8) {
                // Withdrawn, and not cleaned up yet.
                0 => _ = annotations.remove(keys::CANCEL),
                1 => _ = annotations.insert(keys::CANCEL_DEADLINE.to_owned(), json!("soon")),
                2 => _ = annotations.insert(keys::CANCEL_GRACE.to_owned(), json!("61200")),
                _ => {}
            }
        }
        // Admission accounted for it, and moved its TTL.
        if self.once_in(2) {
            annotations.insert(keys::TTL.to_owned(), json!("3600"));
            task["metadata"]["labels"][keys::WORK_ITEM] = json!("nightly-0123456789");
        }
        let phase = *self.one_of(&PHASES);
        (task, json!({"status": {"phase": phase}}))
    }

    /// A change of the stored `object`.
    pub(crate) fn changed(&mut self, object: &Value) -> Value {
        let mut object = object.clone();
        match object["kind"].as_str() {
            Some("Task") => self.change_task(&mut object),
            Some("WorkItem") => self.change_item(&mut object),
            Some("Job") => self.change_job(&mut object),
            _ => self.change_policy(&mut object),
        }
        object
    }

    fn change_task(&mut self, task: &mut Value) {
        let metadata = &mut task["metadata"];
        match self.below(30) {
            0 => {}
            1 => metadata["labels"][keys::WORK_ITEM] = json!("another"),
            2 => metadata["labels"]["kelos.dev/taskspawner"] = json!(self.one_of(&SPAWNERS)),
            3 => metadata["labels"] = json!({}),
            4 => _ = annotations(task).insert(keys::ITEM.to_owned(), json!("another")),
            5 => _ = annotations(task).insert(keys::RECORDED.to_owned(), json!("forged")),
            6 => task["spec"]["prompt"] = json!("something else"),
            7 => task["spec"]["type"] = json!(7),
            // The file that it was made from is applied again.
            9 | 10 => task["spec"]["ttlSecondsAfterFinished"] = json!(3600),
            11 => task["spec"]["ttlSecondsAfterFinished"] = json!(self.one_of(&[0, 60])),
            // It is replaced by that file.
            12 => {
                metadata["labels"] = json!({"kelos.dev/taskspawner": "fixer"});
                metadata["annotations"] = json!({keys::ITEM: "nightly"});
                task["spec"]["ttlSecondsAfterFinished"] = json!(3600);
            }
            // Nothing can be added to what is being deleted.
            8 if metadata["deletionTimestamp"].is_null() => metadata["finalizers"] = json!([keys::ACCOUNTING]),
            _ => {
                self.change_cancellation(annotations(task));
                if self.once_in(4) {
                    self.change_cancellation(annotations(task));
                }
            }
        }
    }

    fn change_cancellation(&mut self, annotations: &mut Map<String, Value>) {
        let mut set = |key: &str, value: &&str| _ = annotations.insert(key.to_owned(), json!(value));
        match self.below(12) {
            0..7 => {
                let long = "long ".repeat(80);
                let reasons = ["no longer wanted", "manual", "", long.as_str()];
                set(keys::CANCEL, self.one_of(&reasons));
                if self.once_in(3) {
                    set(keys::CANCEL_GRACE, self.one_of(&GRACES));
                }
            }
            7 => _ = annotations.remove(keys::CANCEL),
            8 => set(keys::CANCEL_GRACE, self.one_of(&GRACES)),
            9 => {
                let key: &&str = self.one_of(&keys::CANCELLATION_OWN);
                set(key, self.one_of(&FORGED));
            }
            10 => _ = annotations.remove(*self.one_of(&keys::CANCELLATION)),
            _ => annotations.retain(|key, _| !keys::CANCELLATION.contains(&key.as_str())),
        }
    }

    fn change_item(&mut self, item: &mut Value) {
        match self.below(4) {
            0 => item["metadata"]["labels"]["seen"] = json!("yes"),
            1 => item["spec"]["key"] = json!("another/1"),
            2 => item["spec"]["key"] = json!(7),
            _ => item["spec"]["item"] = json!("another"),
        }
    }

    fn change_job(&mut self, job: &mut Value) {
        match self.below(3) {
            0 => job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = json!("own"),
            1 => _ = annotations(job).insert(keys::STOPPED.to_owned(), json!("forged")),
            _ => job["spec"]["suspend"] = json!(false),
        }
    }

    fn change_policy(&mut self, policy: &mut Value) {
        match self.below(4) {
            0 => policy["metadata"]["labels"]["seen"] = json!("yes"),
            1 => policy["spec"]["mode"] = json!("Off"),
            _ => {
                policy["spec"] = self.policy_spec();
                // What the API server does not know it drops before anybody records it.
                self.spoil(&mut policy["spec"], false);
            }
        }
    }
}
