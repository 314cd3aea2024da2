//! Parsers of flag values: a wrong value stops the start with the flag's name.

use std::time::Duration;

use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

/// A DNS label: the form of a namespace's and a Service's name.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    if text.len() <= 63 && !text.contains('.') && taskgate_api::is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("not a DNS label: a-z, 0-9 and '-', at most 63 characters".to_owned())
    }
}

pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("https://")
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
    authority
        .map(|_| text.to_owned())
        .ok_or_else(|| "not of the form https://HOST:PORT".to_owned())
}

/// A Go-style duration of at most ten minutes, such as `5s` or `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO, Duration::from_mins(10), "at most 10m")
}

/// A duration between a second and ten minutes.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    duration_within(
        text,
        Duration::from_secs(1),
        Duration::from_mins(10),
        "between 1s and 10m",
    )
}

/// A duration between a second and thirty days.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_hours(30 * 24);
    duration_within(text, Duration::from_secs(1), longest, "between 1s and 720h")
}

/// A duration of at least six seconds and at most a hundred years.
pub(crate) fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let longest = Duration::from_hours(100 * 365 * 24);
    let lifetime = duration_within(text, Duration::from_secs(6), longest, "between 6s and 876000h")?;
    SignedDuration::try_from(lifetime).map_err(|error| error.to_string())
}

fn duration_within(text: &str, shortest: Duration, longest: Duration, limits: &str) -> Result<Duration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::from(parsed);
    if (shortest..=longest).contains(&duration) {
        Ok(duration)
    } else {
        Err(limits.to_owned())
    }
}

/// `NAMESPACE/NAME`, both legal names.
pub(crate) fn certificate_name(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').ok_or("not of the form NAMESPACE/NAME")?;
    object_name(namespace)?;
    object_name(name)?;
    Ok(text.to_owned())
}

/// The base URL of an issue source, without a slash at its end.
pub(crate) fn source_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_base = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']));
    if is_base {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("not of the form https://HOST[:PORT][/PATH]".to_owned())
    }
}

/// `HOST` or `HOST:PORT`, in lower case.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-.:[]".contains(&c);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("not of the form HOST[:PORT]".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_url_has_no_path() {
        for url in ["http://127.0.0.1:1", "https://", "https://a/b", "127.0.0.1:1"] {
            assert!(base_url(url).is_err(), "{url}");
        }
        assert!(base_url("https://127.0.0.1:9443").is_ok());
    }

    #[test]
    fn a_period_is_from_a_second_to_thirty_days() {
        for (text, good) in [
            ("30m", true),
            ("1s", true),
            ("720h", true),
            ("0s", false),
            ("721h", false),
            ("-1h", false),
            ("soon", false),
        ] {
            assert_eq!(period(text).is_ok(), good, "{text}");
        }
    }
}
