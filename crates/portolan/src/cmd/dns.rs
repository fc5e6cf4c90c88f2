//! `portolan dns`: answers for the names of a cluster and forwards all others, as a Corefile says; takes CoreDNS' place.
//!
//! ```text
//!   Corefile ─▶ plan (which blocks answer where) ─▶ privileges are dropped ─▶ names are listed ─▶ sockets
//!   API ──watch──▶ cluster (one for each `kubernetes`) ─▶ Live ─┐
//!   file changed ─▶ new plan ─▶ new Site ──swap──▶ Door ◀───────┴── queries
//! ```

mod certificate;
mod cluster;
mod file;
mod http;
mod listen;
mod metrics;
mod nearby;
mod plan;
mod query;
mod serve;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use portolan_kernel::confine::{self, Capability};

/// Arguments of `portolan dns`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Explain how a name is answered: which names are tried, which objects made the records, why there is none.
    Query(query::Args),
    /// Keep the addresses of --node-local for the process behind standard input.
    #[command(hide = true)]
    Keep(nearby::Args),
}

/// How names are served.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Serve {
    /// The Corefile.
    #[arg(long, default_value = "Corefile")]
    conf: PathBuf,
    /// The port of server blocks that name none.
    #[arg(long, default_value_t = 53)]
    port: u16,
    /// How the API is reached by `kubernetes` blocks that do not say it [default: $KUBECONFIG, ~/.kube/config, or the pod].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Become this user (its number, or NUMBER:GROUP) before anything is asked or answered.
    #[arg(long)]
    user: Option<User>,
    /// Answer on this node itself, at these addresses, such as 169.254.20.10 and the ClusterIP of kube-dns; while this
    /// process does not, queries go to the cluster's.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    node_local: Vec<IpAddr>,
    /// Read the Corefile, say what is wrong with it, and end.
    #[arg(long)]
    check: bool,
}

/// A user and a group, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    user: u32,
    group: u32,
}

impl std::str::FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| {
            text.parse()
                .map_err(|_| format!("{text:?} is no number of a user or group"))
        };
        Ok(User {
            user: number(user)?,
            group: number(group)?,
        })
    }
}

/// Runs the command until it is done.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Query(query)) => query::run(query),
        Some(Command::Keep(args)) => nearby::keep(&args),
        None => serve(args.serve),
    }
}

fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    super::logging::start();
    metrics::count_panics();
    let found = file::read(&args.conf, args.port)?;
    nearby::check(&args.node_local)?;
    if args.check {
        let blocks = found.config.blocks.len();
        tracing::info!(
            "{} has {blocks} server blocks, and nothing is wrong with them",
            args.conf.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan::plan(&found.config, &args.node_local)?;
    let keeper = match args.node_local.as_slice() {
        [] => None,
        addresses => Some(nearby::Keeper::start(addresses)?),
    };
    // Privileges belong to threads: they are dropped before there is a second one.
    let pages = http::open_all(&plan)?;
    drop_privileges(args.user)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(serve::serve(args, found, plan, pages, keeper))
}

/// What is left is the right to open ports below 1024: sockets are opened when there are names to answer with, and others
/// when the file changes.
fn drop_privileges(user: Option<User>) -> anyhow::Result<()> {
    if let Some(User { user, group }) = user {
        let become_user = || -> nix::Result<()> {
            nix::sys::prctl::set_keepcaps(true)?;
            nix::unistd::setgroups(&[])?;
            nix::unistd::setgid(group.into())?;
            nix::unistd::setuid(user.into())
        };
        let words = || format!("cannot become user {user} of group {group} (--user)");
        become_user().with_context(words)?;
    }
    confine::keep_only(&[Capability::NetBindService])
        .map(drop)
        .context("cannot drop privileges")
}
