//! `portolan echo`.

use std::process::ExitCode;

/// Arguments of `portolan echo`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command until it is done.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("echo is not built yet")
}
