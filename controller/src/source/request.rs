//! One read of an item, with all that it needs, so that it runs beside the reader.

use std::sync::Arc;

use taskgate_policy::source::{Interest, Repository, SourceKey};
use tokio::time::Instant;

use super::{
    access::SourceLocation,
    client::Http,
    github::{self, CachedItem, ItemQuery, ReadResult},
    limits::{Login, RouteKey, RouteLimits},
};

/// A read of one item.
pub(super) struct ItemRequest {
    pub(super) key: SourceKey,
    pub(super) interest: Interest,
    pub(super) location: Arc<SourceLocation>,
    pub(super) repository: Repository,
    pub(super) number: u64,
    pub(super) before: Option<Arc<CachedItem>>,
    pub(super) route: RouteKey,
    pub(super) own: Login,
}

/// The result of a read.
pub(super) enum RequestResult {
    Read(ReadResult),
    /// Nothing was sent: an earlier answer asked for no further request until then.
    Paused(Instant),
}

impl ItemRequest {
    /// Reads the item, if its source allows a request now.
    pub(super) async fn send(self, http: Http, limits: Arc<RouteLimits>) -> (Self, RequestResult) {
        if let Some(until) = limits.paused(&self.route) {
            return (self, RequestResult::Paused(until));
        }
        let query = ItemQuery {
            repository: &self.repository,
            endpoint: self.location.source.endpoint,
            number: self.number,
            whole: self.interest.for_task,
            before: self.before.as_deref(),
            own: &self.own,
        };
        let result = github::read(&http, &self.location.route, &query).await;
        (self, RequestResult::Read(result))
    }
}
