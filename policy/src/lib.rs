//! taskgate's decision core: what happens to a Task, a Job or a policy that somebody writes, and why.
//!
//! Pure: no IO, no clock, no globals, no kube client. Whatever a decision needs is an argument, time included, so the
//! webhook, the command line and any audit get the same verdict from the same input.
//!
//! The way through it: [`govern`] finds the policies that speak for a request, [`decide()`] lets each section make its
//! findings and applies the policy's mode to them last. The result is a [`Decision`]: allow or deny, a minimal JSON
//! patch, warnings, and every [`Reason`] as data.
//!
//! Depends on `taskgate-api` only. Called by `taskgate-webhook`, `taskgate-controller` and the `taskgate` binary.

mod accounting;
mod backoff;
mod breaker;
mod breaker_wording;
mod cancel;
mod candidates;
mod canonical;
mod classify;
mod cost;
mod decide;
mod decision;
mod durations;
mod facts;
mod farewell;
mod fit;
#[cfg(test)]
mod fixtures;
mod governing;
mod identity;
mod item_key;
mod known;
mod ledger;
pub mod metadata;
mod names;
mod patch;
mod pitfalls;
mod policy;
mod protected;
mod quantity;
mod queue;
mod reach;
mod reason;
mod request;
pub mod retry;
mod right;
mod ruling;
mod select;
pub mod source;
mod stricter;
mod task_state;
mod template;
mod upkeep;
mod work_item;
mod written;

pub use backoff::next_attempt;
pub use breaker::{Assessment, Memory, allowance, assess};
pub use cancel::{
    CancelDetail, CancelReview, CancelScene, CancelStep, CancelTask, Cancellation, JobEnd, MAX_GRACE, MAX_REASON,
    Progress, Run, Sighting, Stamp, Trigger, Wish, WishScene, WishVerdict, admit, annotations as cancel_annotations,
    announcement, asks_permission, by_whom, cancel_step, conclusion, is_back, next_run, wish,
};
pub use candidates::{Candidate, Claim, candidates};
pub use classify::{CIRCUIT_BROKEN, Ending, Evidence, TASK_CANCELLED, classify};
pub use decide::decide;
pub use decision::{Decision, Denial, Verdict};
pub use facts::{SpawnerFacts, Workspace, WorkspaceFacts};
pub use farewell::{Farewell, farewell};
pub use fit::{fit, minimal};
pub use governing::{Governing, governing};
pub use identity::{ItemIdentity, identify};
pub use known::{Acceptance, KnownPolicies, MAX_POLICIES, PolicyState};
pub use ledger::{HISTORY, attempt, baseline, failures_to_forget, fill_in, record, refresh, reset, reset_by};
pub use names::{clip, note};
pub use policy::{Policy, PolicyName, Problem};
pub use protected::{carries_own, own_keys_changed, stated};
pub use quantity::canonical as canonical_quantity;
pub use queue::{
    Installed, Look, NotQueued, QueueDetail, QueueReason, QueueScene, QueueState, queue_state, states_queue,
};
pub use reach::Mismatch;
pub use reason::{Detail, Reason, Refusal, Section};
pub use request::{Facts, Kind, KueueFacts, Operation, Phase, Request};
pub use right::{Right, right_missing, rights_needed};
pub use ruling::{FailureRule, RetryRule, cancellation_rule, failure_rule, on_deactivation, retry_rule};
pub use select::{Governed, PolicySet, govern};
pub use task_state::{TaskPhase, TaskState};
pub use upkeep::{Retrying, Scene, Step, next_step};
pub use work_item::retry_order;
