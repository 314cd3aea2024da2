//! Reads a snapshot from the API server.

use std::cell::Cell;

use anyhow::Result;
use futures::future::join_all;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};

use super::{ApiGroups, Collection, ReadError, ReadResult, Snapshot, json};
use crate::{
    cluster::{Connection, ResourceType},
    output::ProgressLine,
};

/// Reads collections of one namespace, or of all.
pub(in crate::commands) struct SnapshotReader {
    connection: Connection,
    all_namespaces: bool,
    pub(in crate::commands) groups: Result<ApiGroups, ReadError>,
}

/// A collection and the request that reads it.
pub(in crate::commands) struct CollectionQuery {
    collection: Collection,
    namespace: Option<String>,
    request: QueryRequest,
}

enum QueryRequest {
    Get(String),
    List(ListParams),
}

impl CollectionQuery {
    /// One object.
    pub(in crate::commands) fn get(collection: Collection, namespace: Option<&str>, name: &str) -> Self {
        Self {
            collection,
            namespace: namespace.map(ToOwned::to_owned),
            request: QueryRequest::Get(name.to_owned()),
        }
    }

    /// The objects in `namespace`, or everywhere.
    pub(in crate::commands) fn list(collection: Collection, namespace: Option<&str>, params: ListParams) -> Self {
        Self {
            collection,
            namespace: namespace.map(ToOwned::to_owned),
            request: QueryRequest::List(params),
        }
    }
}

impl SnapshotReader {
    /// Reads the API groups. Errors when the API server does not answer.
    pub(in crate::commands) async fn discover(connection: Connection, all_namespaces: bool) -> Result<Self> {
        let progress = ProgressLine::new("asking the API server");
        let found = progress.during(connection.client.list_api_groups(), || (0, 1)).await;
        let groups = match found.map_err(ReadError::from) {
            Ok(found) => Ok(found.groups.into_iter().map(|group| {
                let versions = group.versions.into_iter().map(|version| version.version);
                (group.name, versions.collect())
            })),
            Err(ReadError::Unreachable(message)) => anyhow::bail!("{message}"),
            // A user without that right may still read objects.
            Err(error) => Err(error),
        };
        Ok(Self {
            connection,
            all_namespaces,
            groups: groups.map(Iterator::collect),
        })
    }

    /// The namespace; `None` for all.
    pub(in crate::commands) fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.connection.namespace.as_str())
    }

    /// The objects of `collection` in the reader's namespace.
    pub(in crate::commands) fn api(&self, collection: Collection) -> Api<DynamicObject> {
        self.api_in(collection, self.namespace().filter(|_| collection.is_namespaced()))
    }

    /// The objects of `collection` in `namespace`, or everywhere.
    pub(in crate::commands) fn api_in(&self, collection: Collection, namespace: Option<&str>) -> Api<DynamicObject> {
        self.connection.api(self.resource(collection), namespace)
    }

    /// The resource type of `collection`, in the version that the API server serves.
    pub(in crate::commands) fn resource(&self, collection: Collection) -> ResourceType {
        let groups = self.groups.as_ref().ok();
        collection.resource(groups.unwrap_or(&ApiGroups::new()))
    }

    /// The query for all of `collection` in the reader's namespace.
    pub(in crate::commands) fn query(&self, collection: Collection) -> CollectionQuery {
        match self.namespace() {
            // A user of one namespace may usually get it, but not list all.
            Some(namespace) if collection == Collection::Namespaces => {
                CollectionQuery::get(collection, None, namespace)
            }
            namespace => {
                let namespace = namespace.filter(|_| collection.is_namespaced());
                CollectionQuery::list(collection, namespace, ListParams::default())
            }
        }
    }

    /// Sends all queries concurrently. Errors are in the snapshot.
    pub(in crate::commands) async fn read(&self, queries: impl IntoIterator<Item = CollectionQuery>) -> Snapshot {
        let done = Cell::new(0);
        let reads: Vec<_> = queries
            .into_iter()
            .map(async |query| {
                let result = self.send(&query).await;
                done.set(done.get() + 1);
                (query.collection, result)
            })
            .collect();
        let total = reads.len();
        let progress = ProgressLine::new("reading the cluster");
        let mut snapshot = Snapshot::default();
        for (collection, result) in progress.during(join_all(reads), || (done.get(), total)).await {
            let objects: ReadResult = result.map(|(objects, is_partial)| {
                if is_partial {
                    snapshot.partial.insert(collection);
                }
                objects.iter().map(json).collect()
            });
            snapshot.put(collection, objects);
        }
        snapshot
    }

    /// The objects, and whether there are more.
    async fn send(&self, query: &CollectionQuery) -> Result<(Vec<DynamicObject>, bool), ReadError> {
        let api = self.api_in(query.collection, query.namespace.as_deref());
        match &query.request {
            QueryRequest::Get(name) => Ok((vec![api.get(name).await?], false)),
            QueryRequest::List(params) => {
                let list = api.list(params).await?;
                let more = list.metadata.continue_.is_some_and(|token| !token.is_empty());
                Ok((list.items, more))
            }
        }
    }
}
