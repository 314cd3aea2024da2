//! One item of GitHub: one conditional request while nothing changes, and the comments only when something did.

use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use taskgate_policy::source::{
    IssueEndpoint, RateHeaders, Repository, SourceItem,
    github::{self, Conversation},
    pause,
};

use super::{
    client::{Answer, Http, MAX_ITEM, MAX_PAGE, Token, Unanswered},
    trouble::Trouble,
};

/// How many pages of comments are read, as in Kelos: the latest ones.
const PAGES: u64 = 10;

/// A tracker's API, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) base: String,
    pub(super) token: Option<Token>,
    /// A proxy of the cluster adds the token.
    pub(super) is_proxy: bool,
}

/// What is to be read.
pub(super) struct Ask<'a> {
    pub(super) repository: &'a Repository,
    pub(super) endpoint: IssueEndpoint,
    pub(super) number: u64,
    /// Whether the text of comments and a pull request's head are wanted.
    pub(super) whole: bool,
    /// What was read before.
    pub(super) before: Option<&'a Kept>,
    /// The login that the token belongs to, once known.
    pub(super) own: &'a tokio::sync::OnceCell<Option<String>>,
}

/// An item as it was read, for the next request.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) tag: Option<String>,
    pub(super) item: SourceItem,
    whole: bool,
}

/// What an answer says.
pub(super) enum Reading {
    Item(Box<Kept>),
    /// The item does not exist any more.
    Gone,
}

/// A reading, or the trouble; and until when the tracker wants to be left alone, whatever it answered.
pub(super) struct Outcome {
    pub(super) reading: Result<Reading, Trouble>,
    pub(super) pause: Option<Timestamp>,
}

/// Reads one item.
pub(super) async fn read(http: &Http, route: &Route, ask: &Ask<'_>) -> Outcome {
    let mut session = Session {
        http,
        route,
        pause: None,
    };
    let reading = session.item(ask).await;
    Outcome {
        reading,
        pause: session.pause,
    }
}

/// Whether the issue or pull request is open: one request, and nothing else of it. What was deleted is not.
pub(super) async fn is_open(
    http: &Http,
    route: &Route,
    repository: &Repository,
    number: u64,
) -> (Result<bool, Trouble>, Option<Timestamp>) {
    let mut session = Session {
        http,
        route,
        pause: None,
    };
    let is_open = session.is_open(repository, number).await;
    (is_open, session.pause)
}

/// The requests for one item.
struct Session<'a> {
    http: &'a Http,
    route: &'a Route,
    pause: Option<Timestamp>,
}

