//! The binary: parses the command line and hands over to the crates. No logic lives here.

mod cmd;

use clap::{Parser, Subcommand};

/// Kubernetes Services, whole, in one binary.
#[derive(Parser)]
#[command(name = "portolan", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the embedded Kubernetes API and run the controllers.
    Apiserver(cmd::apiserver::Args),
    /// Program the Service data plane of this node (takes kube-proxy's place).
    Proxy(cmd::proxy::Args),
    /// The relay of userspace mode; `portolan proxy` starts it.
    #[command(hide = true)]
    Relay(cmd::relay::Args),
    /// Answer for the names of a cluster, as a Corefile says (takes CoreDNS' place).
    Dns(cmd::dns::Args),
    /// Serve HTTP from outside by the Ingresses of the cluster.
    Gateway(cmd::gateway::Args),
    /// A whole cluster of network namespaces on this machine.
    Lab(cmd::lab::Args),
    /// The server that example pods run: says who it is and whom it saw.
    Echo(cmd::echo::Args),
    /// Ask a server again and again, each time on a new connection, and count who answers.
    Ask(cmd::ask::Args),
    /// Print the Service variables that a pod of a namespace would get if it started now.
    Env(cmd::env::Args),
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Apiserver(args) => cmd::apiserver::run(args),
        Command::Proxy(args) => cmd::proxy::run(args),
        Command::Relay(args) => cmd::relay::run(args),
        Command::Dns(args) => cmd::dns::run(args),
        Command::Gateway(args) => cmd::gateway::run(args),
        Command::Lab(args) => cmd::lab::run(args),
        Command::Echo(args) => cmd::echo::run(args),
        Command::Ask(args) => cmd::ask::run(args),
        Command::Env(args) => cmd::env::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portolan: {}", words(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// The whole chain of causes, without those that the error before has told already.
fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if words.is_empty() {
            words = cause;
        } else if !words.ends_with(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no such file")
            .context("read a: no such file")
            .context("cannot start");
        assert_eq!(super::words(&error), "cannot start: read a: no such file");
    }
}
