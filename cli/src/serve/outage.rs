//! One line in the log when the API server stops answering, one for each further cause, and one when it answers again, however many
//! requests fail meanwhile. The parts whose requests these are log them at debug level.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Response, StatusCode};
use tokio::time::Instant;
use tower::BoxError;
use tracing::{info, warn};

/// For how long all requests must succeed until the outage is over: an API server that starts refuses some for a moment.
const OVER_AFTER: Duration = Duration::from_secs(5);
/// How many causes of one outage are logged.
const MAX_CAUSES: usize = 5;

/// What was logged about the API server. Cheap to clone; all clones are one log.
#[derive(Clone, Debug, Default)]
pub(super) struct OutageLog(Arc<Mutex<Option<Outage>>>);

/// An outage that goes on.
#[derive(Debug)]
struct Outage {
    since: Instant,
    last: Instant,
    /// Since when all requests succeed.
    answered: Option<Instant>,
    failed: u64,
    causes: BTreeSet<String>,
}

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// The API server does not answer, for this reason.
    Began(String),
    /// The same for another reason.
    Cause(String),
    /// It answers again: so many requests failed, the last of them so long after the first.
    Over(u64, Duration),
}

impl OutageLog {
    /// Takes in the result of a request.
    pub(super) fn observe<T>(&self, response: &Result<Response<T>, BoxError>) {
        match self.news(cause(response), Instant::now()) {
            None => {}
            Some(News::Began(cause)) => warn!(cause, "the API server does not answer"),
            Some(News::Cause(cause)) => warn!(cause, "the API server still does not answer"),
            Some(News::Over(failed, lasted)) => {
                info!(failed_requests = failed, ?lasted, "the API server answers again");
            }
        }
    }

    fn news(&self, cause: Option<String>, now: Instant) -> Option<News> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (current.as_mut(), cause) {
            (None, None) => None,
            (None, Some(cause)) => {
                *current = Some(Outage {
                    since: now,
                    last: now,
                    answered: None,
                    failed: 1,
                    causes: BTreeSet::from([cause.clone()]),
                });
                Some(News::Began(cause))
            }
            (Some(outage), Some(cause)) => {
                (outage.last, outage.answered) = (now, None);
                outage.failed += 1;
                let is_new = outage.causes.len() < MAX_CAUSES && outage.causes.insert(cause.clone());
                is_new.then_some(News::Cause(cause))
            }
            (Some(outage), None) => {
                let answered = *outage.answered.get_or_insert(now);
                if now.duration_since(answered) < OVER_AFTER {
                    return None;
                }
                let over = News::Over(outage.failed, outage.last.duration_since(outage.since));
                *current = None;
                Some(over)
            }
        }
    }
}

/// Why there is no answer: the innermost error, or the status of an API server that takes no requests. Any other status is an answer.
fn cause<T>(response: &Result<Response<T>, BoxError>) -> Option<String> {
    match response {
        Ok(response) => match response.status() {
            status
            @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                Some(status.to_string())
            }
            _ => None,
        },
        Err(error) => {
            let mut error: &(dyn std::error::Error + 'static) = &**error;
            while let Some(source) = error.source() {
                error = source;
            }
            Some(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_per_cause_and_counted_at_its_end() {
        let (log, start) = (OutageLog::default(), Instant::now());
        let at = |seconds: u64, cause: Option<&str>| {
            log.news(cause.map(str::to_owned), start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, None), None);
        assert_eq!(at(1, Some("reset")), Some(News::Began("reset".into())));
        assert_eq!(at(1, Some("reset")), None);
        assert_eq!(at(2, Some("refused")), Some(News::Cause("refused".into())));
        for second in 2..30 {
            assert_eq!(at(second, Some("refused")), None);
        }
        assert_eq!(at(31, None), None, "that may be one answer among failures");
        assert_eq!(at(32, Some("503")), Some(News::Cause("503".into())));
        assert_eq!(at(50, None), None, "others may fail yet");
        assert_eq!(at(54, None), None);
        assert_eq!(at(55, None), Some(News::Over(32, Duration::from_secs(31))));
        assert_eq!(at(56, None), None);
        assert_eq!(
            at(60, Some("refused")),
            Some(News::Began("refused".into())),
            "another outage"
        );
        let causes = (0..100).filter_map(|n| at(61, Some(&n.to_string())));
        assert_eq!(causes.count(), MAX_CAUSES - 1);
    }

    #[test]
    fn only_what_is_no_answer_is_an_outage() {
        for (status, is_outage) in [
            (200, false),
            (404, false),
            (409, false),
            (500, false),
            (429, true),
            (503, true),
        ] {
            let response = Response::builder().status(status).body(()).map_err(BoxError::from);
            assert_eq!(cause(&response).is_some(), is_outage, "{status}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(refused));
        let cause = cause(&Err::<Response<()>, _>(Box::new(error))).unwrap();
        assert!(cause.contains("refused") && !cause.contains("ServiceError"), "{cause}");
    }
}
