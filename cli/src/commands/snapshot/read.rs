//! Reading everything once.

use std::cell::Cell;

use anyhow::Result;
use futures::future::try_join_all;
use kube::api::ListParams;

use super::kinds::{Kind, Reach, Read, Snapshot, Trouble, json};
use crate::output::Progress;

/// Reads these kinds. Errors when the API server does not answer; what it refuses stands in the snapshot. Whoever waits for it
/// is told how far it is.
pub(in crate::commands) async fn read(reach: &Reach, kinds: &[Kind]) -> Result<Snapshot> {
    let done = Cell::new(0);
    let reads = kinds.iter().map(async |&kind| {
        let read = list(reach, kind).await?;
        done.set(done.get() + 1);
        Ok::<_, anyhow::Error>((kind, read))
    });
    let progress = Progress::new("reading the cluster");
    let reads = progress.during(try_join_all(reads), || (done.get(), kinds.len()));
    let mut snapshot = Snapshot::default();
    for (kind, read) in reads.await? {
        snapshot.put(kind, read);
    }
    Ok(snapshot)
}

async fn list(reach: &Reach, kind: Kind) -> Result<Read> {
    let found = match reach.namespace().filter(|_| kind == Kind::Namespaces) {
        // Whoever works in one namespace may get it, and seldom list all.
        Some(name) => reach.api(kind).get_opt(name).await.map(Vec::from_iter),
        None => reach
            .api(kind)
            .list(&ListParams::default())
            .await
            .map(|list| list.items),
    };
    match found {
        Ok(objects) => Ok(Ok(objects.iter().map(json).collect())),
        Err(error) => Trouble::of(error).map(Err),
    }
}

/// The namespaces alone.
pub(in crate::commands) async fn namespaces(reach: &Reach) -> Result<Read> {
    list(reach, Kind::Namespaces).await
}
