//! The loop that reads items when they are due. A source that does not answer delays no other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::ResourceExt as _;
use taskgate_api::kelos::Task;
use taskgate_policy::{
    TaskState,
    source::{Interest, Interests, ItemPresence, SourceItem, SourceKey, add_task, add_work_item, backoff},
};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{
    CONCURRENCY, PER_NAMESPACE, SourceConfig, Sources,
    access::{LocationCache, SourceLocation},
    client::Http,
    condition::{self, ReadHealth},
    error::SourceError,
    github::{CachedItem, ItemQuery, Session},
    limits::{RouteKey, RouteLimits},
    work_item,
};
use crate::{context::Context, kubernetes::json_of};

/// The shortest time between two computations of the items that are needed.
const QUIET: Duration = Duration::from_secs(1);
/// How many intervals pass between two reads of an item of which only the deletion matters.
const SELDOM: u32 = 12;

/// Reads sources, after the caches are filled. Never ends.
pub(crate) async fn run(context: Arc<Context>, sources: Arc<Sources>, config: SourceConfig) {
    let http = match Http::new(context.cache.clock()) {
        Ok(http) => http,
        Err(error) => {
            warn!(%error, "sources cannot be read: no trusted roots");
            return std::future::pending().await;
        }
    };
    context.tasks_followed().await;
    let mut reader = SourceReader {
        context,
        sources,
        config,
        http,
        limits: RouteLimits::default(),
        items: BTreeMap::new(),
        locations: LocationCache::default(),
    };
    let mut running = FuturesUnordered::new();
    loop {
        let interests = interests(&reader.context);
        let (requests, more) = reader.due_requests(&interests).await;
        for request in requests {
            running.push(send(request, reader.http.clone()));
        }
        condition::write_all(&reader.context, &interests, &reader.health()).await;
        let quiet = Instant::now() + QUIET;
        let next = if more { Some(quiet) } else { reader.next() };
        let mut answered = false;
        loop {
            let is_quiet = Instant::now() >= quiet;
            if is_quiet && answered {
                break;
            }
            tokio::select! {
                Some((request, reading, pause)) = running.next() => {
                    reader.apply(&request, reading, pause).await;
                    answered = true;
                }
                () = sleep_until(quiet), if !is_quiet => {}
                () = reader.sources.changed(), if is_quiet => break,
                () = sleep_until(next.unwrap_or(quiet)), if is_quiet && next.is_some() => break,
            }
        }
        // An answer may end the need for its item: the policies that needed it get their condition before.
        condition::write_all(&reader.context, &interests, &reader.health()).await;
    }
}

/// The items that policies need. No cache is read where no policy needs any.
fn interests(context: &Context) -> Interests {
    let mut interests = Interests::new();
    if !context.policies().follows_sources() {
        return interests;
    }
    for task in context.cache.tasks().all() {
        let object = json_of(&*task);
        let (Some(state), Some(namespace)) = (TaskState::of(&object), task.namespace()) else {
            continue;
        };
        let item = state.work_item.clone().map(|name| (namespace.clone(), name));
        let item = item.and_then(|item| context.cached_work_item(&item));
        let status = item.as_ref().and_then(|item| item.status.as_ref());
        context.in_scope(&namespace, Task::of(&object).spawner(), |policies| {
            add_task(&mut interests, &policies, &object, &state, status);
        });
    }
    for item in context.cache.work_items().all() {
        let key = (item.namespace().to_owned(), item.name().to_owned());
        if !context.has_tasks(&key) {
            context.in_scope(&key.0, item.spawner(), |policies| {
                add_work_item(&mut interests, &policies, &key.1, &item.expand());
            });
        }
    }
    interests
}

/// A read of one item, with all that it needs, so that it runs beside the reader.
struct ItemRequest {
    key: SourceKey,
    interest: Interest,
    location: Arc<SourceLocation>,
    route: RouteKey,
    query: ItemQuery,
}

/// The item; `None` when it does not exist any more.
type Reading = Result<Option<CachedItem>, SourceError>;

