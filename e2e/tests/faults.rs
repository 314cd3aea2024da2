//! What crashes may not change: exactly-once accounting and its limits, and how little is written for them. The driver
//! plays Kelos and its spawners itself, so that it knows of every Task what became of it.

#[path = "faults/accounting.rs"]
mod accounting;
#[path = "faults/chaos.rs"]
mod chaos;
#[path = "faults/item.rs"]
mod item;
#[path = "faults/world.rs"]
mod world;
#[path = "faults/writes.rs"]
mod writes;
