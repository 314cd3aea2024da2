//! The verdict that the cluster would give, without the cluster.
//!
//! ```text
//! files, folders, stdin ─→ documents ─┬─→ world (policies, memory, namespaces, …) ─┐
//! live cluster ─→ world::load ────────┤   registration (what is sent), schemas ────┤
//!                                     └─→ proposal (one write) ──→ judge ←─────────┘
//!                                                                   │ taskgate_webhook::judge, the server's own
//!                                                                   ▼
//!                                                               judgement
//! ```
//!
//! There is no second decision: [`World`] is another [`taskgate_webhook::ClusterContext`], and the server's own way from a
//! review to a verdict runs over it. What is modelled here is the API server around it ([`judge`], [`registration`],
//! [`schema`]), and the end-to-end suite `offline` holds it against the real one.
//!
//! Depends on `taskgate-webhook`, `taskgate-policy` and `taskgate-api`. Called by the binary. It reads files and, where
//! asked to, the API server; it writes nothing but the cases that [`case`] updates.

pub mod case;
pub mod diff;
pub mod documents;
pub mod expression;
pub mod judge;
pub mod judgement;
pub mod proposal;
pub mod registration;
pub mod schema;
pub mod world;

pub use documents::{Document, Documents, Place, Unreadable};
pub use judge::Judge;
pub use judgement::{Judgement, Verdict};
pub use proposal::{Defaults, Proposal};
pub use registration::Registration;
pub use schema::Schemas;
pub use world::{Knowledge, World};
