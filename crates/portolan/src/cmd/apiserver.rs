//! `portolan apiserver`.

use std::process::ExitCode;

/// Arguments of `portolan apiserver`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command until it is done.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("apiserver is not built yet")
}
