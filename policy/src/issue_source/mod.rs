//! Issue sources: where the items of a TaskSpawner are, which of them the spawner sees, and how answers of GitHub are read.
//!
//! No IO: the controller sends the requests, this directory reads the answers. Imports `kubernetes` only. Imported by `template`,
//! `matching`, `cancellation`, `breaker` and `interests`, and through the crate's root by the controller.

mod filter;
pub mod github;
mod item;
mod rate_limit;
mod repository;
mod spawner;

pub use filter::Filter;
pub use item::{Comment, SourceItem};
pub use rate_limit::{RateHeaders, backoff, pause};
pub use repository::{IssueEndpoint, IssueSource, Repository, Unsupported, ghproxy_service};
pub use spawner::{SpawnerInfo, Workspace, WorkspaceInfo};
