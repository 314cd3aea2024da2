//! Authentication and authorization of `/metrics`: a bearer token that the API server knows, of a user that may `get` that path.
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
use taskgate_policy::sha256;
use tokio::time::Instant;
use tracing::warn;

use crate::{cluster::create_access_review, rate_limiter::RateLimiter};

/// How long a good answer of the API server is reused.
const ANSWER_TTL: Duration = Duration::from_mins(1);
/// How long an accepted token is exempt from the rate limit for unknown tokens.
const ACCEPTED_TTL: Duration = Duration::from_mins(15);
/// How many accepted tokens are kept at most. A cluster has a few scrapers.
const MAX_ACCEPTED: usize = 64;
/// How often the API server is asked about unknown tokens: each costs it two reviews, and any caller may send one.
const UNKNOWN_EVERY: Duration = Duration::from_millis(200);
const UNKNOWN_BURST: u32 = 20;

type TokenHash = [u8; 32];

/// Asks the API server who may read metrics. Only accepted tokens are kept, so that no flood of others displaces them.
pub(crate) struct MetricsAuthorizer {
    client: Client,
    accepted: Mutex<HashMap<TokenHash, Instant>>,
    unknown: RateLimiter,
}

impl MetricsAuthorizer {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            accepted: Mutex::default(),
            unknown: RateLimiter::new(UNKNOWN_EVERY, UNKNOWN_BURST),
        }
    }

    /// Errors with the status and text to answer with, unless the sender of `headers` may read the metrics.
    pub(super) async fn authorize(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Some(token) = bearer(headers) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is needed\n"));
        };
        let hash = sha256(token.as_bytes());
        let known = self.accepted().get(&hash).map(Instant::elapsed);
        match known {
            Some(age) if age < ANSWER_TTL => return Ok(()),
            Some(age) if age < ACCEPTED_TTL => {}
            _ if self.unknown.try_acquire() => {}
            _ => return Err((StatusCode::TOO_MANY_REQUESTS, "too many unknown tokens\n")),
        }
        let outcome = self.review(token).await.unwrap_or_else(|error| {
            warn!(%error, "cannot authorize a reader of the metrics");
            Err((
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server did not say whether you may read this\n",
            ))
        });
        let mut accepted = self.accepted();
        match outcome {
            Ok(()) => {
                accepted.retain(|_, at| at.elapsed() < ACCEPTED_TTL);
                if accepted.len() < MAX_ACCEPTED || accepted.contains_key(&hash) {
                    accepted.insert(hash, Instant::now());
                }
            }
            // The API server did not answer: an accepted token stays accepted.
            Err((StatusCode::SERVICE_UNAVAILABLE, _)) => {}
            Err(_) => drop(accepted.remove(&hash)),
        }
        outcome
    }

    async fn review(&self, token: &str) -> kube::Result<Result<(), (StatusCode, &'static str)>> {
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
        Ok(create_access_review(&self.client, spec).await?.allowed)
    }

    fn accepted(&self) -> MutexGuard<'_, HashMap<TokenHash, Instant>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
