//! The source reader (seed 000, resetOnChange): the real binary between the stand-in of Kelos and a GitHub.

#[path = "source/access.rs"]
mod access;
#[path = "source/changes.rs"]
mod changes;
#[path = "source/faults.rs"]
mod faults;
#[path = "source/world.rs"]
mod world;
