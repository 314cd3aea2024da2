//! The stored policies as one value that all parts of the process share: those in force, compiled once, and why the others are
//! not in force.

use std::{collections::BTreeMap, sync::Arc};

use super::{PolicyName, PolicySet};
use crate::kubernetes::Problem;

/// How many `TaskPolicies` a namespace may have, and how many `ClusterTaskPolicies` there may be.
pub const MAX_POLICIES: usize = 64;

/// The stored policies at one moment.
#[derive(Clone, Debug, Default)]
pub struct KnownPolicies {
    /// Those in force.
    pub set: Arc<PolicySet>,
    /// All of them.
    pub states: BTreeMap<PolicyName, PolicyState>,
    /// Whether these are all that are stored: false until both kinds were listed.
    pub complete: bool,
}

/// One stored policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// The object's uid.
    pub uid: String,
    /// The generation that was compiled.
    pub generation: i64,
    /// Whether it is in force.
    pub acceptance: Acceptance,
}

/// Whether a stored policy is in force. What is in force follows from what is stored, not from when this process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is.
    InForce,
    /// It cannot be applied; also when an earlier generation of it could be.
    Invalid(Arc<[Problem]>),
    /// There are too many: the oldest ones are in force.
    TooMany,
}

impl PolicyName {
    /// What there may be [`MAX_POLICIES`] of, in words.
    pub fn group(&self) -> String {
        match self {
            Self::Namespaced { namespace, .. } => format!("TaskPolicies in namespace {namespace}"),
            Self::Cluster { .. } => "ClusterTaskPolicies".to_owned(),
        }
    }
}
