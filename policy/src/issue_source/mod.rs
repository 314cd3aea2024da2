//! Issue sources: where the items of a TaskSpawner are, which of them the spawner sees, and how answers of GitHub are read.
//!
//! No IO: the controller sends the requests, this directory reads the answers. Imports `kubernetes` only. Imported by `template`,
//! `matching`, `cancellation`, `breaker` and `interests`, and through the crate's root by the controller.

pub mod github;
mod item;
mod repository;

pub use github::{RateHeaders, backoff, pause};
pub use item::{Comment, Filter, SourceItem};
pub use repository::{
    IssueEndpoint, IssueSource, Repository, SpawnerInfo, Unsupported, Workspace, WorkspaceInfo, ghproxy_service,
};
