//! What a tracker says of an item, and what follows from it (seeds 000, 001, 004). No IO: the controller asks, this judges.
//!
//! [`Interests`] are the items to be asked about, [`Source`] says where a spawner's items live and which of them it sees,
//! [`github`] reads the answers, and [`judge`] holds an answer against the memory of the item.

mod change;
mod filter;
pub mod github;
mod interest;
mod item;
mod pause;
mod place;

pub use change::{Presence, SourceVerdict, judge};
pub use filter::Filter;
pub use interest::{Interest, Interests, Known, SourceKey, add_memory, add_task};
pub use item::{Comment, SourceItem};
pub use pause::{RateHeaders, backoff, pause};
pub use place::{Endpoint, Repository, Source, Unsupported, ghproxy_service};
