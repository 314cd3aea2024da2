//! taskgate's serving certificate: where it comes from, how it is served, and how the API server learns to trust it.
//!
//! ```text
//! Source: Authority (one Secret, through the API)  ─→ Resolver ─→ rustls, one ServerConfig for life
//!         GivenSecret, GivenFiles (cert-manager)   ─┘    │ ↑ what the API server trusts (trust)
//!                                                        └─ CaBundle ─→ Injector ─→ webhook configurations
//! ```
//!
//! A [`Source`] brings certificates and offers each good one to the [`Resolver`], which serves the last good one whatever
//! happens, goes over to a new one when the API server is known to trust it, and tells its [`Health`]. [`Authority`] is the
//! source for clusters without cert-manager; then the [`Injector`] writes its certificate into the webhook configurations. With
//! the others it only looks at them. What makes a certificate unfit is one pure function of the Secret and the time:
//! [`needs_new()`] where it is ours to replace, [`unfit()`] where it is not.
//!
//! [`ClientAuthority`] is the other direction: whose certificates a client may show.
//!
//! [`Chain`] looks at a certificate from outside, without its key.
//!
//! Depends on no other crate of the workspace. Called by `taskgate-webhook`, which serves with the resolver, and by the
//! binary, which wires the parts.

mod authority;
mod backoff;
mod bundle;
mod chain;
mod client_authority;
mod given;
mod inject;
mod issue;
mod material;
mod needs_new;
mod resolver;
mod san;
mod secret;
mod served;
mod source;
mod trust;
mod watched;
mod x509;

pub use authority::{Authority, AuthorityConfig};
pub use backoff::Backoff;
pub use bundle::{BundleError, CaBundle};
pub use client_authority::{ClientAuthority, ClientAuthorityError};
pub use given::{GivenError, GivenFiles, GivenSecret};
pub use inject::{Caretaker, Injection, InjectionState, Injector, MANAGER, Target};
pub use issue::{IssueError, Lifetimes, issue_all, issue_leaf};
pub use material::{Material, MaterialError};
pub use needs_new::{Reason, Scope, needs_new, unfit};
pub use resolver::{Health, Resolver};
pub use san::{InvalidSan, San};
pub use secret::{CA_CRT, CA_KEY, SecretData, TLS_CRT, TLS_KEY};
pub use served::{Chain, Validity};
pub use source::Source;
