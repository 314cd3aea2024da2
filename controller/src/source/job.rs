//! One item whose turn it is: all that asking takes, and the asking itself, which needs nothing of the reader.

use std::sync::Arc;

use taskgate_policy::source::{Interest, Repository, SourceKey};
use tokio::time::Instant;

use super::{
    access::Place,
    client::Http,
    github::{self, Ask, Kept, Outcome},
    limits::{Limits, Login, RouteKey},
};

/// One item whose turn it is.
pub(super) struct Job {
    pub(super) key: SourceKey,
    pub(super) interest: Interest,
    pub(super) place: Arc<Place>,
    pub(super) repository: Repository,
    pub(super) number: u64,
    pub(super) kept: Option<Arc<Kept>>,
    pub(super) route: RouteKey,
    pub(super) own: Login,
}

/// What came of it.
pub(super) enum Answer {
    Outcome(Outcome),
    /// Nothing was asked: whoever was before found that nothing may be, until then.
    Paused(Instant),
}

impl Job {
    /// Asks the tracker, if it may be asked.
    pub(super) async fn ask(self, http: Http, limits: Arc<Limits>) -> (Self, Answer) {
        if let Some(until) = limits.paused(&self.route) {
            return (self, Answer::Paused(until));
        }
        let ask = Ask {
            repository: &self.repository,
            endpoint: self.place.source.endpoint,
            number: self.number,
            whole: self.interest.for_task,
            before: self.kept.as_deref(),
            own: &self.own,
        };
        let outcome = github::read(&http, &self.place.route, &ask).await;
        (self, Answer::Outcome(outcome))
    }
}
