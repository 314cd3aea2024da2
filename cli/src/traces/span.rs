//! One span, as OTLP's JSON has it.

use std::{
    fmt::Debug,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;

/// A finished span.
pub(super) type Span = Value;

/// What a span told so far.
#[derive(Debug)]
pub(super) struct Noted {
    began: SystemTime,
    attributes: Vec<Value>,
    uid: String,
    parent: Option<Parent>,
}

/// What the caller says of its own span, by W3C Trace Context.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    trace: String,
    span: String,
    sampled: bool,
}

impl Noted {
    pub(super) fn since(began: SystemTime) -> Self {
        Self {
            began,
            attributes: Vec::new(),
            uid: String::new(),
            parent: None,
        }
    }

    /// The span that ends now. `None`: it has no uid (the request was no review), or the caller does not want it.
    pub(super) fn until(self, ended: SystemTime) -> Option<Span> {
        let hex: String = self.uid.chars().filter(char::is_ascii_hexdigit).collect();
        if hex.len() != 32 || self.parent.as_ref().is_some_and(|parent| !parent.sampled) {
            return None;
        }
        let own = hex[16..].to_owned();
        let (trace, parent) = match self.parent {
            Some(parent) => (parent.trace, parent.span),
            None => (hex, String::new()),
        };
        Some(json!({
            "traceId": trace, "spanId": own, "parentSpanId": parent, "name": "review", "kind": SERVER,
            "startTimeUnixNano": nanoseconds(self.began), "endTimeUnixNano": nanoseconds(ended),
            "attributes": self.attributes,
        }))
    }

    fn note(&mut self, field: &Field, value: &Value) {
        let key = format!("taskgate.review.{}", field.name());
        self.attributes.push(json!({"key": key, "value": value}));
    }
}

impl Visit for Noted {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "traceparent" => self.parent = parent(value),
            name => {
                if name == "uid" {
                    value.clone_into(&mut self.uid);
                }
                self.note(field, &json!({"stringValue": value}));
            }
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, &json!({"boolValue": value}));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// What a `traceparent` header says. `None`: it is none.
fn parent(header: &str) -> Option<Parent> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits| text.len() == digits && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let is_id = |text: &str, digits| is_hex(text, digits) && text.contains(|c| c != '0');
    let legal = is_hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2);
    legal.then(|| Parent {
        trace: trace.to_owned(),
        span: span.to_owned(),
        sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
    })
}

/// As a string, for JSON has no numbers of 64 bits.
fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const UID: &str = "0705ab4c-f5e8-4b55-a1b5-1d3a3c9d2e10";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn noted(uid: &str, header: &str) -> Noted {
        Noted {
            uid: uid.to_owned(),
            parent: parent(header),
            ..Noted::since(UNIX_EPOCH + Duration::from_secs(1))
        }
    }

    #[test]
    fn a_trace_is_the_callers_or_is_called_by_the_uid() {
        let ended = UNIX_EPOCH + Duration::from_millis(1002);
        let alone = noted(UID, "").until(ended).unwrap();
        assert_eq!(alone["traceId"], "0705ab4cf5e84b55a1b51d3a3c9d2e10");
        assert_eq!(alone["spanId"], "a1b51d3a3c9d2e10");
        assert_eq!(alone["parentSpanId"], "");
        assert_eq!(alone["startTimeUnixNano"], "1000000000");
        assert_eq!(alone["endTimeUnixNano"], "1002000000");

        let child = noted(UID, &format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .until(ended)
            .unwrap();
        assert_eq!(child["traceId"], TRACE);
        assert_eq!(child["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(child["spanId"], alone["spanId"]);
    }

    #[test]
    fn what_nobody_wants_or_could_find_is_no_span() {
        assert_eq!(
            noted(UID, &format!("00-{TRACE}-00f067aa0ba902b7-00")).until(UNIX_EPOCH),
            None
        );
        assert_eq!(noted("", "").until(UNIX_EPOCH), None);
        assert_eq!(noted("no uuid", "").until(UNIX_EPOCH), None);
    }

    #[test]
    fn a_header_that_is_none_counts_as_absent() {
        for header in [
            "",
            "00",
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}-00f067aa0ba902b7-é1"),
        ] {
            assert_eq!(parent(header), None, "{header}");
        }
    }
}
