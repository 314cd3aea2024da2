//! The fields that taskgate adds to Kelos' kinds: how the schemas are extended, and how the fields survive the writes of Kelos.
//!
//! Imports `decision`, `kubernetes` and `matching`. Called through the crate's root by the webhook, the controller and the command line.

mod extension;
mod review;

pub use extension::{FieldState, SchemaField, extension, removal, schema_fields};
pub use review::{FieldsReview, FieldsWriter, needs_sync, review_kelos_fields, sync};
