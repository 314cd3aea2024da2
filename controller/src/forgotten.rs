//! Who made taskgate forget: one Event for each `WorkItem` that is deleted.
//!
//! Admission is told who asks for a deletion, and writes nothing. The replica that was told waits here, outside of
//! admission, until the WorkItem is really gone, and then says so. Where no replica was told (the webhook was away, or
//! its rule is not installed) the leader sees it go, and says so a little later without a name. The Event's name follows
//! from the WorkItem's UID, so that there is one, whoever is first.
//!
//! Nothing is said of what goes with its namespace or its spawner, makes room for another (`cap`), or is gone from its source
//! (`source`).

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{authentication::v1::SelfSubjectReview, core::v1::ObjectReference, events::v1},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use serde::Deserialize as _;
use serde_json::Value;
use taskgate_api::WorkItem;
use tokio::{
    sync::{OnceCell, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    context::Context,
    error::{is_absent, is_conflict, is_namespace_terminating},
};

/// How many deletions are remembered at the same time. Of more than that, the leader tells without a name.
const REMEMBERED: usize = 256;
/// How many of them are looked after at the same time.
const CONCURRENCY: usize = 8;
/// How long a WorkItem may take to go: somebody else's finalizer may be on it.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the leader leaves it to the replica that was told.
const GRACE: Duration = Duration::from_secs(10);

/// Takes note of who asks for a deletion. Cheap to clone, and never blocks.
#[derive(Clone, Debug)]
pub struct Deletions(mpsc::Sender<Deletion>);

/// The deletions that were noted, for [`tell_of_deletions`].
#[derive(Debug)]
pub struct Noted(mpsc::Receiver<Deletion>);

impl Deletions {
    /// Where deletions are noted, and where they come out.
    pub fn new() -> (Self, Noted) {
        let (sender, receiver) = mpsc::channel(REMEMBERED);
        (Self(sender), Noted(receiver))
    }

    /// Takes note that `user` asks for the deletion of the `WorkItem` `object`.
    pub fn note(&self, object: &Value, user: &str) {
        let Ok(item) = WorkItem::deserialize(object) else {
            debug!("a WorkItem that cannot be read is deleted");
            return;
        };
        // Full: the leader tells of it.
        if self.0.try_send(Deletion::of(&item, Some(user))).is_err() {
            debug!(
                name = item.name_any(),
                "too many deletions at once to remember who asks"
            );
        }
    }
}

/// A `WorkItem` that goes, and who asked for that.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    regarding: ObjectReference,
    owner: Option<String>,
    failures: u32,
    by: Option<String>,
}

impl Deletion {
    pub(crate) fn of(item: &WorkItem, by: Option<&str>) -> Self {
        let status = item.status.as_ref();
        Self {
            regarding: item.object_ref(&()),
            owner: item.owner_references().first().map(|owner| owner.uid.clone()),
            failures: status.map_or(0, |status| {
                status
                    .consecutive_failures
                    .saturating_add(status.infrastructure_failures)
            }),
            by: by.map(ToOwned::to_owned),
        }
    }

    fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.regarding.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.regarding.uid.as_deref().unwrap_or_default()
    }

    fn note(&self) -> String {
        let failures = match self.failures {
            1 => "1 failure".to_owned(),
            failures => format!("{failures} failures"),
        };
        let by = match &self.by {
            Some(user) => format!("by {user}"),
            None => "by somebody; taskgate was not told by whom".to_owned(),
        };
        taskgate_policy::note(&format!("{failures} forgotten: the WorkItem was deleted {by}"))
    }
}

/// Tells of the deletions that this replica was told of, until `shutdown`. Every replica runs this; none of it is at
/// rest.
///
/// RBAC: `get` on workitems, `create` on events of `events.k8s.io`.
pub async fn tell_of_deletions(client: Client, mut noted: Noted, shutdown: CancellationToken) {
    let own = OnceCell::new();
    let telling = stream::poll_fn(|context| noted.0.poll_recv(context)).for_each_concurrent(CONCURRENCY, |deletion| {
        let (client, own) = (&client, &own);
        async move {
            let user = own.get_or_try_init(|| own_name(client)).await.ok();
            // Whoever of us deletes tells of it.
            if user.is_some() && user == deletion.by.as_ref() {
                return;
            }
            match await_gone(client, &deletion).await {
                Ok(true) => tell(client, &deletion).await,
                Ok(false) => {}
                Err(error) => debug!(%error, name = deletion.name(), "whether the WorkItem is gone is not known"),
            }
        }
    });
    // Admission ends before everything else is told to, and with it what it notes.
    let to_the_end = async {
        telling.await;
        shutdown.cancelled().await;
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = to_the_end => {}
    }
}

