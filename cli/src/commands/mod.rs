//! The commands that people run against a cluster, one file each. What they share is beside them: how to reach the cluster
//! ([`connection`]), which taskgate is meant ([`installation`]), kinds without types ([`kind`]), what is read to tell people about it ([`snapshot`]), and what their
//! exit codes mean ([`failure`]).

pub(crate) mod cancel;
pub(crate) mod check;
mod connection;
pub(crate) mod disable;
pub(crate) mod doctor;
pub(crate) mod explain;
mod failure;
mod installation;
mod kind;
pub(crate) mod render;
pub(crate) mod reset;
pub(crate) mod retry;
mod snapshot;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod uninstall;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::output;
pub(crate) use connection::{Connection, ConnectionArgs, said};
pub(crate) use failure::{Failure, Outcome};

/// Runs a command to its end. Exit code 0: it did what was asked; 1: it did not, or something was denied; 2: the command line
/// cannot be meant; 3: there are warnings only.
pub(crate) fn run<T: Into<Outcome>>(command: impl Future<Output = Result<T, Failure>>) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a crypto provider is installed already"))?;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(command);
    Ok(match outcome {
        Ok(outcome) => outcome.into().code(),
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.code()
        }
    })
}
