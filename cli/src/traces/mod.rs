//! Reviews as traces for an OpenTelemetry collector: OTLP over HTTP, as JSON. Only with `--otlp-endpoint`.
//!
//! The trace is the API server's own, if it says that it traces this request (`traceparent`); else it is called by the review's
//! uid, as in the log of denials and in the audit log. A span has what a log line has: coordinates, never an object.

mod export;
mod span;

use std::time::SystemTime;

use tokio::sync::mpsc;
use tracing::{
    Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

pub(crate) use export::Exporter;
use span::{Noted, Span};

/// The span of a review, as `taskgate-webhook` calls it.
const REVIEW: &str = "review";
/// How many spans wait for the collector at most; further ones are dropped.
const WAITING: usize = 2048;

/// Hands over what a review's span tells, when it closes. Never waits.
#[derive(Debug)]
pub(crate) struct Spans {
    finished: mpsc::Sender<Span>,
}

/// What notes spans, and what sends them to the collector at `endpoint`, such as `http://collector:4318`.
pub(crate) fn to(endpoint: &http::Uri) -> (Spans, Exporter) {
    let (finished, waiting) = mpsc::channel(WAITING);
    (Spans { finished }, Exporter::new(endpoint, waiting))
}

/// Whether a span is one that is exported.
pub(crate) fn is_wanted(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == REVIEW
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut noted = Noted::since(SystemTime::now());
            attributes.record(&mut noted);
            span.extensions_mut().insert(noted);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(noted) = span.extensions_mut().get_mut::<Noted>()
        {
            values.record(noted);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let noted = context
            .span(&id)
            .and_then(|span| span.extensions_mut().remove::<Noted>());
        if let Some(span) = noted.and_then(|noted| noted.until(SystemTime::now())) {
            // Full: the collector is away or slow, and the exporter says so.
            let _ = self.finished.try_send(span);
        }
    }
}
