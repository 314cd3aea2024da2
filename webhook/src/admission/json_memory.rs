//! Estimates the memory that JSON takes once it is parsed, without parsing it into values: `[0,0,…` becomes sixteen times as
//! large, and `[{"":0},{"":0},…` eighty times.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::review::DecodeError;

/// A value, in bytes: twice its own size, because a growing list is copied to one of twice the length.
const VALUE: usize = 2 * size_of::<serde_json::Value>();
/// A text, beside its bytes.
const TEXT: usize = 16;
/// An object that is not empty: the node of a B-tree with 11 entries.
const NODE: usize = 11 * (size_of::<String>() + size_of::<serde_json::Value>()) + 32;
/// Each entry of an object: nodes are half full, and have a list of children.
const ENTRY: usize = NODE / 5;

/// About how many bytes `json` takes when it is parsed into values; `None` if more than `limit`.
///
/// Builds nothing, and stops at the limit.
pub(super) fn parsed_size(json: &[u8], limit: usize) -> Result<Option<usize>, DecodeError> {
    let mut counter = SizeCounter { size: 0, limit };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = counter.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match parsed {
        _ if counter.size > limit => Ok(None),
        Ok(()) => Ok(Some(counter.size)),
        Err(error) => Err(DecodeError::from(error)),
    }
}

struct SizeCounter {
    size: usize,
    limit: usize,
}

impl SizeCounter {
    fn add<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.size = self.size.saturating_add(bytes);
        if self.size > self.limit {
            return Err(E::custom("too large"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut SizeCounter {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut SizeCounter {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.add(VALUE)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.add(VALUE)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.add(VALUE)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.add(VALUE)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.add(VALUE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.add(VALUE + TEXT + text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.add(VALUE)?;
        while list.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        self.add(VALUE)?;
        let mut cost = NODE;
        while object.next_key_seed(&mut *self)?.is_some() {
            self.add(cost)?;
            cost = ENTRY;
            object.next_value_seed(&mut *self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_grows_when_it_is_parsed_counts_by_its_parsed_size() {
        for (json, times) in [
            (format!("[{}0]", "0,".repeat(10_000)), 16),
            (format!("[{}0]", "[],".repeat(10_000)), 10),
            (format!("[{}0]", "{\"\":0},".repeat(10_000)), 80),
            (format!("[{}0]", "\"\",".repeat(10_000)), 10),
        ] {
            let size = parsed_size(json.as_bytes(), usize::MAX).unwrap().unwrap();
            assert!(size > times * json.len(), "{size} of {}", json.len());
            assert_eq!(parsed_size(json.as_bytes(), size).unwrap(), Some(size));
            assert_eq!(parsed_size(json.as_bytes(), size - 1).unwrap(), None);
        }
        let text = format!("\"{}\"", "x".repeat(10_000));
        let size = parsed_size(text.as_bytes(), usize::MAX).unwrap().unwrap();
        assert!((10_000..10_200).contains(&size), "{size}");
    }

    #[test]
    fn invalid_json_has_no_size_and_counting_stops_at_the_limit() {
        for bad in ["", "[", "[]]", "{\"a\" 1}", "nul"] {
            assert!(
                matches!(parsed_size(bad.as_bytes(), 1_000), Err(DecodeError::Json { .. })),
                "{bad}"
            );
        }
        // The error behind the limit is not reached.
        let json = format!("[{}!", "0,".repeat(10_000));
        assert_eq!(parsed_size(json.as_bytes(), 1_000).unwrap(), None);
        let deep = "[".repeat(100_000);
        assert!(parsed_size(deep.as_bytes(), usize::MAX).is_err());
    }
}
