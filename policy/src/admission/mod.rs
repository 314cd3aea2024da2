//! The admission review: [`govern`] finds the policies that apply to a request, [`decide()`] collects the findings of all features
//! and applies each policy's mode last.
//!
//! Also here: what concerns no single feature, such as writes to taskgate's own objects, reserved keys, and warnings. Imports every
//! other directory. Called through the crate's root by the webhook and the offline check.

mod decide;
mod go_fields;
mod govern;
mod policy_validation;
mod reserved_keys;
mod rights;
mod unstable_fields;
mod warnings;
mod work_item;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decision::{Detail, Effect, Finding};

pub use decide::decide;
pub use govern::govern;
pub use reserved_keys::{has_reserved_keys, reserved_keys_changed, without_reserved_keys};
pub use rights::{Right, required_rights, right_missing};
pub use work_item::retry_order;

/// The spec of `object`, one of taskgate's own. Errors with the finding that rejects the object.
fn spec_of<T: DeserializeOwned>(object: &Value) -> Result<T, Finding<'static>> {
    T::deserialize(object.get("spec").unwrap_or(&Value::Null)).map_err(|error| {
        let message = format!("spec: {error}");
        Finding::own(Detail::Unreadable { message }, Effect::Reject)
    })
}