impl Session<'_> {
    async fn is_open(&mut self, repository: &Repository, number: u64) -> Result<bool, Trouble> {
        let endpoint = IssueEndpoint::Issues.as_str();
        let path = format!("/repos/{}/{}/{endpoint}/{number}", repository.owner, repository.name);
        let answer = self.get(&path, None).await?;
        match answer.status {
            StatusCode::OK => {
                let json = self.json(&path, &answer)?;
                let item = github::item(&json, number).ok_or_else(|| self.nonsense(&path))?;
                Ok(item.is_open)
            }
            StatusCode::GONE => Ok(false),
            _ => Err(self.refusal(&path, &answer)),
        }
    }

    async fn item(&mut self, ask: &Ask<'_>) -> Result<Reading, Trouble> {
        let repository = format!("/repos/{}/{}", ask.repository.owner, ask.repository.name);
        let path = format!("{repository}/{}/{}", ask.endpoint.as_str(), ask.number);
        // What was read for less cannot be taken over for more.
        let before = ask.before.filter(|kept| kept.whole || !ask.whole);
        let answer = self.get(&path, before.and_then(|kept| kept.tag.as_deref())).await?;
        match (answer.status, before) {
            (StatusCode::NOT_MODIFIED, Some(before)) => return Ok(Reading::Item(Box::new(before.clone()))),
            (StatusCode::GONE, _) => return Ok(Reading::Gone),
            (StatusCode::NOT_FOUND, _) => return self.not_found(ask, &repository, &path).await,
            (StatusCode::OK, _) => {}
            _ => return Err(self.refusal(&path, &answer)),
        }
        let json = self.json(&path, &answer)?;
        // An issue that moved answers with another number.
        let mut item = github::item(&json, ask.number).ok_or_else(|| self.nonsense(&path))?;
        let tag = answer.header(header::ETAG).map(ToOwned::to_owned);
        if let Some(before) = before.filter(|before| item.is_as(&before.item)) {
            let item = before.item.clone();
            let whole = before.whole;
            return Ok(Reading::Item(Box::new(Kept { tag, item, whole })));
        }
        if ask.whole && item.is_pull && item.head_sha.is_none() {
            item.head_sha = self.head(&repository, ask.number).await?;
        }
        let conversation = self.conversation(ask, &repository, item.comment_count).await?;
        conversation.finish(&mut item);
        let whole = ask.whole;
        Ok(Reading::Item(Box::new(Kept { tag, item, whole })))
    }

    /// GitHub says "not found" of what a token may not see, too: an item is gone only if it was there once, and its
    /// repository can still be seen.
    async fn not_found(&mut self, ask: &Ask<'_>, repository: &str, path: &str) -> Result<Reading, Trouble> {
        let seen = self.get(repository, None).await?;
        match seen.status {
            StatusCode::OK if ask.before.is_some() => Ok(Reading::Gone),
            StatusCode::OK => Err(Trouble::BadAnswer(format!("{}{path} does not exist", self.route.base))),
            StatusCode::NOT_FOUND => {
                let whose = if self.route.token.is_some() || self.route.is_proxy {
                    "with this token"
                } else {
                    "without a token"
                };
                let message = format!("{}{repository} cannot be seen {whose}", self.route.base);
                Err(Trouble::Forbidden(message))
            }
            _ => Err(self.refusal(repository, &seen)),
        }
    }

    async fn head(&mut self, repository: &str, number: u64) -> Result<Option<String>, Trouble> {
        let path = format!("{repository}/pulls/{number}");
        let answer = self.get(&path, None).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&path, &answer));
        }
        let json = self.json(&path, &answer)?;
        let pull = github::item(&json, number).ok_or_else(|| self.nonsense(&path))?;
        Ok(pull.head_sha)
    }

    async fn conversation(&mut self, ask: &Ask<'_>, repository: &str, count: u64) -> Result<Conversation, Trouble> {
        let mut conversation = Conversation::new(ask.whole);
        if count == 0 {
            return Ok(conversation);
        }
        let session = &mut *self;
        let own = ask.own.get_or_try_init(move || session.own_login()).await?.clone();
        let per_page = github::PER_PAGE;
        let last = count.div_ceil(per_page.into());
        for page in last.saturating_sub(PAGES) + 1..=last {
            let path = format!(
                "{repository}/issues/{}/comments?per_page={per_page}&page={page}",
                ask.number
            );
            let answer = self.bounded(&path, None, MAX_PAGE).await?;
            if answer.status != StatusCode::OK {
                return Err(self.refusal(&path, &answer));
            }
            let json = self.json(&path, &answer)?;
            let added = conversation.add(&json, own.as_deref());
            added.ok_or_else(|| self.nonsense(&path))?;
        }
        Ok(conversation)
    }

    /// Who our token belongs to. An App's token belongs to nobody; what it writes is marked as a bot's.
    async fn own_login(&mut self) -> Result<Option<String>, Trouble> {
        if self.route.token.is_none() && !self.route.is_proxy {
            return Ok(None);
        }
        let answer = self.get("/user", None).await?;
        match answer.status {
            StatusCode::OK => {
                let json = self.json("/user", &answer)?;
                github::login(&json).map(Some).ok_or_else(|| self.nonsense("/user"))
            }
            StatusCode::NOT_FOUND => Ok(None),
            // A proxy without a token, or a token that belongs to an App.
            StatusCode::UNAUTHORIZED if self.route.is_proxy => Ok(None),
            StatusCode::FORBIDDEN if self.pause.is_none() => Ok(None),
            _ => Err(self.refusal("/user", &answer)),
        }
    }

    /// Asks for one thing, rather than for a page of many.
    async fn get(&mut self, path: &str, tag: Option<&str>) -> Result<Answer, Trouble> {
        self.bounded(path, tag, MAX_ITEM).await
    }

    async fn bounded(&mut self, path: &str, tag: Option<&str>, max: usize) -> Result<Answer, Trouble> {
        let Route { base, token, .. } = self.route;
        let url = format!("{base}{path}");
        let mut answer = self.http.get(&url, token.as_ref(), tag, max).await;
        // A repository that was renamed. The token goes to nobody else.
        if let Ok(moved) = &answer
            && matches!(moved.status.as_u16(), 301 | 307 | 308)
            && let Some(place) = moved.header(header::LOCATION)
            && place
                .strip_prefix(base.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        {
            let place = place.to_owned();
            answer = self.http.get(&place, token.as_ref(), tag, max).await;
        }
        let answer = answer.map_err(|error| match error {
            Unanswered::TooLong(_) => Trouble::BadAnswer(format!("{base}: {error}")),
            Unanswered::Address => Trouble::Unsupported(format!("{base}: {error}")),
            Unanswered::Late | Unanswered::Connection(_) => Trouble::Unreachable(format!("{base}: {error}")),
        })?;
        let headers = RateHeaders {
            retry_after: answer.header(header::RETRY_AFTER),
            remaining: answer.header("x-ratelimit-remaining"),
            reset: answer.header("x-ratelimit-reset"),
        };
        self.pause = pause(answer.status.as_u16(), headers, Timestamp::now()).or(self.pause);
        Ok(answer)
    }

    fn json(&self, path: &str, answer: &Answer) -> Result<Value, Trouble> {
        serde_json::from_slice(&answer.body).map_err(|_| self.nonsense(path))
    }

    fn nonsense(&self, path: &str) -> Trouble {
        let path = path.split('?').next().unwrap_or(path);
        Trouble::BadAnswer(format!("{}{path} does not answer as GitHub does", self.route.base))
    }

    fn refusal(&self, path: &str, answer: &Answer) -> Trouble {
        let base = &self.route.base;
        let (path, code) = (path.split('?').next().unwrap_or(path), answer.status.as_u16());
        let message = format!("{base}{path} answers {code}");
        match (code, self.pause) {
            (403 | 429 | 503, Some(until)) => Trouble::RateLimited {
                base: base.clone(),
                until,
            },
            (401, _) | (403, None) => Trouble::Forbidden(message),
            (500.., _) => Trouble::Unreachable(format!("{base} answers {code}")),
            _ => Trouble::BadAnswer(message),
        }
    }
}
