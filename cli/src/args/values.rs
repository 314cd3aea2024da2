//! What the values of flags are parsed into.

use std::time::Duration;

use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

/// A DNS label: the form of a namespace's and a Service's name.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let legal = text.len() <= 63
        && text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|c| inner(c) || c == '-');
    if legal {
        Ok(text.to_owned())
    } else {
        Err("not a DNS label: a-z, 0-9 and '-', at most 63 characters".to_owned())
    }
}

pub(super) fn base_url(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("https://")
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
    authority
        .map(|_| text.to_owned())
        .ok_or_else(|| "not of the form https://HOST:PORT".to_owned())
}

/// A Go-style duration of at most ten minutes, such as `5s` or `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::from(parsed);
    if duration > Duration::from_mins(10) {
        Err("at most 10m".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration of at least six seconds and at most a hundred years.
pub(super) fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let lifetime = Duration::from(parsed);
    if (Duration::from_secs(6)..=Duration::from_hours(100 * 365 * 24)).contains(&lifetime) {
        SignedDuration::try_from(lifetime).map_err(|error| error.to_string())
    } else {
        Err("between 6s and 876000h".to_owned())
    }
}

/// `NAMESPACE/NAME`, both legal names.
pub(super) fn certificate_name(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').ok_or("not of the form NAMESPACE/NAME")?;
    object_name(namespace)?;
    object_name(name)?;
    Ok(text.to_owned())
}

/// A duration between a second and ten minutes.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(interval)
}

/// `http://HOST:PORT`, perhaps with a path before `/v1/traces`.
pub(super) fn collector_url(text: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none() {
        Ok(uri)
    } else {
        Err("not of the form http://HOST:PORT: a collector of the cluster, in the clear".to_owned())
    }
}

/// The base of a tracker's API, without a slash at its end.
pub(super) fn tracker_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_base = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']));
    if is_base {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("not of the form https://HOST[:PORT][/PATH]".to_owned())
    }
}

/// `HOST` or `HOST:PORT`, in lower case.
pub(super) fn host(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-.:[]".contains(&c);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("not of the form HOST[:PORT]".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
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
}
