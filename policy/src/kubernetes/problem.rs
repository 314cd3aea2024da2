//! An error in a field of an object.

use std::fmt;

/// An error in a field of a policy, which keeps the policy from being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, such as `spec.metadata.labels[team]`.
    pub field: String,
    /// The error.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
