//! Workspace (kelos §2.5). It has no status.

use super::{NameRef, empty};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// A repository and how an agent gets at it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kelos.dev",
    version = "v1alpha2",
    kind = "Workspace",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSpec {
    /// Clone URL; owner and name of the repository are read off it.
    pub repo: String,
    /// Branch, tag or commit.
    #[serde(default, skip_serializing_if = "empty")]
    pub r#ref: String,
    /// The Secret with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// Its presence switches the in-cluster GitHub proxy on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ghproxy: Option<GhProxy>,
    /// More git remotes.
    #[serde(default, skip_serializing_if = "empty")]
    pub remotes: Vec<WorkspaceRemote>,
    /// Files written into the clone.
    #[serde(default, skip_serializing_if = "empty")]
    pub files: Vec<WorkspaceFile>,
    /// Command run in the clone before the agent starts.
    #[serde(default, skip_serializing_if = "empty")]
    pub setup_command: Vec<String>,
}

/// Options of the GitHub proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GhProxy {}

/// A git remote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceRemote {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
}

/// A file in the clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceFile {
    /// Relative path.
    pub path: String,
    /// Text.
    pub content: String,
}
