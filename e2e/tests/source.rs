//! Reading issue sources for `resetOnChange`: the real binary between the stand-in of Kelos and a GitHub.

#[path = "source/access.rs"]
mod access;
#[path = "source/changes.rs"]
mod changes;
#[path = "source/faults.rs"]
mod faults;
#[path = "source/support.rs"]
mod support;
