//! Watching one object by name.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{Error, watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::Backoff;

/// What becomes of the object called `name`: `None` while there is none. Never ends.
///
/// After an error it waits and reads the object anew, so that a message tells when things are well again; a watch that is
/// merely resumed says nothing until the next change.
pub(crate) fn watched<K>(api: Api<K>, name: &str) -> impl Stream<Item = Result<Option<K>, Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    type Events<K> = BoxStream<'static, Result<Option<K>, Error>>;
    let open = move |api: &Api<K>, name: &str| -> Events<K> { watch_object(api.clone(), name).boxed() };
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
