//! What is logged, and in which form. Request objects, prompts and secrets never are.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::FilterFn, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use crate::traces::{self, Spans};

/// The form of the log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// Starts logging to standard error, with the parsed `filter` of `--log`, and noting `spans` if they are exported.
pub(crate) fn start(format: LogFormat, filter: EnvFilter, spans: Option<Spans>) {
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    // Whatever is logged, reviews are traced.
    let spans = spans.map(|spans| spans.with_filter(FilterFn::new(traces::is_wanted)));
    registry().with(lines.with_filter(filter)).with(spans).init();
}
