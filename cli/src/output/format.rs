//! The forms that results are printed in.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

/// How a command prints what it found. Commands with further forms have an enum of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// `value` as JSON, indented, with a line end.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    Ok(text + "\n")
}

/// `value` as YAML.
pub(crate) fn to_yaml(value: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(value).context("writing YAML")
}
