//! The sources of certificates: the self-signed authority in a Secret, and certificates that another component provides.
//!
//! Imports `resolver`, `renewal`, `issue` and the certificate types. Called by the binary, which runs one source; `inject` also
//! watches objects by [`watch_by_name`].

mod authority;
mod provided;

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{Error, watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use authority::{Authority, AuthorityConfig, AuthorityError};
pub use provided::{ProvidedCertificateError, ProvidedFiles, ProvidedSecret};

use crate::{backoff::Backoff, resolver::Resolver};

/// Provides certificates until the process ends.
///
/// An implementation offers only certificates that may be served ([`Resolver::offer`]), reports problems
/// ([`Resolver::report_problem`]), and does not end before `shutdown`, whatever fails.
pub trait CertificateSource: Send {
    /// Runs until `shutdown`.
    fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// A stream of the object `name`: `None` while it does not exist. Never ends.
///
/// After an error it waits and reads the object again, so that an event shows the recovery; a watch that is merely resumed
/// delivers nothing until the next change.
pub(crate) fn watch_by_name<K>(api: Api<K>, name: &str) -> impl Stream<Item = Result<Option<K>, Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    type ObjectEvents<K> = BoxStream<'static, Result<Option<K>, Error>>;
    let open = move |api: &Api<K>, name: &str| -> ObjectEvents<K> { watch_object(api.clone(), name).boxed() };
    let events = open(&api, name);
    let state = (api, name.to_owned(), events, Backoff::default(), false);
    stream::unfold(state, move |(api, name, mut events, mut backoff, failed)| async move {
        if failed {
            sleep(backoff.delay()).await;
            events = open(&api, &name);
        }
        let event = events.next().await?;
        let failed = event.is_err();
        if !failed {
            backoff.reset();
        }
        Some((event, (api, name, events, backoff, failed)))
    })
}
