//! GitHub's API as Kelos' spawner uses it: no `ETag`, no `Retry-After`, any other answer than 200 ends the
//! cycle (kelos §4).

use bytes::Bytes;
use http::header::{ACCEPT, LINK, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Most pages of a list that are read.
const PAGES: usize = 10;

/// Why GitHub could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// Neither the source nor the workspace names `owner/name`.
    #[error("no GitHub repository in {0:?}")]
    Repository(String),
    /// The address is none.
    #[error("GET {url}: {source}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// No answer.
    #[error("GET {url}: {source}")]
    Unanswered {
        /// The address.
        url: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another answer than 200.
    #[error("GitHub API returned status {status}: {body}")]
    Refused {
        /// The code.
        status: StatusCode,
        /// The body's beginning.
        body: String,
    },
    /// The answer is not what it should be.
    #[error("decoding {url}: {source}")]
    Unreadable {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A repository on GitHub.
#[derive(Debug)]
pub(super) struct Repository {
    owner: String,
    name: String,
}

impl Repository {
    /// The source's override, else the workspace's clone URL.
    pub(super) fn of(own: &str, workspace: &str) -> Result<Self, DiscoverError> {
        let text = if own.is_empty() { workspace } else { own };
        let path = text.trim_end_matches('/').trim_end_matches(".git");
        let mut parts = path.rsplit(['/', ':']);
        match (parts.next(), parts.next()) {
            (Some(name), Some(owner)) if !name.is_empty() && !owner.is_empty() => Ok(Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(DiscoverError::Repository(text.to_owned())),
        }
    }

    pub(super) fn path(&self, rest: &str, query: &[(&str, &str)]) -> String {
        let Self { owner, name } = self;
        let mut path = format!("/repos/{owner}/{name}/{rest}");
        for (index, (key, value)) in query.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.extend([key, "=", &escape(value)]);
        }
        path
    }
}

fn escape(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    let escaped = text.bytes().map(|byte| {
        if plain(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    escaped.collect()
}

/// A client of one API base URL.
pub(super) struct GitHub {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl GitHub {
    pub(super) fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// All pages of a list.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, DiscoverError> {
        let mut url = format!("{}{path}", self.base);
        let mut items = Vec::new();
        for _ in 0..PAGES {
            let (status, next, body) = self.fetch(&url).await?;
            if status != StatusCode::OK {
                return Err(refused(status, &body));
            }
            items.append(&mut decode::<Vec<T>>(&url, &body)?);
            match next {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(items)
    }

    /// One object; `None` for 404.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DiscoverError> {
        let url = format!("{}{path}", self.base);
        let (status, _, body) = self.fetch(&url).await?;
        match status {
            StatusCode::OK => decode(&url, &body).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(status, &body)),
        }
    }

    async fn fetch(&self, url: &str) -> Result<(StatusCode, Option<String>, Bytes), DiscoverError> {
        let unanswered = |source: Box<dyn std::error::Error + Send + Sync>| {
            let url = url.to_owned();
            DiscoverError::Unanswered { url, source }
        };
        let request = Request::get(url)
            .header(ACCEPT, "application/vnd.github.v3+json")
            .header(USER_AGENT, "kelos-standin")
            .body(Empty::new())
            .map_err(|source| DiscoverError::Address {
                url: url.to_owned(),
                source,
            })?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| unanswered(Box::new(error)))?;
        let status = answer.status();
        let link = answer.headers().get(LINK).and_then(|v| v.to_str().ok());
        let next = link.and_then(next_page);
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| unanswered(Box::new(error)))?;
        Ok((status, next, body.to_bytes()))
    }
}

fn decode<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, DiscoverError> {
    serde_json::from_slice(body).map_err(|source| DiscoverError::Unreadable {
        url: url.to_owned(),
        source,
    })
}

fn refused(status: StatusCode, body: &[u8]) -> DiscoverError {
    let body = String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
    DiscoverError::Refused { status, body }
}

fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    rest.split_once('>').map(|(url, _)| url.to_owned())
}

/// A GitHub user.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct User {
    pub(super) login: String,
}

#[derive(Debug, Deserialize)]
struct Label {
    name: String,
}

/// An issue, or the part of a pull request that is one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Issue {
    pub(super) number: i64,
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) html_url: String,
    labels: Vec<Label>,
    pub(super) user: User,
    pub(super) pull_request: Option<serde::de::IgnoredAny>,
}

impl Issue {
    pub(super) fn label_names(&self) -> Vec<String> {
        self.labels.iter().map(|label| label.name.clone()).collect()
    }
}

/// A pull request's own part.
#[derive(Debug, Deserialize)]
pub(super) struct Pull {
    #[serde(flatten)]
    pub(super) issue: Issue,
    #[serde(default)]
    pub(super) draft: bool,
    #[serde(default)]
    pub(super) head: Head,
}

/// Where a pull request comes from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) r#ref: String,
}

/// A comment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Comment {
    body: Option<String>,
    pub(super) created_at: String,
    pub(super) user: User,
}

impl Comment {
    pub(super) fn body(&self) -> &str {
        self.body.as_deref().unwrap_or_default()
    }
}

/// What a collaborator may do.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Permission {
    permission: String,
    role_name: String,
}

impl Permission {
    pub(super) fn name(self) -> String {
        if self.role_name.is_empty() {
            self.permission
        } else {
            self.role_name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Repository, escape, next_page};

    #[test]
    fn repositories_are_read_off_every_spelling() {
        for text in [
            "o/r",
            "https://github.com/o/r",
            "https://github.com/o/r.git",
            "git@github.com:o/r.git",
        ] {
            let repository = Repository::of("", text).expect("names a repository");
            assert_eq!(repository.path("issues", &[]), "/repos/o/r/issues", "{text}");
        }
        assert!(Repository::of("", "r").is_err());
    }

    #[test]
    fn queries_are_escaped_and_links_followed() {
        assert_eq!(escape("a b,c/d"), "a%20b%2Cc%2Fd");
        let link = r#"<http://h/x?page=1>; rel="prev", <http://h/x?page=3>; rel="next""#;
        assert_eq!(next_page(link).as_deref(), Some("http://h/x?page=3"));
        assert_eq!(next_page(r#"<http://h/x>; rel="last""#), None);
    }
}
