//! Whether Kueue is installed, and which version of it is served: its CRD is watched, by name.

use std::{pin::pin, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use taskgate_api::kueue::{GROUP, VERSIONS, WORKLOADS};
use tokio::{sync::watch, time::sleep};
use tracing::debug;

/// Between two looks whether a CRD that is there is served by now.
const SERVED: Duration = Duration::from_secs(1);

/// Whether Kueue's CRD is there, and which generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crd {
    Unknown,
    Absent,
    Generation(i64),
}

/// Tells whether Kueue's CRD is there, and which generation of it: with another one, other versions may be served.
pub(super) async fn follow_crd(client: &Client, installed: watch::Sender<Crd>) {
    let crds = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={WORKLOADS}.{GROUP}"));
    let mut events = pin!(watcher(crds, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Event::Init) => {
                listed = None;
                continue;
            }
            Ok(Event::InitApply(crd)) => {
                listed = Some(crd.metadata.generation.unwrap_or_default());
                continue;
            }
            Ok(Event::InitDone) => listed,
            Ok(Event::Apply(crd)) => Some(crd.metadata.generation.unwrap_or_default()),
            Ok(Event::Delete(_)) => None,
            Err(error) => {
                debug!(%error, "the watch of Kueue's CRD is interrupted");
                continue;
            }
        };
        installed.send_if_modified(|known| {
            let now = now.map_or(Crd::Absent, Crd::Generation);
            let news = *known != now;
            *known = now;
            news
        });
    }
}

/// The version of Kueue's kinds to read; waits until one is served.
pub(super) async fn served(client: &Client) -> &'static str {
    loop {
        if let Ok(groups) = client.list_api_groups().await {
            let group = groups.groups.into_iter().find(|group| group.name == GROUP);
            let served = group.map(|group| group.versions).unwrap_or_default();
            let known = VERSIONS
                .into_iter()
                .find(|known| served.iter().any(|version| version.version == *known));
            if let Some(version) = known {
                return version;
            }
        }
        sleep(SERVED).await;
    }
}
