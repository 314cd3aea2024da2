//! Reads one item of GitHub: one conditional request while nothing changes, and the comments only after a change.

use std::sync::Arc;

use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use taskgate_policy::source::{
    IssueEndpoint, RateHeaders, Repository, SourceItem,
    github::{self, Conversation},
    pause,
};

use super::{
    client::{AuthToken, Http, HttpError, HttpResponse, MAX_ITEM, MAX_PAGE, header_of},
    error::SourceError,
    limits::Login,
};
use crate::kubernetes::rfc3339;

/// How many pages of comments are read, as in Kelos: the latest ones.
const PAGES: u64 = 10;

/// The address of a source's API, and the token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) base: String,
    pub(super) token: Option<AuthToken>,
    /// A proxy of the cluster adds the token.
    pub(super) is_proxy: bool,
}

impl Route {
    fn has_token(&self) -> bool {
        self.token.is_some() || self.is_proxy
    }
}

/// The item to read.
pub(super) struct ItemQuery {
    pub(super) repository: Repository,
    pub(super) endpoint: IssueEndpoint,
    pub(super) number: u64,
    /// Whether the text of comments and a pull request's head are wanted.
    pub(super) whole: bool,
    /// The item as it was read before.
    pub(super) before: Option<Arc<CachedItem>>,
    /// The login that the token belongs to, once known.
    pub(super) own: Login,
}

/// An item as it was read, for the next request.
#[derive(Clone)]
pub(super) struct CachedItem {
    tag: Option<String>,
    pub(super) item: SourceItem,
    whole: bool,
}

/// The requests for one item.
pub(super) struct Session<'a> {
    http: &'a Http,
    route: &'a Route,
    /// Until when the source asks for no further request.
    pub(super) pause: Option<Timestamp>,
}

impl<'a> Session<'a> {
    pub(super) fn new(http: &'a Http, route: &'a Route) -> Self {
        let pause = None;
        Self { http, route, pause }
    }

    /// Whether the issue or pull request is open, with one request. A deleted one is not.
    pub(super) async fn is_open(&mut self, repository: &Repository, number: u64) -> Result<bool, SourceError> {
        let endpoint = IssueEndpoint::Issues;
        let path = format!("/repos/{}/{}/{endpoint}/{number}", repository.owner, repository.name);
        let answer = self.get(&path, None).await?;
        if answer.status() == StatusCode::GONE {
            return Ok(false);
        }
        Ok(self.parsed_item(&path, &answer, number)?.is_open)
    }

    /// Reads one item; `None` for one that does not exist any more.
    pub(super) async fn item(&mut self, query: &ItemQuery) -> Result<Option<CachedItem>, SourceError> {
        let repository = format!("/repos/{}/{}", query.repository.owner, query.repository.name);
        let path = format!("{repository}/{}/{}", query.endpoint, query.number);
        // A partial reading is no base for a whole one.
        let before = query.before.as_deref().filter(|kept| kept.whole || !query.whole);
        let answer = self.get(&path, before.and_then(|kept| kept.tag.as_deref())).await?;
        match (answer.status(), before) {
            (StatusCode::NOT_MODIFIED, Some(before)) => return Ok(Some(before.clone())),
            (StatusCode::GONE, _) => return Ok(None),
            (StatusCode::NOT_FOUND, _) => return self.not_found(query, &repository, &path).await,
            _ => {}
        }
        let mut item = self.parsed_item(&path, &answer, query.number)?;
        let tag = header_of(&answer, header::ETAG).map(ToOwned::to_owned);
        if let Some(before) = before.filter(|before| item.is_as(&before.item)) {
            return Ok(Some(CachedItem { tag, ..before.clone() }));
        }
        if query.whole && item.is_pull && item.head_sha.is_none() {
            item.head_sha = self.head(&repository, query.number).await?;
        }
        let conversation = self.conversation(query, &repository, item.comment_count).await?;
        conversation.finish(&mut item);
        let whole = query.whole;
        Ok(Some(CachedItem { tag, item, whole }))
    }

    /// GitHub answers "not found" for objects that a token may not see, too: an item is gone only if it was read once, and its
    /// repository can still be read.
    async fn not_found(
        &mut self,
        query: &ItemQuery,
        repository: &str,
        path: &str,
    ) -> Result<Option<CachedItem>, SourceError> {
        let seen = self.get(repository, None).await?;
        match seen.status() {
            StatusCode::OK if query.before.is_some() => Ok(None),
            StatusCode::OK => {
                let message = format!("{}{path} does not exist", self.route.base);
                Err(SourceError::BadAnswer(message))
            }
            StatusCode::NOT_FOUND => {
                let whose = if self.route.has_token() {
                    "with this token"
                } else {
                    "without a token"
                };
                let message = format!("{}{repository} cannot be seen {whose}", self.route.base);
                Err(SourceError::Forbidden(message))
            }
            _ => Err(self.refusal(repository, &seen)),
        }
    }

