//! The list-and-watch loop that fills a store.

use std::{
    fmt::Debug,
    future::{Ready, ready},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, WatchEvent, WatchParams},
    core::Request,
};
use serde::{Deserialize, de::DeserializeOwned};
use taskgate_api::kelos;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::served_version,
    store::{NamespacedName, Store},
};

/// How many objects a page of a list has, where the API server does not stream lists.
const PAGE: u32 = 500;
/// The API server ends a watch after this time, in seconds.
const WATCH_SECONDS: u32 = 290;
/// A watch without an event for this time is dead: the API server would have ended it, and sends a bookmark every minute.
const DEAD_AFTER: Duration = Duration::from_secs(295);
/// The annotation of the bookmark that completes a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
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
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::NotInstalled,
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
///
/// The list is a watch that begins with all objects, of no version: the API server sends them one by one from its memory, once that
/// is as new as the storage. So a list is never older than the last one, also from another API server, and needs no memory for
/// pages. (`kube::runtime::watcher` asks for version 0, which may be any.) An API server that does not stream lists is asked for
/// pages, as new, from its storage.
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
    store.begin();
    let (mut version, mut events) = list(&api, store.fields(), |object| {
        store.stage(&NamespacedName::of(&object), trim(object));
    })
    .await?;
    *listed = Some(Instant::now());
    store.commit();
    while !changed() {
        match next(&mut events).await? {
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                version = object.resource_version().unwrap_or_default();
                store.apply(NamespacedName::of(&object), trim(object));
            }
            Some(WatchEvent::Deleted(object)) => {
                version = object.resource_version().unwrap_or_default();
                store.remove(NamespacedName::of(&object));
            }
            Some(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
            Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status).into()),
            None => events = watch(&api, store.fields(), Some(&version)).await?,
        }
    }
    Ok(())
}

/// The events of a watch.
type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Passes all objects to `stage`, or those that the field selector `fields` selects. The version of the list, and the events since.
async fn list<K>(api: &Api<K>, fields: Option<&str>, stage: impl Fn(K)) -> Result<(String, Events<K>), WatchEnd>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = match watch(api, fields, None).await {
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            let version = list_pages(api, fields, stage).await?;
            let events = watch(api, fields, Some(&version)).await?;
            return Ok((version, events));
        }
        streamed => streamed?,
    };
    loop {
        match next(&mut events).await? {
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => stage(object),
            Some(WatchEvent::Bookmark(bookmark)) => {
                if bookmark.metadata.annotations.contains_key(INITIAL_EVENTS_END) {
                    return Ok((bookmark.metadata.resource_version, events));
                }
            }
            Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status).into()),
            None | Some(WatchEvent::Deleted(_)) => {
                return Err(WatchEnd::Failed("the watch ended before the list was complete".into()));
            }
        }
    }
}

/// Watches from `version` on; without one, all objects come first, and then a bookmark with [`INITIAL_EVENTS_END`]. Errors with
/// status 422 where the API server does not stream lists: its feature `WatchList` is disabled, or it is older than that.
async fn watch<K>(api: &Api<K>, fields: Option<&str>, version: Option<&str>) -> kube::Result<Events<K>>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let params = WatchParams {
        send_initial_events: version.is_none(),
        field_selector: fields.map(ToOwned::to_owned),
        ..WatchParams::default().timeout(WATCH_SECONDS)
    };
    Ok(api.watch(&params, version.unwrap_or_default()).await?.boxed())
}

/// The next event; `None` when the watch ended, or is dead.
async fn next<K>(events: &mut Events<K>) -> kube::Result<Option<WatchEvent<K>>> {
    timeout(DEAD_AFTER, events.next()).await.ok().flatten().transpose()
}

/// A page of a list. (`ObjectList` of kube reads each object into a generic value first.)
#[derive(Debug, Deserialize)]
struct Page<K> {
    metadata: ListMeta,
    items: Vec<K>,
}

/// Passes all objects to `stage`; the version of the list.
async fn list_pages<K>(api: &Api<K>, fields: Option<&str>, stage: impl Fn(K)) -> kube::Result<String>
where
    K: Resource + Clone + DeserializeOwned,
{
    let (client, request) = (api.clone().into_client(), Request::new(api.resource_url()));
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = fields.map(ToOwned::to_owned);
    loop {
        let page = request.list(&params).map_err(kube::Error::BuildRequest)?;
        let page: Page<K> = client.request(page).await?;
        page.items.into_iter().for_each(&stage);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(page.metadata.resource_version.unwrap_or_default()),
        }
    }
}
