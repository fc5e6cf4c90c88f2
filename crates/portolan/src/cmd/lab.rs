//! `portolan lab`.

use std::process::ExitCode;

/// Arguments of `portolan lab`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command until it is done.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("lab is not built yet")
}
