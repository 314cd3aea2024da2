//! The admission review: [`govern()`] finds the policies that apply to a request, [`decide()`] collects the findings of all features
//! and applies each policy's mode last.
//!
//! Also here: what concerns no single feature, such as writes to taskgate's own objects, reserved keys, and warnings. Imports every
//! other directory. Called through the crate's root by the webhook and the offline check.

mod decide;
mod govern;
mod policy_validation;
mod reserved_keys;
mod rights;
mod warnings;
mod work_item;

pub use decide::decide;
pub use govern::govern;
pub use reserved_keys::{has_reserved_keys, reserved_keys_changed, review_task_update, without_reserved_keys};
pub use rights::{Right, required_rights, right_missing};
pub use warnings::never_starts;
pub use work_item::retry_order;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decision::{Detail, Effect, Finding};

/// The spec of `object`, one of taskgate's own.
fn spec_of<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object.get("spec").unwrap_or(&Value::Null))
}

/// The finding that rejects an object whose spec cannot be read.
fn unreadable(error: &serde_json::Error) -> Finding<'static> {
    let message = format!("spec: {error}");
    Finding::own(Detail::Unreadable(message), Effect::Reject)
}
