//! Exactly-once accounting and limits among crashes, and how little is written for them. The tests play Kelos and its spawners,
//! so that they know how every Task ended.

#[path = "faults/absent.rs"]
mod absent;
#[path = "faults/accounting.rs"]
mod accounting;
#[path = "faults/chaos.rs"]
mod chaos;
#[path = "faults/item.rs"]
mod item;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/support.rs"]
mod support;
#[path = "faults/writes.rs"]
mod writes;
