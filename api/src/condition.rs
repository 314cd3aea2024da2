//! A forgiving view of one entry of `status.conditions`.

use jiff::Timestamp;
use serde_json::Value;

use crate::Lenient as _;

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
        Self::all(object).find(|condition| condition.kind() == kind)
    }

    /// The conditions in the status of `object`.
    pub fn all(object: &'a Value) -> impl Iterator<Item = Self> + Clone {
        object.items("/status/conditions").map(Self)
    }

    /// `type`
    pub fn kind(self) -> &'a str {
        self.0.text("/type").unwrap_or_default()
    }

    /// `status`: `True`, `False` or `Unknown`.
    pub fn status(self) -> &'a str {
        self.0.text("/status").unwrap_or_default()
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
        self.0.text("/reason").unwrap_or_default()
    }

    /// `message`; empty when there is none.
    pub fn message(self) -> &'a str {
        self.0.text("/message").unwrap_or_default()
    }

    /// `lastTransitionTime`: since when the status is what it is.
    pub fn since(self) -> Option<Timestamp> {
        self.0.time("/lastTransitionTime")
    }
}
