//! A forgiving view of one entry of `status.conditions`.

use jiff::Timestamp;
use serde_json::Value;

/// The condition of a Task whose Job waits, or waited, in a queue.
pub const QUEUED: &str = "Queued";
/// The condition of a Task that was cancelled, whatever its phase.
pub const CANCELLED: &str = "Cancelled";

/// Borrowed view of a condition.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a>(&'a Value);

impl<'a> Condition<'a> {
    /// The condition of type `kind` in the status of `object`.
    pub fn find(object: &'a Value, kind: &str) -> Option<Self> {
        let conditions = object.pointer("/status/conditions")?.as_array()?;
        conditions.iter().find(|condition| condition["type"] == kind).map(Self)
    }

    fn text(self, field: &str) -> &'a str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// `status`: `True`, `False` or `Unknown`.
    pub fn status(self) -> &'a str {
        self.text("status")
    }

    /// Whether it is `True`.
    pub fn is_true(self) -> bool {
        self.status() == "True"
    }

    /// Whether it is `False`.
    pub fn is_false(self) -> bool {
        self.status() == "False"
    }

    /// `reason`; empty when there is none.
    pub fn reason(self) -> &'a str {
        self.text("reason")
    }

    /// `message`; empty when there is none.
    pub fn message(self) -> &'a str {
        self.text("message")
    }

    /// `lastTransitionTime`: since when the status is what it is.
    pub fn since(self) -> Option<Timestamp> {
        self.text("lastTransitionTime").parse().ok()
    }
}
