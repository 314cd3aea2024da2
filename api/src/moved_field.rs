//! The fields that admission moves out of a Task's spec, into annotations.
//!
//! The spec is immutable (kelos §2.1), so a field is moved when the Task is created, and again each time a user sends it: a file that
//! is applied twice has it both times.

use serde_json::Value;

use crate::{
    kelos::Task,
    keys,
    metadata::{Metadata, is_object_name},
};

/// A field of a Task's spec that admission moves to an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedField {
    /// The field of `spec`.
    pub name: &'static str,
    /// The annotation that keeps its value as text.
    pub annotation: &'static str,
    kind: FieldKind,
}

/// The values of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldKind {
    /// A number of seconds: an int32 that is not negative.
    Seconds,
    /// The name of a queue.
    Name,
}

/// `spec.ttlSecondsAfterFinished`: Kelos would delete the Task while taskgate still needs it.
pub const TTL: MovedField = MovedField {
    name: "ttlSecondsAfterFinished",
    annotation: keys::TTL,
    kind: FieldKind::Seconds,
};

/// `spec.queueName`, where taskgate added it to Kelos' Tasks: Kelos drops it whenever it writes the Task as a whole, which changes the
/// spec.
pub const QUEUE_NAME: MovedField = MovedField {
    name: "queueName",
    annotation: keys::QUEUE,
    kind: FieldKind::Name,
};

/// All of them.
pub const MOVED_FIELDS: [MovedField; 2] = [TTL, QUEUE_NAME];

impl MovedField {
    /// The value in the spec of `task`, as the annotation keeps it. `None` without one, and for one that the API server rejects.
    pub fn in_spec(self, task: &Value) -> Option<String> {
        let value = Task::of(task).spec()?.get(self.name)?;
        match self.kind {
            FieldKind::Seconds => seconds(value.as_i64()?).map(|seconds| seconds.to_string()),
            FieldKind::Name => value
                .as_str()
                .filter(|name| is_object_name(name))
                .map(ToOwned::to_owned),
        }
    }

    /// The value in the annotation of `task`, as the spec has it. `None` without one, and for one that admission did not write.
    pub fn kept(self, task: &Value) -> Option<Value> {
        let text = Metadata::of(task).annotation(self.annotation)?;
        match self.kind {
            FieldKind::Seconds => seconds(text.parse().ok()?).map(Value::from),
            FieldKind::Name => is_object_name(text).then(|| text.into()),
        }
    }
}

fn seconds(number: i64) -> Option<i32> {
    i32::try_from(number).ok().filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_queue_has_a_name() {
        for (value, text) in [
            (json!("agents"), Some("agents")),
            (json!(""), None),
            (json!("a b"), None),
            (json!(7), None),
        ] {
            let task = json!({"spec": {"queueName": value}});
            assert_eq!(QUEUE_NAME.in_spec(&task).as_deref(), text, "{task}");
        }
        let task = json!({"metadata": {"annotations": {keys::QUEUE: "agents"}}});
        assert_eq!(QUEUE_NAME.kept(&task), Some(json!("agents")));
    }

    #[test]
    fn a_ttl_is_a_number_of_seconds() {
        for (value, text) in [
            (json!(60), Some("60")),
            (json!(0), Some("0")),
            (json!(i32::MAX), Some("2147483647")),
            (json!(2_147_483_648_i64), None),
            (json!(-1), None),
            (json!("60"), None),
            (Value::Null, None),
        ] {
            let task = json!({"spec": {"ttlSecondsAfterFinished": value}});
            assert_eq!(TTL.in_spec(&task).as_deref(), text, "{task}");
        }
        for (text, value) in [
            ("60", Some(json!(60))),
            ("-1", None),
            ("soon", None),
            ("2147483648", None),
        ] {
            let task = json!({"metadata": {"annotations": {keys::TTL: text}}});
            assert_eq!(TTL.kept(&task), value, "{task}");
        }
    }
}
