//! The list-and-watch loop that fills a store.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use taskgate_certs::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::store::{KindStore, WatchFailure, key};

/// How many objects a page of a list holds.
const PAGE: u32 = 500;

/// Keeps `store` equal to the objects of `api`, trimmed by `trim` as they arrive, until `shutdown`. `changed` is called after
/// every visible change and returns whether to list again.
///
/// After any error it lists again with a backoff, also for a kind that is not installed. (A watch that is merely resumed
/// delivers nothing until the next change, so that it would not show whether it works.)
pub(super) async fn follow<K, V>(
    api: Api<K>,
    store: &KindStore<V>,
    trim: impl Fn(K) -> Option<V>,
    changed: impl Fn() -> bool,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: Clone,
{
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let error = tokio::select! {
            () = shutdown.cancelled() => return,
            end = list_and_watch(api.clone(), store, &trim, &changed, &mut backoff) => match end {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        if store.fail(failure_of(&error), &error) {
            changed();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(backoff.delay()) => {}
        }
    }
}

/// Lists and watches until an error, or until `changed` asks for another list.
async fn list_and_watch<K, V>(
    api: Api<K>,
    store: &KindStore<V>,
    trim: &impl Fn(K) -> Option<V>,
    changed: &impl Fn() -> bool,
    backoff: &mut Backoff,
) -> watcher::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: Clone,
{
    let mut events = pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
    while let Some(event) = events.next().await {
        match event? {
            Event::Init => store.begin(),
            Event::InitApply(object) => store.stage(&key_of(&object), trim(object)),
            Event::InitDone => {
                backoff.reset();
                store.commit();
                if changed() {
                    return Ok(());
                }
            }
            Event::Apply(object) => {
                store.apply(&key_of(&object), trim(object));
                if changed() {
                    return Ok(());
                }
            }
            Event::Delete(object) => {
                store.remove(&key_of(&object));
                if changed() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn key_of<K: Resource>(object: &K) -> String {
    let metadata = object.meta();
    key(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

fn failure_of(error: &watcher::Error) -> WatchFailure {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 404 =>
        {
            WatchFailure::NotInstalled
        }
        _ => WatchFailure::Other,
    }
}
