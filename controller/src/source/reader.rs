//! Whose turn it is, and what came of it. Nobody waits for a tracker that does not answer but those who need it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::{api::DynamicObject, runtime::reflector::Store};
use taskgate_policy::source::{Interest, Interests, ItemPresence, SourceItem, SourceKey, backoff};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{
    SourceConfig,
    client::Http,
    condition::{self, Health},
    github::{Kept, Reading},
    interests::interests,
    job::{Answer, Job},
    limits::Limits,
    settle,
    trouble::Trouble,
    turn::in_turn,
    ways::Ways,
};
use crate::context::Context;

/// How many items are read at the same time.
const CONCURRENCY: usize = 32;
/// How many of them may be of one namespace, so that one tenant's silent tracker does not take every place.
const PER_NAMESPACE: usize = 4;
/// The shortest time between two looks at who interests somebody.
const QUIET: Duration = Duration::from_secs(1);
/// How many intervals pass between two questions about an item that only has to be found gone some day.
const SELDOM: u32 = 12;

/// Reads sources for ever. Waits for the caches first: nothing is asked because a policy is not known yet.
pub(crate) async fn run(context: Arc<Context>, tasks: Store<DynamicObject>, config: SourceConfig) {
    let http = match Http::new() {
        Ok(http) => http,
        Err(error) => {
            warn!(%error, "sources cannot be read: no trusted roots");
            return std::future::pending().await;
        }
    };
    context.ready().await;
    // An error means that the watch was dropped, and then this is dropped as well.
    let _ = tasks.wait_until_ready().await;
    let mut reader = Reader {
        context,
        config,
        http,
        limits: Arc::default(),
        items: BTreeMap::new(),
        ways: Ways::default(),
    };
    let mut answers = FuturesUnordered::new();
    loop {
        let interests = interests(&reader.context, &tasks);
        let (jobs, more) = reader.jobs(&interests).await;
        for job in jobs {
            answers.push(job.ask(reader.http.clone(), Arc::clone(&reader.limits)));
        }
        condition::tell(&reader.context, &interests, &reader.health()).await;
        let quiet = Instant::now() + QUIET;
        let next = if more { Some(quiet) } else { reader.next() };
        let mut heard = false;
        loop {
            let rested = Instant::now() >= quiet;
            if rested && heard {
                break;
            }
            tokio::select! {
                Some((job, answer)) = answers.next() => {
                    reader.take(&job, answer).await;
                    heard = true;
                }
                () = sleep_until(quiet), if !rested => {}
                () = reader.context.sources.changed(), if rested => break,
                () = at(next), if rested => break,
            }
        }
        // An answer may end the interest in it: what came of it is told to those who waited.
        condition::tell(&reader.context, &interests, &reader.health()).await;
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Reader {
    context: Arc<Context>,
    config: SourceConfig,
    http: Http,
    limits: Arc<Limits>,
    items: BTreeMap<SourceKey, Item>,
    ways: Ways,
}

/// What the reader knows of an item.
#[derive(Default)]
struct Item {
    /// When it may be asked about next; `None`: at once.
    due: Option<Instant>,
    /// Whether it is being asked about.
    is_asked: bool,
    kept: Option<Arc<Kept>>,
    health: Health,
}

impl Reader {
    /// Everything whose turn it is, as far as there are places; and whether something was passed over for want of one that
    /// no answer will free.
    async fn jobs(&mut self, interests: &Interests) -> (Vec<Job>, bool) {
        let now = Instant::now();
        // An item that comes back within its interval waits for its turn.
        self.items
            .retain(|key, item| item.is_asked || interests.contains_key(key) || item.due.is_some_and(|due| due > now));
        self.ways.refresh(now);
        self.context.sources.retain(|key| interests.contains_key(key));
        self.limits
            .retain(|(namespace, _)| interests.keys().any(|key| key.namespace == *namespace));
        let mut places: HashMap<String, usize> = HashMap::new();
        for key in self.items.iter().filter(|(_, item)| item.is_asked).map(|(key, _)| key) {
            *places.entry(key.namespace.clone()).or_default() += 1;
        }
        let mut taken: usize = places.values().sum();
        let mut lost: HashMap<&str, usize> = HashMap::new();
        let (mut jobs, mut more) = (Vec::new(), false);
        let due = |key: &SourceKey| self.items.get(key).and_then(|item| item.due);
        let idle = |key: &SourceKey| self.items.get(key).is_none_or(|item| !item.is_asked);
        let waiting = interests.iter().filter(|(key, _)| idle(key));
        for (key, interest) in in_turn(waiting.map(|entry| (due(entry.0), entry)), now) {
            // An item that cannot be asked about has had its turn: a namespace full of broken Workspaces delays no other.
            let failed = lost.get(key.namespace.as_str()).copied().unwrap_or_default();
            let own = places.get(&key.namespace).copied().unwrap_or_default() + failed;
            if own >= PER_NAMESPACE || taken >= CONCURRENCY {
                more |= failed > 0;
                continue;
            }
            if let Some(job) = self.job(key, interest).await {
                *places.entry(key.namespace.clone()).or_default() += 1;
                taken += 1;
                jobs.push(job);
            } else {
                *lost.entry(key.namespace.as_str()).or_default() += 1;
            }
        }
        (jobs, more)
    }

    /// When the next item has its turn.
    fn next(&self) -> Option<Instant> {
        let waiting = self.items.values().filter(|item| !item.is_asked);
        waiting.filter_map(|item| item.due).min()
    }

    fn health(&self) -> BTreeMap<SourceKey, Health> {
        let items = self.items.iter();
        items.map(|(key, item)| (key.clone(), item.health.clone())).collect()
    }

    /// Everything that reading the item takes; `None` when there is no way to it, which is noted.
    async fn job(&mut self, key: &SourceKey, interest: &Interest) -> Option<Job> {
        let (until, place) = self.ways.find(&self.context, &self.config, key).await;
        let (place, repository, number) = match place.and_then(|place| {
            let (own, number) = key.number().ok_or_else(|| {
                Some(Trouble::Unsupported(format!(
                    "item {} of {} has no number",
                    key.item, key.spawner
                )))
            })?;
            let mut repository = place.repository.clone();
            if let Some(own) = own {
                (repository.owner, repository.name) = (own.owner, own.name);
            }
            Ok((place, repository, number))
        }) {
            Ok(found) => found,
            Err(trouble) => {
                let item = self.items.entry(key.clone()).or_default();
                item.due = Some(until);
                if let Some(trouble) = trouble {
                    item.health.fail(trouble);
                }
                return None;
            }
        };
        let route = (key.namespace.clone(), place.source.workspace.clone());
        let item = self.items.entry(key.clone()).or_default();
        item.is_asked = true;
        Some(Job {
            key: key.clone(),
            interest: interest.clone(),
            repository,
            number,
            kept: item.kept.clone(),
            own: self.limits.login(&route, &place.route),
            route,
            place,
        })
    }

    /// Takes note of an answer, and of when to ask next.
    async fn take(&mut self, job: &Job, answer: Answer) {
        let interval = self.config.interval(&job.place.source);
        let item = self.items.entry(job.key.clone()).or_default();
        item.is_asked = false;
        let outcome = match answer {
            Answer::Outcome(outcome) => outcome,
            Answer::Paused(until) => {
                item.due = Some(until);
                return;
            }
        };
        self.limits
            .note(&job.route, outcome.reading.as_ref().err(), outcome.pause, interval);
        let pace = if job.interest.is_idle {
            interval * SELDOM
        } else {
            interval
        };
        match outcome.reading {
            Err(trouble) => {
                debug!(%trouble, namespace = job.key.namespace, item = job.key.item, "not read");
                item.health.fail(trouble);
                item.due = Some(Instant::now() + backoff(item.health.failures, pace));
            }
            Ok(reading) => {
                item.health = Health {
                    answered: true,
                    ..Health::default()
                };
                item.due = Some(Instant::now() + pace);
                let found = match reading {
                    Reading::Gone => None,
                    Reading::Item(kept) => Some(&*item.kept.insert(Arc::from(kept))),
                };
                let shown = found.map(|kept| kept.item.clone());
                self.observed(job, shown).await;
            }
        }
        // A pause of the whole access comes first.
        if let (Some(item), Some(paused)) = (self.items.get_mut(&job.key), self.limits.paused(&job.route)) {
            item.due = item.due.max(Some(paused));
        }
    }

    async fn observed(&self, job: &Job, item: Option<SourceItem>) {
        let discovered = item
            .as_ref()
            .is_some_and(|item| job.place.source.filter.discovers(item));
        let observation = self
            .context
            .sources
            .observe(&job.key, item, discovered, Timestamp::now());
        let Some((name, rule)) = job.interest.work_item.as_deref().zip(job.interest.rule.as_ref()) else {
            return;
        };
        let presence = match observation.item.as_deref().filter(|_| discovered) {
            Some(item) => ItemPresence::Found(item),
            None => ItemPresence::Missing(observation.in_a_row),
        };
        if let Err(error) = settle::settle(&self.context, &job.key.namespace, name, rule, presence).await {
            warn!(%error, source = %error.source, "tried again with the next answer");
        }
    }
}
