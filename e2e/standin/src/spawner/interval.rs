//! `pollInterval` (kelos §2.3).

use crate::types::When;
use std::time::Duration;

/// Empty and unreadable text.
const DEFAULT: Duration = Duration::from_mins(5);

/// The interval of the source in use.
pub(super) fn of(when: &When) -> Duration {
    let issues = when.github_issues.as_ref().map(|s| &s.poll_interval);
    let pulls = when.github_pull_requests.as_ref().map(|s| &s.poll_interval);
    issues.or(pulls).map_or(DEFAULT, |text| parse(text))
}

/// A Go duration (`1h30m`, `500ms`) or bare seconds.
fn parse(text: &str) -> Duration {
    if let Ok(seconds) = text.parse() {
        return Duration::from_secs(seconds);
    }
    duration(text).unwrap_or(DEFAULT)
}

fn duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(digits);
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        text = rest;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, parse};
    use std::time::Duration;

    #[test]
    fn intervals_are_go_durations_or_seconds() {
        for (text, wanted) in [
            ("5s", Duration::from_secs(5)),
            ("1h30m", Duration::from_mins(90)),
            ("500ms", Duration::from_millis(500)),
            ("1.5s", Duration::from_millis(1500)),
            ("30", Duration::from_secs(30)),
            ("", DEFAULT),
            ("soon", DEFAULT),
            ("5x", DEFAULT),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }
}
