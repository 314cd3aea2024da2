//! Compiled policies, and the lookup of the policies that apply to an object.
//!
//! ```text
//! when a policy is read:    TaskPolicySpec, or SpawnerFields -> Policy (with its MetadataRule) -> PolicySet
//! when an object is looked up:  PolicyScope -> Attributes -> Sections: for each section the strongest policy that has it
//! ```
//!
//! [`PolicyScope`] is the one way to ask. Imports `kubernetes`, `issue_source` and `template`. Called by every feature, by `admission`,
//! and through the crate's root by the controller, the offline check and the command line.

mod identity;
mod metadata_rule;
mod policy;
mod policy_set;
mod scope;
mod sections;
mod spawner;

pub(crate) use identity::find_item;
pub use identity::{ItemIdentity, SourceKey, identify};
pub(crate) use metadata_rule::{Entry, MetadataRule, Rendered};
pub use policy::{Mismatch, Policy, PolicyName};
pub(crate) use policy::{QueueName, QueueRule, legal_queue_name};
pub use policy_set::{Acceptance, KnownPolicies, MAX_POLICIES, PolicySet, PolicyState};
pub(crate) use scope::selectable;
pub use scope::{FailureRule, GoverningSection, PolicyScope, RetryRule};
pub use sections::{Candidate, Claim, Section};
pub(crate) use sections::{SectionMatch, Sections};
pub use spawner::spec_of_spawner;
