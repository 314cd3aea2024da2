//! Disables taskgate, and enables it again.
//!
//! While the `ConfigMap` exists, the leader turns off all of taskgate's webhooks, also those that are installed meanwhile, and the
//! controller only removes finalizers. When the `ConfigMap` is deleted or has expired, everything runs as before.

use std::{collections::BTreeMap, future::pending, time::Duration};

use futures::{StreamExt as _, future::join3};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::ConfigMap,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt as _, watcher, watcher::watch_object},
};
use taskgate_api::switch::{CONFIG_MAP, Disabled, MANAGER, patch, webhooks};
use taskgate_cache::Clock;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::LeaderMetrics;
use crate::{
    error::is_forbidden,
    kubernetes::{json_of, settled},
};

/// Until a failed step is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often the expiry is compared with the clock.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Whether taskgate is enabled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SwitchState {
    /// The `ConfigMap` was not read yet.
    Unknown,
    /// `expired`: the `ConfigMap` that has expired. Only this version may be deleted: a user who disables taskgate again writes the
    /// same `ConfigMap`.
    Enabled {
        expired: Option<Preconditions>,
    },
    Disabled,
}

impl SwitchState {
    fn of(found: Option<&ConfigMap>, now: Timestamp) -> Self {
        let Some(map) = found else {
            return Self::Enabled { expired: None };
        };
        let (disabled, _) = Disabled::read(map.data.as_ref().unwrap_or(&BTreeMap::new()));
        if disabled.until.is_some_and(|until| until <= now) {
            Self::Enabled {
                expired: Some(Preconditions {
                    uid: map.uid(),
                    resource_version: map.resource_version(),
                }),
            }
        } else {
            Self::Disabled
        }
    }
}

/// Both webhook configurations, with their kinds.
pub fn configurations(client: &Client) -> [(ApiResource, Api<DynamicObject>); 2] {
    [
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
    ]
    .map(|kind| (kind.clone(), Api::all_with(client.clone(), &kind)))
}

/// Turns all webhooks of `found` off, or on again. Nothing else of it changes; with `dry_run` nothing at all.
///
/// RBAC: `patch` on the configuration.
pub async fn turn(
    kind: &ApiResource,
    api: &Api<DynamicObject>,
    found: &DynamicObject,
    off: bool,
    dry_run: bool,
) -> kube::Result<DynamicObject> {
    let name = found.name_any();
    let json = json_of(found);
    let names = webhooks(&json).filter(|_| off).map(|(webhook, _)| webhook);
    let mut patch = patch(&kind.kind, &name, names);
    // Of exactly this object: an apply must not bring back one that was deleted meanwhile.
    patch["metadata"]["uid"] = found.uid().into();
    let params = PatchParams {
        dry_run,
        ..PatchParams::apply(MANAGER).force()
    };
    api.patch(&name, &params, &Patch::Apply(patch)).await
}

/// Watches the `ConfigMap`. Never ends.
///
/// RBAC: `list`, `watch` on the `ConfigMap` by resource name. Without it taskgate is enabled, and logs what is missing.
pub(crate) async fn follow(
    client: &Client,
    namespace: &str,
    clock: &Clock,
    metrics: &LeaderMetrics,
    state: &watch::Sender<SwitchState>,
) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let mut events = watch_object(maps, CONFIG_MAP).default_backoff().boxed();
    let mut seen: Option<Option<ConfigMap>> = None;
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(found) => {
                    log(found.as_ref());
                    seen = Some(found);
                }
                Err(error) if is_denied(&error) => {
                    if seen.is_none() {
                        warn!(
                            "taskgate cannot be disabled by a ConfigMap: its service account lacks list and watch on \
                             configmaps called {CONFIG_MAP} in {namespace}"
                        );
                        seen = Some(None);
                    }
                }
                Err(error) => debug!(%error, "the watch of the ConfigMap {CONFIG_MAP} is interrupted"),
            },
            () = sleep(CHECK_EVERY), if matches!(seen, Some(Some(_))) => {}
        }
        if let Some(found) = &seen {
            let now = SwitchState::of(found.as_ref(), clock.now());
            metrics.set_disabled(now == SwitchState::Disabled);
            if *state.borrow() != now {
                state.send_replace(now);
            }
        }
    }
}

