//! `portolan proxy`.

use std::process::ExitCode;

/// Arguments of `portolan proxy`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command until it is done.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("proxy is not built yet")
}
