//! What commands read of a cluster, or of files, to tell people about it, and what follows from it: which policies govern a Task, and
//! where the Task stands.

mod items;
mod kinds;
mod policies;
mod read;
mod standing;

pub(super) use self::{
    items::{is_open, items},
    kinds::{Kind, Reach, Read, STATUS, Snapshot, Trouble, json},
    policies::{Policies, Written},
    read::{namespaces, read},
    standing::{Standing, State},
};
