//! Commands for people who work on Portolan: `cargo xtask tidy` and `cargo xtask scenarios`.
//!
//! They only read the work tree; what they find goes to standard output.

mod mutants;
mod source;
mod tidy;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use tree::Tree;

const USAGE: &str = "usage: cargo xtask tidy | laws | scenarios | mutants [PART OF A FILE]…\n\
    tidy       check the laws; says every breach with its place\n\
    laws       list the laws that tidy checks\n\
    scenarios  list the scenario files with the rules they prove\n\
    mutants    break the oracle and nftables mode in every small way; says which break no test notices";

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("invariant: xtask lies in the workspace")?;
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("tidy") => {
            let tree = Tree::read(root)?;
            let breaches = tidy::check(&tree);
            breaches.iter().for_each(|breach| println!("{breach}"));
            println!(
                "tidy: {} files, {} laws, {} breaches",
                tree.files().count(),
                tidy::LAWS.len(),
                breaches.len()
            );
            Ok(match breaches.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Some("laws") => {
            tidy::LAWS
                .iter()
                .for_each(|law| println!("{:<14}{}", law.name, law.says));
            Ok(ExitCode::SUCCESS)
        }
        Some("scenarios") => {
            let tree = Tree::read(root)?;
            for (path, text) in tree.under("scenarios/") {
                println!("{:<60}{}", path, text.lines().next().unwrap_or_default());
            }
            Ok(ExitCode::SUCCESS)
        }
        Some("mutants") => {
            let parts: Vec<String> = std::env::args().skip(2).collect();
            Ok(match mutants::run(root, &parts)? {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        _ => bail!(USAGE),
    }
}
