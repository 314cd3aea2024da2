//! The error answers to requests that get no decision. To the API server each of them is a failed call, so that the webhook's
//! `failurePolicy` decides about the object.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::{inputs::ClusterReadError, review::DecodeError};

/// Why a request gets no decision.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewRefusal {
    /// Too many requests are being answered.
    #[error("taskgate is busy: too many requests in flight")]
    Busy,
    /// Too many bytes of request bodies are in memory.
    #[error("taskgate is busy: too many bytes in flight")]
    Memory,
    /// The caches are not synced yet.
    #[error("taskgate is starting: its caches are not synced yet")]
    Starting,
    /// The body is larger than any review can be.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body takes more memory than any review may, once it is parsed.
    #[error("the body would take more than {limit} bytes of memory")]
    TooHeavy {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    SlowBody,
    /// The body is not declared as JSON.
    #[error("the content type must be application/json")]
    ContentType,
    /// The body ended before it was complete.
    #[error("the body could not be read")]
    Aborted,
    /// The body is not a review.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// An input of the decision cannot be read.
    #[error(transparent)]
    ClusterRead(#[from] ClusterReadError),
    /// The review took longer than its deadline.
    #[error("taskgate did not reach a decision in time")]
    Deadline,
    /// The review panicked.
    #[error("taskgate failed on this request")]
    Panic,
}

impl ReviewRefusal {
    /// The HTTP status, and the cause in one word, from a closed set: the label of a metric.
    ///
    /// The status is never 429, and never comes with `Retry-After`: client-go would wait and retry, inside the time that the object's
    /// creator waits.
    fn status_and_cause(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Memory => (StatusCode::SERVICE_UNAVAILABLE, "memory"),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::TooHeavy { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_heavy"),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow_body"),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type"),
            Self::Aborted => (StatusCode::BAD_REQUEST, "aborted"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::ClusterRead(_) => (StatusCode::INTERNAL_SERVER_ERROR, "facts"),
            Self::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
            Self::Panic => (StatusCode::INTERNAL_SERVER_ERROR, "panic"),
        }
    }

    /// The cause in one word.
    pub(super) fn cause(&self) -> &'static str {
        self.status_and_cause().1
    }
}

/// Plain text: the API server shows it in the error that the object's creator gets.
impl IntoResponse for ReviewRefusal {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status_and_cause().0, content_type, self.to_string()).into_response()
    }
}