/// Reads the item; also until when its source asks for no further request.
async fn send(request: ItemRequest, http: Http) -> (ItemRequest, Reading, Option<Timestamp>) {
    let mut session = Session::new(&http, &request.location.route);
    let reading = session.item(&request.query).await;
    let pause = session.pause;
    (request, reading, pause)
}

struct SourceReader {
    context: Arc<Context>,
    sources: Arc<Sources>,
    config: SourceConfig,
    http: Http,
    limits: RouteLimits,
    items: BTreeMap<SourceKey, ItemState>,
    locations: LocationCache,
}

/// The reader's state of an item.
#[derive(Default)]
struct ItemState {
    /// When it may be read next; `None`: at once.
    due: Option<Instant>,
    is_being_read: bool,
    cached: Option<Arc<CachedItem>>,
    health: ReadHealth,
}

impl SourceReader {
    /// Requests for the items that are due, as many as may run; and whether a due item must wait although no running request will
    /// free a slot for it.
    async fn due_requests(&mut self, interests: &Interests) -> (Vec<ItemRequest>, bool) {
        let now = Instant::now();
        // An item that is needed again within its interval is not due.
        self.items.retain(|key, item| {
            item.is_being_read || interests.contains_key(key) || item.due.is_some_and(|due| due > now)
        });
        self.locations.refresh(now);
        self.sources.retain(|key| interests.contains_key(key));
        self.limits
            .retain(|(namespace, _)| interests.keys().any(|key| key.namespace == *namespace));
        let mut running: HashMap<String, usize> = HashMap::new();
        for (key, _) in self.items.iter().filter(|(_, item)| item.is_being_read) {
            *running.entry(key.namespace.clone()).or_default() += 1;
        }
        let mut total: usize = running.values().sum();
        let mut failed: HashMap<&str, usize> = HashMap::new();
        let (mut requests, mut more) = (Vec::new(), false);
        let due = |key: &SourceKey| self.items.get(key).and_then(|item| item.due);
        let idle = |key: &SourceKey| self.items.get(key).is_none_or(|item| !item.is_being_read);
        let waiting = interests.iter().filter(|(key, _)| idle(key));
        for (key, interest) in longest_due_first(waiting.map(|entry| (due(entry.0), entry)), now) {
            // An item that cannot be read now counts as well: a namespace full of broken Workspaces delays no other.
            let own_failed = failed.get(key.namespace.as_str()).copied().unwrap_or_default();
            let own = running.get(&key.namespace).copied().unwrap_or_default() + own_failed;
            if own >= PER_NAMESPACE || total >= CONCURRENCY {
                more |= own_failed > 0;
                continue;
            }
            if let Some(request) = self.request(key, interest).await {
                *running.entry(key.namespace.clone()).or_default() += 1;
                total += 1;
                requests.push(request);
            } else {
                *failed.entry(key.namespace.as_str()).or_default() += 1;
            }
        }
        (requests, more)
    }

    /// When the next item is due.
    fn next(&self) -> Option<Instant> {
        let waiting = self.items.values().filter(|item| !item.is_being_read);
        waiting.filter_map(|item| item.due).min()
    }

    fn health(&self) -> BTreeMap<SourceKey, ReadHealth> {
        let items = self.items.iter();
        items.map(|(key, item)| (key.clone(), item.health.clone())).collect()
    }

    /// A request for the item; `None` without a location, which its health records, and while its source asks for no request.
    async fn request(&mut self, key: &SourceKey, interest: &Interest) -> Option<ItemRequest> {
        let (until, located) = self.locations.find(&self.context, &self.config, key).await;
        let numbered = located.and_then(|location| {
            let message = || format!("item {} of {} has no number", key.item, key.spawner);
            let (own, number) = key.number().ok_or_else(|| SourceError::Unsupported(message()))?;
            Ok((location, own, number))
        });
        let item = self.items.entry(key.clone()).or_default();
        let (location, own, number) = match numbered {
            Ok(found) => found,
            Err(error) => {
                item.due = Some(until);
                if error != SourceError::AccessUnknown {
                    item.health.fail(error);
                }
                return None;
            }
        };
        let route = (key.namespace.clone(), location.source.workspace.clone());
        let login = self.limits.login(&route, &location.route);
        if let Some(paused) = self.limits.paused(&route) {
            item.due = Some(paused);
            return None;
        }
        let mut repository = location.repository.clone();
        if let Some(own) = own {
            (repository.owner, repository.name) = (own.owner, own.name);
        }
        item.is_being_read = true;
        let query = ItemQuery {
            repository,
            endpoint: location.source.endpoint,
            number,
            whole: interest.for_task,
            before: item.cached.clone(),
            own: login,
        };
        Some(ItemRequest {
            key: key.clone(),
            interest: interest.clone(),
            location,
            route,
            query,
        })
    }

