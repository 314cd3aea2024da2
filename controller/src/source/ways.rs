//! The ways to the spawners' trackers, each looked up once per interval.

use std::{collections::HashMap, sync::Arc};

use taskgate_policy::source::SourceKey;
use tokio::time::Instant;

use super::{
    SourceConfig,
    access::{self, Place},
    trouble::Trouble,
};
use crate::context::Context;

/// Where a spawner's items are read, or why not. `Err(None)`: the API server did not answer.
type Way = Result<Arc<Place>, Option<Trouble>>;

/// The ways that are known, by namespace and spawner, and until when they are taken for granted.
#[derive(Default)]
pub(super) struct Ways(HashMap<(String, String), (Instant, Way)>);

impl Ways {
    /// Forgets what is to be looked up anew.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.0.retain(|_, (until, _)| *until > now);
    }

    /// The way to `key`, and until when it holds.
    pub(super) async fn find(&mut self, context: &Context, config: &SourceConfig, key: &SourceKey) -> (Instant, Way) {
        let spawner = (key.namespace.clone(), key.spawner.clone());
        if let Some(known) = self.0.get(&spawner) {
            return known.clone();
        }
        let way = access::place(context, config, &key.namespace, &key.spawner).await;
        let way = way.map(Arc::new);
        let interval = match &way {
            Ok(place) => config.interval(&place.source),
            Err(_) => config.min_interval,
        };
        let found = (Instant::now() + interval, way);
        self.0.insert(spawner, found.clone());
        found
    }
}
