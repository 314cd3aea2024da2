//! A cache fed by watches, as client-go's informers: reads from it may be stale (kelos S29), and each
//! change tells the old object beside the new one, which Kelos' wake-up rules need (kelos S9).

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::core::Resource;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key of its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        Self { namespace, name }
    }

    /// The key of an object.
    pub fn of<K: ResourceExt>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which namespaces are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All, as Kelos' controller does.
    #[default]
    Cluster,
    /// Only these: so that many stand-ins share one API server.
    Namespaces(Vec<String>),
}

impl Scope {
    /// One API handle per watch.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => vec![Api::all(client.clone())],
            Self::Namespaces(names) => names.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
        }
    }
}

/// One change: created has no `old`, deleted has no `new`.
#[derive(Debug)]
pub struct Change<K> {
    /// Before.
    pub old: Option<Arc<K>>,
    /// After.
    pub new: Option<Arc<K>>,
}

impl<K: ResourceExt> Change<K> {
    /// The object after the change, or the last one seen.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Cache<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    pending: signal::Sender<usize>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + fmt::Debug
        + Send
        + Sync
        + 'static,
{
    /// Starts the watches in `tasks`. `on_change` runs after the cache holds the change.
    pub fn start(
        client: &Client,
        scope: &Scope,
        config: &watcher::Config,
        tasks: &mut JoinSet<()>,
        on_change: impl Fn(&Cache<K>, &Change<K>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let apis = scope.apis::<K>(client);
        let cache = Arc::new(Self {
            objects: RwLock::default(),
            pending: signal::Sender::new(apis.len()),
        });
        let on_change = Arc::new(on_change);
        for api in apis {
            let (cache, on_change) = (cache.clone(), on_change.clone());
            let stream = watch(api, config.clone()).default_backoff();
            tasks.spawn(async move { cache.follow(stream, &*on_change).await });
        }
        cache
    }

    /// Waits until every watch has delivered its first list.
    pub async fn synced(&self) {
        let mut pending = self.pending.subscribe();
        let done = pending.wait_for(|pending| *pending == 0).await;
        debug_assert!(done.is_ok(), "the cache owns the sender");
    }

    /// The object, as last seen.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        let objects = self.objects.read();
        objects.unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects
            .iter()
            .filter(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The namespaces that have any.
    pub fn namespaces(&self) -> Vec<String> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<&String> = objects.keys().map(|key| &key.namespace).collect();
        names.into_iter().cloned().collect()
    }

    async fn follow(
        &self,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
        on_change: &(dyn Fn(&Cache<K>, &Change<K>) + Send + Sync),
    ) {
        let mut stream = std::pin::pin!(stream.into_stream());
        let mut first = true;
        let mut listed: BTreeSet<Key> = BTreeSet::new();
        let mut known: BTreeSet<Key> = BTreeSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(Key::of(&object));
                    self.apply(object, on_change);
                }
                Ok(Event::InitDone) => {
                    for gone in known.difference(&listed) {
                        self.remove(gone, on_change);
                    }
                    known.clone_from(&listed);
                    if std::mem::take(&mut first) {
                        self.pending.send_modify(|pending| *pending -= 1);
                    }
                }
                Ok(Event::Apply(object)) => {
                    known.insert(Key::of(&object));
                    self.apply(object, on_change);
                }
                Ok(Event::Delete(object)) => {
                    let key = Key::of(&object);
                    known.remove(&key);
                    self.remove(&key, on_change);
                }
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted");
                }
            }
        }
    }

    fn apply(&self, object: K, on_change: &(dyn Fn(&Cache<K>, &Change<K>) + Send + Sync)) {
        let new = Arc::new(object);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let old = objects.insert(Key::of(&*new), new.clone());
        drop(objects);
        let new = Some(new);
        on_change(self, &Change { old, new });
    }

    fn remove(&self, key: &Key, on_change: &(dyn Fn(&Cache<K>, &Change<K>) + Send + Sync)) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let old = objects.remove(key);
        drop(objects);
        if old.is_some() {
            on_change(self, &Change { old, new: None });
        }
    }
}
