//! taskgate's serving certificate: where it comes from, how it is served, and how the API server learns to trust it.
//!
//! ```text
//! Source: Authority (one Secret, through the API) ─→ Resolver ─→ rustls, one ServerConfig for life
//!                                                      └─ CaBundle ─→ Injector ─→ webhook configurations
//! ```
//!
//! A [`Source`] brings certificates and hands each good one to the [`Resolver`], which serves the last good one whatever
//! happens and tells its [`Health`]. [`Authority`] is the source for clusters without cert-manager. The [`Injector`]
//! writes the authority's certificate into the webhook configurations. What makes a certificate unfit is one pure
//! function of the Secret and the time, [`needs_new()`].
//!
//! Depends on no other crate of the workspace. Called by `taskgate-webhook`, which serves with the resolver, and by the
//! binary, which wires the parts.

mod authority;
mod backoff;
mod bundle;
mod inject;
mod issue;
mod material;
mod needs_new;
mod resolver;
mod san;
mod secret;
mod source;
mod watched;

pub use authority::{Authority, AuthorityConfig};
pub use backoff::Backoff;
pub use bundle::{BundleError, CaBundle};
pub use inject::{Injection, InjectionState, Injector, MANAGER, Target};
pub use issue::{CA_LIFETIME, IssueError, LEAF_LIFETIME, issue_all, issue_leaf};
pub use material::{Material, MaterialError};
pub use needs_new::{CA_RENEW_BEFORE, Reason, Scope, needs_new};
pub use resolver::{Health, Resolver};
pub use san::{InvalidSan, San};
pub use secret::{CA_CRT, CA_KEY, SecretData, TLS_CRT, TLS_KEY};
pub use source::Source;