    async fn head(&mut self, repository: &str, number: u64) -> Result<Option<String>, SourceError> {
        let path = format!("{repository}/pulls/{number}");
        let answer = self.get(&path, None).await?;
        Ok(self.parsed_item(&path, &answer, number)?.head_sha)
    }

    async fn conversation(
        &mut self,
        query: &ItemQuery,
        repository: &str,
        count: u64,
    ) -> Result<Conversation, SourceError> {
        let mut conversation = Conversation::new(query.whole);
        if count == 0 {
            return Ok(conversation);
        }
        let session = &mut *self;
        let own = query.own.get_or_try_init(move || session.own_login()).await?.clone();
        let per_page = github::PER_PAGE;
        let last = count.div_ceil(per_page.into());
        for page in last.saturating_sub(PAGES) + 1..=last {
            let path = format!(
                "{repository}/issues/{}/comments?per_page={per_page}&page={page}",
                query.number
            );
            let answer = self.bounded(&path, None, MAX_PAGE).await?;
            let json = self.json(&path, &answer)?;
            let added = conversation.add(&json, own.as_deref());
            added.ok_or_else(|| self.not_understood(&path))?;
        }
        Ok(conversation)
    }

    /// The login of the token's owner. An App's token has none; its comments are marked as a bot's.
    async fn own_login(&mut self) -> Result<Option<String>, SourceError> {
        if !self.route.has_token() {
            return Ok(None);
        }
        let answer = self.get("/user", None).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            // A proxy without a token, or a token that belongs to an App.
            StatusCode::UNAUTHORIZED if self.route.is_proxy => Ok(None),
            StatusCode::FORBIDDEN if self.pause.is_none() => Ok(None),
            _ => {
                let login = github::login(&self.json("/user", &answer)?);
                login.map(Some).ok_or_else(|| self.not_understood("/user"))
            }
        }
    }

    /// Gets one object, rather than a page of many.
    async fn get(&mut self, path: &str, tag: Option<&str>) -> Result<HttpResponse, SourceError> {
        self.bounded(path, tag, MAX_ITEM).await
    }

    async fn bounded(&mut self, path: &str, tag: Option<&str>, max: usize) -> Result<HttpResponse, SourceError> {
        let Route { base, token, .. } = self.route;
        let url = format!("{base}{path}");
        let mut answer = self.http.get(&url, token.as_ref(), tag, max).await;
        // A repository that was renamed. No other host gets the token.
        if let Ok(moved) = &answer
            && matches!(moved.status().as_u16(), 301 | 307 | 308)
            && let Some(location) = header_of(moved, header::LOCATION)
            && location
                .strip_prefix(base.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        {
            let location = location.to_owned();
            answer = self.http.get(&location, token.as_ref(), tag, max).await;
        }
        let answer = answer.map_err(|error| match error {
            HttpError::TooLong(_) => SourceError::BadAnswer(format!("{base}: {error}")),
            HttpError::Address => SourceError::Unsupported(format!("{base}: {error}")),
            HttpError::Late | HttpError::Connection(_) => SourceError::Unreachable(format!("{base}: {error}")),
        })?;
        let headers = RateHeaders {
            retry_after: header_of(&answer, header::RETRY_AFTER),
            remaining: header_of(&answer, "x-ratelimit-remaining"),
            reset: header_of(&answer, "x-ratelimit-reset"),
        };
        self.pause = pause(answer.status().as_u16(), headers, self.http.now()).or(self.pause);
        Ok(answer)
    }

    /// The item `number` in a successful answer. An issue that moved answers with another number.
    fn parsed_item(&self, path: &str, answer: &HttpResponse, number: u64) -> Result<SourceItem, SourceError> {
        let json = self.json(path, answer)?;
        github::item(&json, number).ok_or_else(|| self.not_understood(path))
    }

    /// The content of a successful answer.
    fn json(&self, path: &str, answer: &HttpResponse) -> Result<Value, SourceError> {
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(path, answer));
        }
        serde_json::from_slice(answer.body()).map_err(|_| self.not_understood(path))
    }

    fn not_understood(&self, path: &str) -> SourceError {
        let path = path.split('?').next().unwrap_or(path);
        SourceError::BadAnswer(format!("{}{path} does not answer as GitHub does", self.route.base))
    }

    fn refusal(&self, path: &str, answer: &HttpResponse) -> SourceError {
        let base = &self.route.base;
        let (path, code) = (path.split('?').next().unwrap_or(path), answer.status().as_u16());
        let message = format!("{base}{path} answers {code}");
        match (code, self.pause) {
            (403 | 429 | 503, Some(until)) => {
                SourceError::RateLimited(format!("{base} limits requests until {}", rfc3339(until)))
            }
            (401, _) | (403, None) => SourceError::Forbidden(message),
            (500.., _) => SourceError::Unreachable(format!("{base} answers {code}")),
            _ => SourceError::BadAnswer(message),
        }
    }
}
