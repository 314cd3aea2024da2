//! Compiled policies, and the lookup of the policies that apply to an object.
//!
//! ```text
//! when a policy is read:    TaskPolicySpec -> Policy (selectors, metadata_rule, queue_name, item_key) -> PolicySet
//! when an object is looked up:  PolicyScope -> Attributes -> Sections: for each section the strongest policy that has it
//! ```
//!
//! [`PolicyScope`] is the one way to ask. Imports `kubernetes`, `issue_source` and `template`. Called by every feature, by `admission`,
//! and through the crate's root by the controller, the offline check and the command line.

mod candidates;
mod identity;
mod item_key;
mod metadata_rule;
mod policy;
mod policy_set;
mod queue_name;
mod scope;
mod sections;
mod selectors;
mod stored;
mod stricter;

pub use candidates::{Candidate, Claim};
pub(crate) use identity::find_item;
pub use identity::{ItemIdentity, SourceKey, identify};
pub(crate) use metadata_rule::{Entry, MetadataRule, Rendered};
pub(crate) use policy::QueueRule;
pub use policy::{Policy, PolicyName};
pub use policy_set::PolicySet;
pub(crate) use queue_name::{QueueName, legal as legal_queue_name};
pub(crate) use scope::selectable;
pub use scope::{FailureRule, GoverningSection, PolicyScope, RetryRule};
pub use sections::Section;
pub(crate) use sections::{SectionMatch, Sections};
pub use selectors::Mismatch;
pub use stored::{Acceptance, KnownPolicies, MAX_POLICIES, PolicyState};
