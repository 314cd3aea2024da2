//! Who may read `/metrics`: whose token the API server knows, and who may `get` that path.
//!
//! RBAC: `create` on tokenreviews and subjectaccessreviews.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::warn;

use crate::{fresh::permission, rate::Rate};

/// How long an answer of the API server counts.
const FRESH: Duration = Duration::from_mins(1);
/// How long a token that was good is asked about before others.
const KNOWN: Duration = Duration::from_mins(15);
/// How many tokens are known at most. A cluster has a few scrapers.
const MOST: usize = 64;
/// How often the API server is asked about tokens that are not known: each costs it two reviews, and anybody may send one.
const EVERY: Duration = Duration::from_millis(200);
const BURST: u32 = 20;

type TokenHash = [u8; 32];

/// Asks the API server who may read metrics. Only good answers are remembered, so what anybody sends displaces nothing.
pub(crate) struct Scrapers {
    client: Client,
    good: Mutex<HashMap<TokenHash, Instant>>,
    unknown: Rate,
}

impl Scrapers {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            good: Mutex::default(),
            unknown: Rate::new(EVERY, BURST),
        }
    }

    /// Whether who sends `headers` may read the metrics; if not, the status and text to answer with.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Some(token) = bearer(headers) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is needed\n"));
        };
        let hash = TokenHash::from(Sha256::digest(token));
        let known = self.good().get(&hash).map(Instant::elapsed);
        match known {
            Some(age) if age < FRESH => return Ok(()),
            Some(age) if age < KNOWN => {}
            _ if self.unknown.take() => {}
            _ => return Err((StatusCode::TOO_MANY_REQUESTS, "too many unknown tokens\n")),
        }
        let outcome = self.ask(token).await.unwrap_or_else(|error| {
            warn!(%error, "who reads the metrics is not known");
            Err((
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server did not say whether you may read this\n",
            ))
        });
        let mut good = self.good();
        match outcome {
            Ok(()) => {
                good.retain(|_, at| at.elapsed() < KNOWN);
                if good.len() < MOST || good.contains_key(&hash) {
                    good.insert(hash, Instant::now());
                }
            }
            // Unless the API server did not answer.
            Err((StatusCode::SERVICE_UNAVAILABLE, _)) => {}
            Err(_) => drop(good.remove(&hash)),
        }
        outcome
    }

    async fn ask(&self, token: &str) -> kube::Result<Result<(), (StatusCode, &'static str)>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Err((
                StatusCode::UNAUTHORIZED,
                "the API server does not know this token\n",
            )));
        };
        Ok(if self.may_read(user).await? {
            Ok(())
        } else {
            Err((StatusCode::FORBIDDEN, "get of the path /metrics is not allowed\n"))
        })
    }

    async fn may_read(&self, user: UserInfo) -> kube::Result<bool> {
        let spec = SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        Ok(permission(&self.client, spec).await?.allowed)
    }

    fn good(&self) -> MutexGuard<'_, HashMap<TokenHash, Instant>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
