//! The one loop behind every cache.

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

use super::table::{Table, Trouble, key};

/// How many objects a page of a list holds.
const PAGE: u32 = 500;

/// Keeps `table` equal to what `api` holds, reduced by `trim` as it arrives, until `shutdown`. `changed` is called after
/// every change that others may see; it says whether to list anew.
///
/// Whatever goes wrong, it lists anew after a growing delay, and so does it look for a kind that is not installed. (A
/// watch that is merely resumed says nothing until the next change: nobody could tell whether it works.)
pub(super) async fn follow<K, V>(
    api: Api<K>,
    table: &Table<V>,
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
            end = pass(api.clone(), table, &trim, &changed, &mut backoff) => match end {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        if table.trouble(trouble(&error), &error) {
            changed();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(backoff.delay()) => {}
        }
    }
}

/// Lists and watches until something goes wrong.
async fn pass<K, V>(
    api: Api<K>,
    table: &Table<V>,
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
            Event::Init => table.begin(),
            Event::InitApply(object) => table.stage(&key_of(&object), trim(object)),
            Event::InitDone => {
                backoff.reset();
                table.commit();
                if changed() {
                    return Ok(());
                }
            }
            Event::Apply(object) => {
                table.apply(&key_of(&object), trim(object));
                if changed() {
                    return Ok(());
                }
            }
            Event::Delete(object) => {
                table.remove(&key_of(&object));
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

fn trouble(error: &watcher::Error) -> Trouble {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 404 =>
        {
            Trouble::NotInstalled
        }
        _ => Trouble::Other,
    }
}
