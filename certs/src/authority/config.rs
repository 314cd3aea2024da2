//! What an authority is told.

use jiff::Timestamp;

use crate::{Lifetimes, San};

/// Where the authority lives, and the names it certifies.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The name of the Secret.
    pub secret: String,
    /// The names that the API server and others dial, the API server's first.
    pub names: Vec<San>,
    /// Labels that a new Secret gets.
    pub labels: Vec<(String, String)>,
    /// How long what is issued lives.
    pub lifetimes: Lifetimes,
    /// The wall clock: [`Timestamp::now`], but for tests that let it jump.
    pub clock: fn() -> Timestamp,
}
