//! One GET, bounded in time and size. Over TLS with the roots of the system, or in the clear to a proxy of the cluster.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            Client, Error as Failure,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::TokioExecutor,
};
use jiff::Timestamp;
use rustls::{ClientConfig, crypto::CryptoProvider};
use rustls_platform_verifier::BuilderVerifierExt as _;
use taskgate_cache::Clock;
use tokio::time::timeout;

/// From the request to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest page, in bytes: 100 comments of GitHub's greatest length, 64 KiB each, and then some.
pub(super) const MAX_PAGE: usize = 8 << 20;
/// The longest answer about one thing, in bytes: its text is no longer than a comment.
pub(super) const MAX_ITEM: usize = 1 << 20;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_mins(1);
/// GitHub refuses requests without a user agent.
const USER_AGENT: &str = concat!("taskgate/", env!("CARGO_PKG_VERSION"));

type Plain = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;
type Tunnelled = Client<HttpsConnector<Tunnel<HttpConnector>>, Empty<Bytes>>;

/// The client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    plain: Plain,
    /// Through the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`).
    tunnelled: Option<Tunnelled>,
    proxies: Arc<Matcher>,
    clock: Clock,
}

/// A token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AuthToken(header::HeaderValue);

impl AuthToken {
    /// `None` when `text` cannot stand in a header.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut value = header::HeaderValue::from_str(&format!("token {text}")).ok()?;
        value.set_sensitive(true);
        (!text.is_empty()).then_some(Self(value))
    }
}

/// An answer with any status code.
pub(super) type HttpResponse = Response<Bytes>;

/// The header of an answer, if it is text.
pub(super) fn header_of(answer: &HttpResponse, name: impl header::AsHeaderName) -> Option<&str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("not an address")]
    Address,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("an answer of more than {} MiB", .0 >> 20)]
    TooLong(usize),
    #[error("{0}")]
    Connection(String),
}

impl Http {
    /// Errors when the system's trusted roots cannot be read.
    pub(super) fn new(clock: &Clock) -> Result<Self, rustls::Error> {
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let https = |tls| {
            let https = HttpsConnectorBuilder::new().with_tls_config(tls);
            https.https_or_http().enable_http1()
        };
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(8);
        let proxies = Arc::new(Matcher::from_env());
        let proxy = proxies.intercept(&Uri::from_static("https://api.github.com/"));
        let tunnelled = proxy.map(|proxy| {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp.clone());
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            builder.build(https(tls.clone()).wrap_connector(tunnel))
        });
        Ok(Self {
            plain: builder.build(https(tls).wrap_connector(tcp)),
            tunnelled,
            proxies,
            clock: clock.clone(),
        })
    }

    /// What time it is.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Gets `url`; with `tag`, only if it has another one. No more than `max` bytes of the answer are read.
    pub(super) async fn get(
        &self,
        url: &str,
        token: Option<&AuthToken>,
        tag: Option<&str>,
        max: usize,
    ) -> Result<HttpResponse, HttpError> {
        let uri: Uri = url.parse().map_err(|_| HttpError::Address)?;
        let mut request = Request::get(&uri)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(AuthToken(token)) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Empty::new()).map_err(|_| HttpError::Address)?;
        timeout(TIMEOUT, async {
            let response = match &self.tunnelled {
                Some(tunnelled) if uri.scheme_str() == Some("https") && self.proxies.intercept(&uri).is_some() => {
                    tunnelled.request(request).await
                }
                _ => self.plain.request(request).await,
            };
            collect(response, max).await
        })
        .await
        .unwrap_or(Err(HttpError::Late))
    }
}

async fn collect(response: Result<Response<Incoming>, Failure>, max: usize) -> Result<HttpResponse, HttpError> {
    let response = response.map_err(|error| HttpError::Connection(root_cause(&error)))?;
    let (head, body) = response.into_parts();
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong(max)),
        Err(error) => Err(HttpError::Connection(error.to_string())),
    }
}

/// The innermost error, such as `Connection refused`: the outer ones only state that something failed.
fn root_cause(error: &Failure) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
