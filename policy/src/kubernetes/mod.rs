//! What Kubernetes itself demands of objects: the forms of names, keys and label values, quantities, and JSON patches.
//!
//! Imports nothing of this crate. Every other directory imports it.

mod names;
mod patch;
mod quantity;

pub(crate) use names::{MAX_MESSAGE, MAX_USER, Problems, hex, in_a_row, is_key, is_label_value, label_value, one_word};
pub use names::{Problem, clip, counted, note, sha256};
pub(crate) use patch::{Edit, KeyKind, add, at, merge, patch, remove};
pub use quantity::canonical as canonical_quantity;