fn log(found: Option<&ConfigMap>) {
    let Some(map) = found else { return };
    let (disabled, problem) = Disabled::read(map.data.as_ref().unwrap_or(&BTreeMap::new()));
    let until = disabled.until.map(|until| until.to_string());
    info!(
        reason = disabled.reason,
        by = disabled.by,
        until,
        "taskgate is disabled"
    );
    if let Some(problem) = problem {
        warn!(
            problem,
            "the ConfigMap {CONFIG_MAP} does not say when taskgate is to be enabled again"
        );
    }
}

/// Turns the webhooks of both configurations on or off, and deletes a `ConfigMap` that has expired. Never ends.
pub(crate) async fn reconcile_webhooks(
    client: &Client,
    namespace: &str,
    name: &str,
    state: &watch::Receiver<SwitchState>,
) {
    let [mutating, validating] = configurations(client).map(|(kind, api)| reconcile(kind, api, name, state.clone()));
    join3(mutating, validating, delete_expired(client, namespace, state.clone())).await;
}

async fn reconcile(kind: ApiResource, api: Api<DynamicObject>, name: &str, mut state: watch::Receiver<SwitchState>) {
    let mut events = watch_object(api.clone(), name).default_backoff().boxed();
    let mut seen: Option<DynamicObject> = None;
    let mut failed = false;
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(found) => seen = found,
                Err(error) => debug!(%error, "the watch of a webhook configuration is interrupted"),
            },
            Ok(()) = state.changed() => {}
            () = sleep(RETRY), if failed => {}
        }
        let off = match &*state.borrow_and_update() {
            SwitchState::Unknown => continue,
            SwitchState::Enabled { .. } => false,
            SwitchState::Disabled => true,
        };
        failed = false;
        let Some(found) = seen
            .as_ref()
            .filter(|found| webhooks(&json_of(found)).any(|(_, is)| is != off))
        else {
            continue;
        };
        match settled(turn(&kind, &api, found, off, false).await) {
            Ok(None) => {}
            Ok(Some(turned)) => {
                info!(kind = kind.kind, name, off, "turned the webhooks on or off");
                seen = Some(turned);
            }
            Err(error) => {
                warn!(%error, kind = kind.kind, name, off, "the webhooks cannot be turned on or off; tried again soon");
                failed = true;
            }
        }
    }
}

async fn delete_expired(client: &Client, namespace: &str, mut state: watch::Receiver<SwitchState>) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    loop {
        let SwitchState::Enabled { expired: Some(expired) } = state.borrow_and_update().clone() else {
            if state.changed().await.is_err() {
                return pending().await;
            }
            continue;
        };
        let params = DeleteParams::default().preconditions(expired);
        match settled(maps.delete(CONFIG_MAP, &params).await) {
            Ok(None) => {}
            Ok(Some(_)) => info!("taskgate is enabled again: the ConfigMap has expired"),
            Err(error) => warn!(%error, "the ConfigMap {CONFIG_MAP} cannot be deleted; tried again soon"),
        }
        sleep(RETRY).await;
    }
}

fn is_denied(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => is_forbidden(error),
        watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    #[test]
    fn the_switch_is_on_until_it_expires() {
        let seen = Preconditions {
            uid: Some("u".to_owned()),
            resource_version: Some("7".to_owned()),
        };
        let map = |until: Option<&str>| ConfigMap {
            metadata: ObjectMeta {
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
                ..ObjectMeta::default()
            },
            data: until.map(|until| [("until".to_owned(), until.to_owned())].into()),
            ..ConfigMap::default()
        };
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let state = |map: Option<ConfigMap>| SwitchState::of(map.as_ref(), now);
        assert_eq!(state(None), SwitchState::Enabled { expired: None });
        assert_eq!(state(Some(map(None))), SwitchState::Disabled);
        assert_eq!(state(Some(map(Some("soon")))), SwitchState::Disabled);
        assert_eq!(state(Some(map(Some("2026-01-31T12:00:01Z")))), SwitchState::Disabled);
        assert_eq!(
            state(Some(map(Some("2026-01-31T12:00:00Z")))),
            SwitchState::Enabled {
                expired: Some(seen.clone())
            }
        );
    }
}
