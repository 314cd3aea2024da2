//! The fields of the proposals on Kelos' own kinds: extending Kelos' CRDs, keeping the fields through Kelos' writes, and what they do.

#[path = "native/failed_items.rs"]
mod failed_items;
#[path = "native/policies.rs"]
mod policies;
#[path = "native/preservation.rs"]
mod preservation;
#[path = "native/proposals.rs"]
mod proposals;
#[path = "native/schema.rs"]
mod schema;
#[path = "native/support.rs"]
mod support;
#[path = "native/tasks.rs"]
mod tasks;
