//! The reader's rounds: whose turn it is, and what came of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::{api::DynamicObject, runtime::reflector::Store};
use taskgate_policy::source::{Interest, Interests, Presence, Repository, SourceKey, backoff};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::{
    SourceConfig,
    access::{self, Place},
    client::Http,
    condition::{self, Health},
    github::{self, Ask, Kept, Outcome, Reading},
    interests::interests,
    limits::{Limits, Login, RouteKey},
    settle,
    trouble::Trouble,
};
use crate::context::Context;

/// How many items are read at the same time.
const CONCURRENCY: usize = 8;
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
        limits: Limits::default(),
        items: BTreeMap::new(),
        ways: HashMap::new(),
    };
    loop {
        let interests = interests(&reader.context, &tasks);
        let next = reader.round(&interests).await;
        tokio::select! {
            () = reader.context.sources.changed() => sleep(QUIET).await,
            () = at(next) => {}
        }
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
    limits: Limits,
    items: BTreeMap<SourceKey, Item>,
    ways: HashMap<(String, String), Way>,
}

/// What the reader knows of an item.
#[derive(Default)]
struct Item {
    /// When it may be asked about next; `None`: at once.
    due: Option<Instant>,
    kept: Option<Arc<Kept>>,
    health: Health,
}

/// The way to a spawner's tracker, looked up once per interval.
struct Way {
    until: Instant,
    place: Result<Arc<Place>, Option<Trouble>>,
}

/// One item whose turn it is.
struct Job {
    key: SourceKey,
    interest: Interest,
    place: Arc<Place>,
    repository: Repository,
    number: u64,
    kept: Option<Arc<Kept>>,
    route: RouteKey,
    own: Login,
}

impl Reader {
    /// Asks about everything whose turn it is. Returns when the next one has its turn.
    async fn round(&mut self, interests: &Interests) -> Option<Instant> {
        let now = Instant::now();
        // An item that comes back within its interval waits for its turn.
        self.items
            .retain(|key, item| interests.contains_key(key) || item.due.is_some_and(|due| due > now));
        self.ways.retain(|_, way| way.until > now);
        self.context.sources.retain(|key| interests.contains_key(key));
        let mut jobs = Vec::new();
        for (key, interest) in interests {
            if self
                .items
                .get(key)
                .and_then(|item| item.due)
                .is_none_or(|due| due <= now)
            {
                jobs.extend(self.job(key, interest).await);
            }
        }
        // The limits are shared by what runs at the same time; everything else waits for the answers.
        let limits = std::mem::take(&mut self.limits);
        let http = self.http.clone();
        let mut answers = stream::iter(jobs)
            .map(|job| answer(&http, &limits, job))
            .buffer_unordered(CONCURRENCY);
        while let Some((job, answer)) = answers.next().await {
            self.take(&job, answer, &limits).await;
        }
        drop(answers);
        limits.retain(|key| interests.keys().any(|item| item.namespace == key.0));
        self.limits = limits;
        let health = self.items.iter().map(|(key, item)| (key.clone(), item.health.clone()));
        condition::tell(&self.context, interests, &health.collect()).await;
        self.items.values().filter_map(|item| item.due).min()
    }

    /// Everything that reading the item takes; `None` when there is no way to it, which is noted.
    async fn job(&mut self, key: &SourceKey, interest: &Interest) -> Option<Job> {
        let (until, place) = self.place(key).await;
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

    async fn place(&mut self, key: &SourceKey) -> (Instant, Result<Arc<Place>, Option<Trouble>>) {
        let spawner = (key.namespace.clone(), key.spawner.clone());
        if let Some(way) = self.ways.get(&spawner) {
            return (way.until, way.place.clone());
        }
        let place = access::place(&self.context, &self.config, &key.namespace, &key.spawner).await;
        let place = place.map(Arc::new);
        let interval = match &place {
            Ok(place) => self.interval(place),
            Err(_) => self.config.min_interval,
        };
        let until = Instant::now() + interval;
        let way = Way {
            until,
            place: place.clone(),
        };
        self.ways.insert(spawner, way);
        (until, place)
    }

    fn interval(&self, place: &Place) -> Duration {
        place.source.interval.max(self.config.min_interval)
    }

    /// Takes note of an answer, and of when to ask next.
    async fn take(&mut self, job: &Job, answer: Answer, limits: &Limits) {
        let interval = self.interval(&job.place);
        let item = self.items.entry(job.key.clone()).or_default();
        let outcome = match answer {
            Answer::Outcome(outcome) => outcome,
            Answer::Paused(until) => {
                item.due = Some(until);
                return;
            }
        };
        limits.note(&job.route, &outcome, interval);
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
        if let (Some(item), Some(paused)) = (self.items.get_mut(&job.key), limits.paused(&job.route)) {
            item.due = item.due.max(Some(paused));
        }
    }

    async fn observed(&self, job: &Job, item: Option<taskgate_policy::source::SourceItem>) {
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
            Some(item) => Presence::Found(item),
            None => Presence::Missing(observation.in_a_row),
        };
        if let Err(error) = settle::settle(&self.context, &job.key.namespace, name, rule, presence).await {
            warn!(%error, source = %error.source, "tried again with the next answer");
        }
    }
}

/// What came of a job.
enum Answer {
    Outcome(Outcome),
    /// Nothing was asked: whoever was before found that nothing may be, until then.
    Paused(Instant),
}

async fn answer(http: &Http, limits: &Limits, job: Job) -> (Job, Answer) {
    if let Some(until) = limits.paused(&job.route) {
        return (job, Answer::Paused(until));
    }
    let ask = Ask {
        repository: &job.repository,
        endpoint: job.place.source.endpoint,
        number: job.number,
        whole: job.interest.for_task,
        before: job.kept.as_deref(),
        own: &job.own,
    };
    let outcome = github::read(http, &job.place.route, &ask).await;
    (job, Answer::Outcome(outcome))
}
