//! Labels and annotations (`metadata`) that policies set on Tasks, their Jobs and their pods.
//!
//! ```text
//! when a policy is read:            matching::MetadataRule
//! when a Task is created:           findings (planned)
//! when its Job is created:          source_read::propagate
//! when its issue source was read:   source_read (planned::Pending), for the keys that need it
//! ```
//!
//! Imports `kubernetes`, `issue_source`, `template`, `matching` and `decision`. Imported by `retry` (a Workload does not pass
//! admission), `interests` and `admission`; the controller calls [`fill`] and [`copy`], the command line [`preview()`].

mod findings;
mod planned;
mod source_read;

pub use findings::{PreviewLine, preview};
pub(crate) use findings::{Stage, Values, findings};
pub use planned::Pending;
pub(crate) use planned::Planned;
pub use source_read::{LateMetadata, copy, fill, settle};
pub(crate) use source_read::{has_readable_source, propagate};

pub use crate::template::TemplateInput;
