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

mod breaker;
mod canonical;
mod decide;
mod decision;
mod identity;
mod metadata;
mod names;
mod patch;
mod pitfalls;
mod policy;
mod quantity;
mod queue;
mod reason;
mod request;
mod select;
mod written;

pub use breaker::{Assessment, assess};
pub use decide::decide;
pub use decision::{Decision, Denial, Verdict};
pub use identity::{ItemIdentity, identify};
pub use names::clip;
pub use policy::{Policy, PolicyName, Problem};
pub use quantity::canonical as canonical_quantity;
pub use reason::{Detail, Reason, Section};
pub use request::{Facts, Kind, Operation, Phase, Request, SpawnerFacts};
pub use select::{Governed, PolicySet, govern};
