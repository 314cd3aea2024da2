//! The fields that taskgate adds to Kelos' kinds (`taskgate kelos-fields enable`): the leader keeps Kelos' CustomResourceDefinitions
//! extended, and restores fields of TaskSpawners that a write of Kelos dropped while admission was unavailable.
//!
//! The leader only adds. `taskgate kelos-fields disable` removes: with the setting goes the right to do so.

mod extend;
mod restore;

pub(crate) use extend::keep_extended;
pub(crate) use restore::restore_fields;