    /// Stores the result of a request, and when the item is due next.
    async fn apply(&mut self, request: &ItemRequest, reading: Reading, pause: Option<Timestamp>) {
        let mut interval = self.config.interval(&request.location.source);
        self.limits
            .record(&request.route, reading.as_ref().err(), pause, interval, self.http.now());
        if request.interest.is_idle {
            interval *= SELDOM;
        }
        let item = self.items.entry(request.key.clone()).or_default();
        item.is_being_read = false;
        item.health.answered |= reading.is_ok();
        match &reading {
            Ok(_) => (item.health.error, item.health.failures) = (None, 0),
            Err(error) => {
                debug!(%error, namespace = request.key.namespace, item = request.key.item, "an item was not read");
                item.health.fail(error.clone());
                interval = backoff(item.health.failures, interval);
            }
        }
        // A pause of the whole Workspace takes precedence.
        item.due = Some(Instant::now() + interval).max(self.limits.paused(&request.route));
        if let Ok(found) = reading {
            let shown = found.map(|read| item.cached.insert(Arc::new(read)).item.clone());
            self.observed(request, shown).await;
        }
    }

    /// Stores the observation, and updates the item's `WorkItem`.
    async fn observed(&self, request: &ItemRequest, item: Option<SourceItem>) {
        let filter = &request.location.source.filter;
        let discovered = item.as_ref().is_some_and(|item| filter.discovers(item));
        let observation = self.sources.observe(&request.key, item, discovered, self.context.now());
        let (Some(name), Some(rule)) = (&request.interest.work_item, &request.interest.rule) else {
            return;
        };
        let presence = match observation.item.as_deref().filter(|_| discovered) {
            Some(item) => ItemPresence::Found(item),
            None => ItemPresence::Missing(observation.in_a_row),
        };
        let key = (request.key.namespace.clone(), name.clone());
        if let Err(error) = work_item::update(&self.context, &key, rule, presence).await {
            warn!(%error, source = %error.source, "a WorkItem was not updated; tried again with the next answer");
        }
    }
}

/// Those that are due, the longest due first, so that each is read at some time even where more are due than may run. Each comes with
/// the time at which it is due; `None` for at once.
fn longest_due_first<T>(waiting: impl Iterator<Item = (Option<Instant>, T)>, now: Instant) -> Vec<T> {
    let mut due: Vec<_> = waiting.filter(|(due, _)| due.is_none_or(|due| due <= now)).collect();
    due.sort_by_key(|(due, _)| *due);
    due.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_due_comes_first() {
        let now = Instant::now() + Duration::from_mins(1);
        let before = |seconds| Some(now - Duration::from_secs(seconds));
        let later = Some(now + Duration::from_secs(1));
        let waiting = [
            (before(0), "a"),
            (later, "b"),
            (before(2), "c"),
            (before(1), "d"),
            (None, "new"),
        ];
        assert_eq!(longest_due_first(waiting.into_iter(), now), ["new", "c", "d", "a"]);
    }

    #[test]
    fn each_is_read_even_where_more_are_due_than_may_run() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut due = [None; 10];
        for round in 0..3 {
            let now = start + second * round;
            for item in longest_due_first(due.into_iter().zip(0..), now).into_iter().take(4) {
                due[item] = Some(now + second);
            }
        }
        assert!(due.iter().all(Option::is_some), "{due:?}");
    }
}
