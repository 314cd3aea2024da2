//! Whether somebody else's kinds are installed: their CRD is watched, by name, so that they are picked up when they come and
//! let go of when they go, without asking in between.

use std::{future::pending, pin::pin, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

/// Between two looks whether a CRD that is there is served by now.
const SERVED: Duration = Duration::from_secs(1);
/// Between two looks once it has become clear that it is not.
const NOT_SERVED: Duration = Duration::from_secs(15);
/// After how many looks that is clear.
const LOOKS: u32 = 10;

/// Whether a CRD is there, and which generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crd {
    /// It is being found out.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there. With another generation, other versions may be served.
    Generation(i64),
}

/// Follows what the CRD `name` stands for, for ever. `absent` is called whenever it is not there, and what `present` gives is
/// run while it is, anew for each generation of it.
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
    let (installed, mut seen) = watch::channel(Crd::Unknown);
    let keeping = async {
        loop {
            let now = *seen.borrow_and_update();
            let doing = async {
                match now {
                    Crd::Unknown => {}
                    Crd::Absent => absent(),
                    // Should it end by itself, it begins anew.
                    Crd::Generation(_) => return present().await,
                }
                pending::<()>().await;
            };
            tokio::select! {
                () = doing => {}
                changed = seen.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::join!(keeping, follow(client, name, installed));
}

/// Tells whether the CRD `name` is there, and which generation of it.
async fn follow(client: &Client, name: &str, installed: watch::Sender<Crd>) {
    let crds = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
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
                debug!(%error, name, "the watch of a CRD is interrupted");
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

/// The first of `versions` that `group` is served in; waits until one is.
pub(crate) async fn served(client: &Client, group: &str, versions: &[&'static str]) -> &'static str {
    let mut looks = 0;
    loop {
        if let Ok(groups) = client.list_api_groups().await {
            let found = groups.groups.into_iter().find(|found| found.name == group);
            let served = found.map(|found| found.versions).unwrap_or_default();
            let known = versions
                .iter()
                .find(|known| served.iter().any(|version| version.version == **known));
            if let Some(version) = known {
                return version;
            }
        }
        looks += 1;
        if looks == LOOKS {
            warn!(group, ?versions, "none of the versions that are understood is served");
        }
        sleep(if looks < LOOKS { SERVED } else { NOT_SERVED }).await;
    }
}
