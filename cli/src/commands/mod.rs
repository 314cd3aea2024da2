//! The commands that users run, one file or directory each. They share the [`snapshot`] of a cluster and the lookup of
//! [`work_items`].

pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod disable;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod render;
pub(crate) mod reset;
pub(crate) mod retry;
mod snapshot;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod uninstall;
pub(crate) mod version;
mod work_items;

/// Whether `kind` is a name of Kelos' Tasks, as kubectl takes it.
fn is_task(kind: &str) -> bool {
    matches!(kind, "task" | "tasks" | "task.kelos.dev" | "tasks.kelos.dev")
}
