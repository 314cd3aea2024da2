//! Lengths of time in the form of Go's `time.ParseDuration`, as policies and spawners state them.

use std::{fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest duration that Go knows, in nanoseconds: some 292 years.
const LONGEST: u128 = i64::MAX as u128;
/// How many digits after the point count. More would be finer than any unit.
const FRACTION: usize = 15;

/// A length of time, never negative: `1h30m`, `90s`, `1.5h`.
///
/// Reading one never panics, whatever the text. Where an object holds one that is longer than Go can represent, the object
/// is read nevertheless, so that it does not keep a watch from reading the others; see [`Duration::is_too_long`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It does not have the form of one.
    #[error("not a duration, such as 1h30m or 90s")]
    Malformed,
    /// It is less than nothing.
    #[error("a duration cannot be negative")]
    Negative,
    /// Go could not represent it.
    #[error("longer than {}h", LONGEST / 3_600_000_000_000)]
    TooLong,
}

impl Duration {
    /// The value of every duration that is too long.
    const TOO_LONG: Self = Self(time::Duration::MAX);

    /// Whether it is longer than Go can represent (some 292 years), and so nothing to reckon with.
    pub fn is_too_long(self) -> bool {
        self.0.as_nanos() > LONGEST
    }
}

impl From<time::Duration> for Duration {
    fn from(duration: time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if text.is_empty() {
            return Err(InvalidDuration::Malformed);
        }
        let mut nanos = 0;
        let mut rest = if text == "0" { "" } else { text };
        while !rest.is_empty() {
            let (part, after) = part(rest)?;
            nanos += part;
            if nanos > LONGEST {
                return Err(InvalidDuration::TooLong);
            }
            rest = after;
        }
        if is_negative && nanos > 0 {
            return Err(InvalidDuration::Negative);
        }
        let nanos = u64::try_from(nanos).map_err(|_| InvalidDuration::TooLong)?;
        Ok(Self(time::Duration::from_nanos(nanos)))
    }
}

/// The nanoseconds of the first number with its unit, at most about the square of `u64::MAX`; and what follows.
fn part(text: &str) -> Result<(u128, &str), InvalidDuration> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(InvalidDuration::Malformed);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit());
    let (unit, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let unit = nanos(unit).ok_or(InvalidDuration::Malformed)?;
    let number = |digits: &str| match digits {
        "" => Ok(0),
        digits => digits
            .parse::<u64>()
            .map(u128::from)
            .map_err(|_| InvalidDuration::TooLong),
    };
    let fraction = &fraction[..fraction.len().min(FRACTION)];
    // Numbers below 2^64 and units below 2^42: none of it overflows.
    let tenths = fraction.bytes().fold(1, |scale: u128, _| scale * 10);
    Ok((number(whole)? * unit + number(fraction)? * unit / tenths, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.parse() {
            Err(InvalidDuration::TooLong) => Ok(Self::TOO_LONG),
            parsed => parsed.map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A string. Not of the format `duration`, which is that of ISO 8601.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("-0s", 0),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1ms2us3ns", 1_002_003),
            ("2µs3μs", 5_000),
            ("1.00000000000000000000001s", 1_000_000_000),
            ("9223372036854775807ns", i64::MAX.unsigned_abs()),
        ] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(
                time::Duration::from(parsed),
                time::Duration::from_nanos(nanos),
                "{text}"
            );
            assert!(!parsed.is_too_long(), "{text}");
        }
    }

    #[test]
    fn an_invalid_duration_has_a_reason() {
        use InvalidDuration::{Malformed, Negative, TooLong};
        let hours = format!("{}h", "9".repeat(30));
        for (text, why) in [
            ("", Malformed),
            ("-", Malformed),
            ("soon", Malformed),
            ("5", Malformed),
            ("5m-3s", Malformed),
            ("--5m", Malformed),
            ("1d", Malformed),
            ("1e9h", Malformed),
            (".s", Malformed),
            ("1h 2m", Malformed),
            ("infs", Malformed),
            ("-5m", Negative),
            ("9223372036854775808ns", TooLong),
            ("2562047h2562047h", TooLong),
            (hours.as_str(), TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(why), "{text}");
        }
        assert_eq!(TooLong.to_string(), "longer than 2562047h");
    }

    #[test]
    fn an_object_with_one_that_is_too_long_can_be_read_and_written() {
        let read = |text: &str| serde_json::from_value::<Duration>(json!(text));
        let long = read("9999999h").unwrap();
        assert!(long.is_too_long());
        let again = read(&long.to_string()).unwrap();
        assert!(again.is_too_long());
        assert!(read("-1s").is_err() && read("soon").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Duration>();
        }

        #[test]
        fn no_text_that_looks_like_a_duration_does(text in "[-+]?([0-9]{0,40}\\.?[0-9]{0,40}(ns|us|µs|ms|s|m|h|)[-+]?){0,6}") {
            if let Ok(parsed) = text.parse::<Duration>() {
                prop_assert!(!parsed.is_too_long());
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }
    }
}
