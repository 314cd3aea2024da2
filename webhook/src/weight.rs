//! What JSON takes in memory once it is parsed, counted before it is: `[0,0,…` becomes sixteen times as large, and
//! `[{"":0},{"":0},…` eighty times.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::review::DecodeError;

/// Of a value, in bytes: twice its own size, because a list that grows is copied to one of twice the length.
const VALUE: usize = 2 * size_of::<serde_json::Value>();
/// Of text, beside its bytes.
const TEXT: usize = 16;
/// Of an object that is not empty: the node of a B-tree, with room for 11 entries.
const NODE: usize = 11 * (size_of::<String>() + size_of::<serde_json::Value>()) + 32;
/// Of each entry of an object: nodes are half full, and have a list of children.
const ENTRY: usize = NODE / 5;

/// About how many bytes `json` takes when it is parsed into values. `None`: more than `limit`.
///
/// Nothing is built meanwhile, and counting ends at the limit.
pub(crate) fn weigh(json: &[u8], limit: usize) -> Result<Option<usize>, DecodeError> {
    let mut scale = Scale { weight: 0, limit };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let weighed = scale.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match weighed {
        _ if scale.weight > limit => Ok(None),
        Ok(()) => Ok(Some(scale.weight)),
        Err(error) => Err(DecodeError::from(error)),
    }
}

struct Scale {
    weight: usize,
    limit: usize,
}

impl Scale {
    fn put<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > self.limit {
            return Err(E::custom("too heavy"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Scale {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Scale {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.put(VALUE)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.put(VALUE)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.put(VALUE)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.put(VALUE)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.put(VALUE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.put(VALUE + TEXT + text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.put(VALUE)?;
        while list.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        self.put(VALUE)?;
        let mut cost = NODE;
        while object.next_key_seed(&mut *self)?.is_some() {
            self.put(cost)?;
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
    fn what_grows_when_it_is_parsed_weighs_accordingly() {
        for (json, times) in [
            (format!("[{}0]", "0,".repeat(10_000)), 16),
            (format!("[{}0]", "[],".repeat(10_000)), 10),
            (format!("[{}0]", "{\"\":0},".repeat(10_000)), 80),
            (format!("[{}0]", "\"\",".repeat(10_000)), 10),
        ] {
            let weight = weigh(json.as_bytes(), usize::MAX).unwrap().unwrap();
            assert!(weight > times * json.len(), "{weight} of {}", json.len());
            assert_eq!(weigh(json.as_bytes(), weight).unwrap(), Some(weight));
            assert_eq!(weigh(json.as_bytes(), weight - 1).unwrap(), None);
        }
        let text = format!("\"{}\"", "x".repeat(10_000));
        let weight = weigh(text.as_bytes(), usize::MAX).unwrap().unwrap();
        assert!((10_000..10_200).contains(&weight), "{weight}");
    }

    #[test]
    fn what_is_no_json_has_no_weight_and_nothing_is_counted_past_the_limit() {
        for bad in ["", "[", "[]]", "{\"a\" 1}", "nul"] {
            assert!(
                matches!(weigh(bad.as_bytes(), 1_000), Err(DecodeError::Json { .. })),
                "{bad}"
            );
        }
        // The error behind the limit is not met.
        let json = format!("[{}!", "0,".repeat(10_000));
        assert_eq!(weigh(json.as_bytes(), 1_000).unwrap(), None);
        let deep = "[".repeat(100_000);
        assert!(weigh(deep.as_bytes(), usize::MAX).is_err());
    }
}