/// Tells of the deletions that no replica was told of. The leader runs this with what its watch saw go.
pub(crate) async fn run(context: &Context, mut gone: mpsc::UnboundedReceiver<(Instant, Deletion)>) {
    while let Some((seen, deletion)) = gone.recv().await {
        sleep_until(seen + GRACE).await;
        if !context.evicted.take(deletion.uid()) && !goes_along(context, &deletion) {
            tell(&context.client, &deletion).await;
        }
    }
}

/// Whether the WorkItem went because its namespace or its owner did.
fn goes_along(context: &Context, deletion: &Deletion) -> bool {
    let policies = &context.policies;
    let namespace = policies
        .namespaces
        .get(&kube::runtime::reflector::ObjectRef::new(deletion.namespace()));
    let ends = namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some());
    let orphaned = deletion.owner.as_deref().is_some_and(|owner| {
        policies
            .spawners
            .find(|spawner| spawner.uid().as_deref() == Some(owner) && spawner.metadata.deletion_timestamp.is_none())
            .is_none()
    });
    ends || orphaned
}

/// The UIDs of WorkItems that this process deletes, and tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Evicted(Mutex<HashSet<String>>);

impl Evicted {
    pub(crate) fn put(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned());
    }

    /// Whether `uid` was there; it is not any more.
    pub(crate) fn take(&self, uid: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }
}

/// Waits until the WorkItem is gone. False when it stays: the deletion was refused, or takes too long.
async fn await_gone(client: &Client, deletion: &Deletion) -> kube::Result<bool> {
    let items = Api::<WorkItem>::namespaced(client.clone(), deletion.namespace());
    let mut pause = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        sleep(pause).await;
        waited += pause;
        let found = items.get_metadata_opt(deletion.name()).await?;
        match found.filter(|item| item.metadata.uid.as_deref() == Some(deletion.uid())) {
            None => return Ok(true),
            // Admission asks before anything is done: what is not marked by now was refused.
            Some(item) if item.metadata.deletion_timestamp.is_none() && waited > GRACE / 2 => return Ok(false),
            Some(_) => pause = (pause * 2).min(Duration::from_secs(5)),
        }
    }
    Ok(false)
}

async fn tell(client: &Client, deletion: &Deletion) {
    let event = v1::Event {
        metadata: ObjectMeta {
            name: Some(format!("forgotten-{}", deletion.uid())),
            ..ObjectMeta::default()
        },
        type_: Some("Normal".to_owned()),
        reason: Some("CircuitReset".to_owned()),
        action: Some("Reset".to_owned()),
        note: Some(deletion.note()),
        regarding: Some(deletion.regarding.clone()),
        reporting_controller: Some("taskgate".to_owned()),
        reporting_instance: Some("taskgate".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        ..v1::Event::default()
    };
    let events = Api::<v1::Event>::namespaced(client.clone(), deletion.namespace());
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        // Another replica told of it, or there is nobody left to tell.
        Err(error) if is_conflict(&error) || is_absent(&error) || is_namespace_terminating(&error) => {}
        Err(error) => debug!(%error, name = deletion.name(), "no Event"),
    }
}

/// The name by which the API server knows taskgate.
async fn own_name(client: &Client) -> kube::Result<String> {
    let reviews = Api::<SelfSubjectReview>::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info);
    Ok(user.and_then(|user| user.username).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item() -> Value {
        json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
            "metadata": {"name": "fixer-42-0", "namespace": "team", "uid": "u"},
            "spec": {"key": "fixer/42", "item": "42"}, "status": {"consecutiveFailures": 3},
        })
    }

    #[test]
    fn what_is_noted_says_who() {
        let (deletions, mut noted) = Deletions::new();
        deletions.note(&item(), "alice");
        deletions.note(&json!({"metadata": {}}), "mallory");
        let deletion = noted.0.try_recv().unwrap();
        assert_eq!(
            (deletion.namespace(), deletion.name(), deletion.uid()),
            ("team", "fixer-42-0", "u")
        );
        assert_eq!(
            deletion.note(),
            "3 failures forgotten: the WorkItem was deleted by alice"
        );
        assert!(noted.0.try_recv().is_err(), "what cannot be read is left to the leader");
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (deletions, mut noted) = Deletions::new();
        for _ in 0..10 * REMEMBERED {
            deletions.note(&item(), "alice");
        }
        let remembered = std::iter::from_fn(|| noted.0.try_recv().ok()).count();
        assert_eq!(remembered, REMEMBERED);
    }
}
