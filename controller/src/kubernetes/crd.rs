//! Whether another project's kinds are installed. Their CRD is watched by name, so that the controller starts to follow them when
//! they are installed and stops when they are removed, without polling.

use std::{future::pending, pin::pin, time::Duration};

use futures::{Stream, StreamExt as _};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher, watcher::watch_object},
};
use taskgate_cache::served_version;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Between two checks whether a CRD that exists is served by now.
const SERVED: Duration = Duration::from_secs(1);
/// Between two checks after [`CHECKS`] of them.
const NOT_SERVED: Duration = Duration::from_secs(15);
/// After how many checks a warning is logged.
const CHECKS: u32 = 10;

/// Only the metadata of a CRD is watched: its schema is large.
type Crd = PartialObjectMeta<CustomResourceDefinition>;

/// The state of a CRD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CrdState {
    /// Not listed yet.
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists, in this generation. Another generation may serve other versions.
    Generation(i64),
}

/// Runs the future of `present` while the CRD `name` exists, anew for each generation of it, and calls `absent` whenever it
/// does not exist. Never ends.
///
/// RBAC: `list` and `watch` on customresourcedefinitions (of the one name).
pub(crate) async fn while_installed<Present>(
    client: &Client,
    name: &str,
    absent: impl Fn(),
    present: impl Fn() -> Present,
) where
    Present: Future<Output = ()>,
{
    let crds = Api::<Crd>::all(client.clone());
    let mut found = pin!(watch_object(crds, name).default_backoff());
    let mut state = CrdState::Unknown;
    loop {
        let doing = async {
            match state {
                CrdState::Unknown => {}
                CrdState::Absent => absent(),
                // Should it end by itself, it begins anew.
                CrdState::Generation(_) => return present().await,
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = doing => {}
            changed = next_state(&mut found, state) => match changed {
                Some(changed) => state = changed,
                None => return,
            },
        }
    }
}

/// The next state after `before`; `None` when the watch ends.
async fn next_state(
    found: &mut (impl Stream<Item = watcher::Result<Option<Crd>>> + Unpin),
    before: CrdState,
) -> Option<CrdState> {
    loop {
        let state = match found.next().await? {
            Ok(Some(crd)) => CrdState::Generation(crd.metadata.generation.unwrap_or_default()),
            Ok(None) => CrdState::Absent,
            Err(error) => {
                debug!(%error, "the watch of a CRD is interrupted");
                continue;
            }
        };
        if state != before {
            return Some(state);
        }
    }
}

/// The first of `versions` that `group` is served in; waits until one is.
pub(crate) async fn served(client: &Client, group: &str, versions: &[&'static str]) -> &'static str {
    let mut checks = 0;
    loop {
        if let Ok(Some(version)) = served_version(client, group, versions).await {
            return version;
        }
        checks += 1;
        if checks == CHECKS {
            warn!(group, ?versions, "none of the versions that are understood is served");
        }
        sleep(if checks < CHECKS { SERVED } else { NOT_SERVED }).await;
    }
}
