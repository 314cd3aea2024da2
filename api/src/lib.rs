//! The objects that taskgate reads and writes, as types.
//!
//! taskgate's own kinds ([`task_policy`], [`work_item`]), every key that taskgate sets on objects of others ([`keys`]), and
//! read-only views of those objects ([`kelos`], [`foreman`], [`kueue`], [`job`]). A view borrows the JSON that the API server sent and
//! reads a few fields, so that fields that a newer Kelos or Kubernetes adds are never dropped.
//!
//! Depends on no other crate of the workspace and does no IO. Every other crate depends on it.

pub mod condition;
pub mod crds;
mod duration;
pub mod foreman;
pub mod job;
pub mod kelos;
// As below.
#[allow(unreachable_pub)]
pub mod kelos_fields;
pub mod keys;
pub mod kueue;
pub mod metadata;
pub mod moved_field;
#[allow(unreachable_pub)]
pub mod retry_status;
pub mod switch;
// The schema derive repeats each struct in a private scope, where the lint takes `pub` for unreachable.
#[allow(unreachable_pub)]
pub mod task_policy;
mod view;
#[allow(unreachable_pub)]
pub mod work_item;

pub use duration::{Duration, InvalidDuration};
pub use kube::core::{Selector, SelectorExt};
pub use metadata::is_object_name;
pub use task_policy::{ClusterTaskPolicy, ClusterTaskPolicySpec, Mode, TaskPolicy, TaskPolicySpec};
pub use view::Lenient;
pub use work_item::{WorkItem, WorkItemSpec, WorkItemStatus};

/// The API group of taskgate's own kinds.
pub const GROUP: &str = "taskgate.dev";
/// The one served and stored version of taskgate's own kinds.
pub const VERSION: &str = "v1alpha1";
