//! The list-and-watch loop that fills a store.

use std::{
    fmt::Debug,
    future::{Ready, ready},
    pin::pin,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use taskgate_api::kelos;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::served_version,
    store::{NamespacedName, Store},
};

/// How many objects a page of a list has.
const PAGE: u32 = 500;
/// The longest time between two lists after errors.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// The delays between two lists after errors.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(LONGEST_DELAY)
    .without_max_times();

/// The API of a kind, found before each list.
type FoundApi<K> = kube::Result<Api<K>>;

/// The same API for every list.
pub(crate) fn fixed<K>(api: Api<K>) -> impl Fn() -> Ready<FoundApi<K>>
where
    Api<K>: Clone,
{
    move || ready(Ok(api.clone()))
}

/// A kind of another project, in the version that the cluster serves at the time of the list: the first of `versions` that it
/// serves. Whether it is installed, the list decides: an API server that starts may not have all groups in its discovery yet.
pub(crate) fn of_group<K>(
    client: Client,
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
) -> impl Fn() -> BoxFuture<'static, FoundApi<K>>
where
    K: Resource<DynamicType = ApiResource> + 'static,
{
    move || {
        let client = client.clone();
        async move {
            let served = served_version(&client, group, versions).await?;
            let version = served.or(versions.first().copied()).unwrap_or_default();
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            Ok(Api::all_with(client, &resource))
        }
        .boxed()
    }
}

/// A kind of Kelos.
pub(crate) fn of_kelos(
    client: Client,
    kind: &'static str,
    plural: &'static str,
) -> impl Fn() -> BoxFuture<'static, FoundApi<DynamicObject>> {
    of_group(client, kelos::GROUP, &kelos::TASK_VERSIONS, kind, plural)
}

/// Why a watch ended.
enum WatchEnd {
    /// The kind is not installed.
    NotInstalled,
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl From<kube::Error> for WatchEnd {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<watcher::Error> for WatchEnd {
    fn from(error: watcher::Error) -> Self {
        match &error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
                if status.code == 404 =>
            {
                Self::NotInstalled
            }
            _ => Self::Failed(error.into()),
        }
    }
}

/// Keeps `store` equal to the objects of the API that `find` yields, trimmed by `trim` as they arrive, until `shutdown`. `changed`
/// is called after every visible change and returns whether to list again.
///
/// After any error it lists again with a backoff, also for a kind that is not installed. (A watch that is merely resumed
/// delivers nothing until the next change, so that it would not show whether it works.)
pub(crate) async fn follow<K, T, F>(
    find: impl Fn() -> F,
    store: &Store<T>,
    trim: impl Fn(K) -> Option<T>,
    changed: impl Fn() -> bool,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: PartialEq,
    F: Future<Output = FoundApi<K>>,
{
    let mut backoff = BACKOFF.build();
    loop {
        let mut listed = None;
        let end = tokio::select! {
            () = shutdown.cancelled() => return,
            end = list_and_watch(&find, store, &trim, &changed, &mut listed) => end,
        };
        // A watch that fails right after each list must not list without end.
        if listed.is_some_and(|listed: Instant| listed.elapsed() > LONGEST_DELAY) {
            backoff = BACKOFF.build();
        }
        match end {
            Ok(()) => continue,
            Err(WatchEnd::NotInstalled) => {
                if store.uninstalled() {
                    changed();
                }
            }
            Err(WatchEnd::Failed(error)) => store.fail(&*error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(backoff.next().unwrap_or(LONGEST_DELAY)) => {}
        }
    }
}

/// Lists and watches until an error, or until `changed` asks for another list. `listed` becomes when the list was complete.
async fn list_and_watch<K, T, F>(
    find: &impl Fn() -> F,
    store: &Store<T>,
    trim: &impl Fn(K) -> Option<T>,
    changed: &impl Fn() -> bool,
    listed: &mut Option<Instant>,
) -> Result<(), WatchEnd>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: PartialEq,
    F: Future<Output = FoundApi<K>>,
{
    let api = find().await?;
    let mut config = watcher::Config::default().page_size(PAGE);
    config.field_selector = store.fields().map(ToOwned::to_owned);
    let mut events = pin!(watcher(api, config));
    while let Some(event) = events.next().await {
        match event? {
            Event::Init => {
                store.begin();
                continue;
            }
            Event::InitApply(object) => {
                store.stage(&NamespacedName::of(&object), trim(object));
                continue;
            }
            Event::InitDone => {
                *listed = Some(Instant::now());
                store.commit();
            }
            Event::Apply(object) => store.apply(NamespacedName::of(&object), trim(object)),
            Event::Delete(object) => store.remove(NamespacedName::of(&object)),
        }
        if changed() {
            return Ok(());
        }
    }
    Ok(())
}
