//! When an issue source may be read again: as its headers demand, else with exponential backoff.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The longest pause that headers can demand.
const MAX_PAUSE: SignedDuration = SignedDuration::from_hours(2);
/// The pause when an issue source demands one without a length.
const DEFAULT_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_mins(15);

/// The rate-limit headers of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateHeaders<'a> {
    /// `Retry-After`
    pub retry_after: Option<&'a str>,
    /// `X-RateLimit-Remaining`
    pub remaining: Option<&'a str>,
    /// `X-RateLimit-Reset`, in seconds since 1970.
    pub reset: Option<&'a str>,
}

/// Until when no further request may be sent, if the answer with `code` and `headers` demands a pause.
///
/// A refusal with `Retry-After` is GitHub's secondary limit; any answer that leaves nothing of the quota ends it until its
/// reset.
pub fn pause(code: u16, headers: RateHeaders<'_>, now: Timestamp) -> Option<Timestamp> {
    let seconds = |text: &str| text.trim().parse::<i64>().ok();
    let after = |wait: SignedDuration| {
        now.checked_add(wait.clamp(SignedDuration::from_secs(1), MAX_PAUSE))
            .ok()
    };
    let refused = matches!(code, 403 | 429 | 503);
    if refused && let Some(text) = headers.retry_after {
        return after(seconds(text).map_or(DEFAULT_PAUSE, SignedDuration::from_secs));
    }
    if headers.remaining.and_then(seconds) == Some(0) && (refused || code < 400) {
        let reset = headers
            .reset
            .and_then(seconds)
            .and_then(|at| Timestamp::from_second(at).ok());
        return after(reset.map_or(DEFAULT_PAUSE, |reset| reset.duration_since(now)));
    }
    if code == 429 { after(DEFAULT_PAUSE) } else { None }
}

/// How long to wait after so many failures in a row, of which the first one waits `base`.
pub fn backoff(failures: u32, base: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(MAX_BACKOFF.max(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_that_headers_demand_are_bounded() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let headers = |retry_after, remaining, reset| RateHeaders {
            retry_after,
            remaining,
            reset,
        };
        for (code, headers, seconds) in [
            (200, headers(None, Some("12"), Some("1000060")), None),
            (200, headers(None, Some("0"), Some("1000060")), Some(60)),
            (304, headers(None, Some("0"), Some("1000060")), Some(60)),
            (403, headers(None, Some("0"), Some("1000060")), Some(60)),
            (403, headers(None, Some("0"), Some("5")), Some(1)),
            (403, headers(None, Some("0"), Some("soon")), Some(60)),
            (403, headers(None, Some("0"), Some("9000000")), Some(7200)),
            (403, headers(Some("7"), Some("4000"), None), Some(7)),
            (
                429,
                headers(Some("Fri, 01 Jan 2027 00:00:00 GMT"), None, None),
                Some(60),
            ),
            (429, headers(None, None, None), Some(60)),
            (403, headers(None, Some("4000"), None), None),
            (404, headers(None, Some("0"), Some("1000060")), None),
            (500, headers(None, None, None), None),
        ] {
            let until = pause(code, headers, now).map(|until| until.duration_since(now).as_secs());
            assert_eq!(until, seconds, "{code} {headers:?}");
        }
    }

    #[test]
    fn patience_doubles_up_to_its_limit() {
        let wait = |failures| backoff(failures, Duration::from_secs(30)).as_secs();
        assert_eq!([1, 2, 3, 9, u32::MAX].map(wait), [30, 60, 120, 900, 900]);
        let hour = Duration::from_hours(1);
        assert_eq!(backoff(4, hour), hour);
    }
}
