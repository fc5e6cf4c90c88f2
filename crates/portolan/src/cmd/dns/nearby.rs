//! Node-local mode: names are answered on the node itself, at addresses that exist as long as this process does.
//!
//! ```text
//!   portolan dns --node-local ADDRESS,…
//!     │ starts              ┌ keeper (`portolan dns keep`), a process with CAP_NET_ADMIN that hears nobody else
//!     ├── beats ──▶ stdin ──┤   the link with the addresses, rules for answers: as long as the keeper lives
//!     │◀─ told ──── stdout ─┤   rules that lead queries here: as long as beats come
//!     │                     └
//!     └ answers at ADDRESS:10053, without privileges
//! ```
//!
//! Link and rules belong to descriptors of the keeper, and its standard input to the answerer. So whichever of the two is
//! killed, the kernel takes them away, and queries go where the Service's data plane sends them. An answerer that is
//! stopped or stuck does not beat, and then the rules go, too.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use portolan_kernel::Links;
use portolan_kernel::confine::{self, Capability};
use portolan_kernel::nft::{NearbyTable, Way};
use portolan_kernel::tun::Tun;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::serve::State;

/// The port at which queries are answered; rules bring those for port 53 here.
pub(super) const PORT: u16 = 10_053;
/// The link with the addresses.
const LINK: &str = "portolan-names";
/// The most addresses: a link-local one and a ClusterIP of each family are four.
const ADDRESSES_MAX: usize = 16;
/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// Without a beat for so long, queries go to the cluster's answerers.
const SILENCE_MS: u16 = 2_000;
/// How long the keeper may take for what it is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// What goes through the pipes, in both directions.
const ANSWERING: u8 = b'+';
const GIVING_WAY: u8 = b'-';
/// The last word of an answerer that ends; the keeper says it when it has given way.
const LEAVING: u8 = b'.';

/// Arguments of the keeper.
#[derive(clap::Args)]
pub(super) struct Args {
    addresses: Vec<IpAddr>,
}

/// Checks the addresses of `--node-local`.
pub(super) fn check(addresses: &[IpAddr]) -> anyhow::Result<()> {
    if addresses.len() > ADDRESSES_MAX {
        bail!(
            "--node-local: {} addresses; {ADDRESSES_MAX} are the most",
            addresses.len()
        );
    }
    let odd = |ip: &&IpAddr| ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    match addresses.iter().find(odd) {
        Some(odd) => bail!(
            "--node-local: {odd} is no address that pods can send to; usual are 169.254.20.10 and the ClusterIP of kube-dns"
        ),
        None => Ok(()),
    }
}

/// The keeper, seen from the answerer.
pub(super) struct Keeper {
    child: Child,
    told: OwnedFd,
}

impl Keeper {
    /// Starts it; when this returns, the addresses are there, and no query is led here yet.
    pub(super) fn start(addresses: &[IpAddr]) -> anyhow::Result<Keeper> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["dns", "keep"]);
        command.args(addresses.iter().map(IpAddr::to_string));
        // A signal for everybody in the terminal is for the answerer, which gives way first.
        command.process_group(0);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped
            .spawn()
            .context("cannot start the keeper of the addresses")?;
        let mut told = child.stdout.take().context("invariant: it is piped")?;
        let mut first = [0];
        match told.read(&mut first) {
            Ok(1) => Ok(Keeper {
                child,
                told: told.into(),
            }),
            // It has said why.
            _ => bail!("the addresses of --node-local cannot be had"),
        }
    }

    /// Beats as long as names are answered, until it is told to give way.
    pub(super) fn attend(self, state: Arc<State>) -> anyhow::Result<Attendance> {
        let mut child = self.child;
        let stdin = child.stdin.take().context("invariant: it is piped")?;
        let beats = pipe::Sender::from_owned_fd(stdin.into())?;
        let told = pipe::Receiver::from_owned_fd(self.told)?;
        let (give_way, asked) = oneshot::channel();
        let task = tokio::spawn(attend(beats, told, state, asked));
        Ok(Attendance { give_way, task })
    }
}

/// The task that beats.
pub(super) struct Attendance {
    give_way: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<Addresses>>,
}

/// The addresses are there until this is dropped.
pub(super) struct Addresses {
    _beats: pipe::Sender,
}

impl Attendance {
    /// Comes back when the keeper is lost, with the reason.
    pub(super) async fn lost(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            _ => anyhow::anyhow!("the keeper of the addresses is not attended any more"),
        }
    }

    /// Comes back when no more queries are led here. Those that have come are still to be answered.
    pub(super) async fn give_way(self) -> Option<Addresses> {
        let _ = self.give_way.send(());
        let left = self.task.await.context("the keeper is not attended");
        match left.flatten() {
            Ok(addresses) => Some(addresses),
            Err(error) => {
                tracing::warn!("{error:#}");
                None
            }
        }
    }
}

async fn attend(
    beats: pipe::Sender,
    told: pipe::Receiver,
    state: Arc<State>,
    mut asked: oneshot::Receiver<()>,
) -> anyhow::Result<Addresses> {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut asked => break,
            _ = ticks.tick() => {
                let beat = match state.unready() {
                    None => ANSWERING,
                    Some(_) => GIVING_WAY,
                };
                say(&beats, beat)?;
            }
            heard = hear(&told) => match heard? {
                ANSWERING => tracing::info!("names are answered on this node itself"),
                _ => tracing::warn!("names are answered by the cluster's answerers"),
            }
        }
    }
    say(&beats, LEAVING)?;
    let gone = async {
        while hear(&told).await? != LEAVING {}
        anyhow::Ok(())
    };
    let gone = timeout(PATIENCE, gone).await;
    gone.context("the keeper of the addresses does not give way")??;
    Ok(Addresses { _beats: beats })
}

fn say(beats: &pipe::Sender, beat: u8) -> anyhow::Result<()> {
    match beats.try_write(&[beat]) {
        Ok(_) => Ok(()),
        // It is stopped, and hears of us when it goes on.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error).context("the keeper of the addresses has ended"),
    }
}

async fn hear(told: &pipe::Receiver) -> anyhow::Result<u8> {
    loop {
        told.readable().await?;
        let mut one = [0];
        match told.try_read(&mut one) {
            Ok(1) => return Ok(one[0]),
            Ok(_) => bail!("the keeper of the addresses has ended"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot hear the keeper of the addresses"),
        }
    }
}

/// `portolan dns keep`: keeps addresses and rules as long as the process behind standard input wants them.
pub(super) fn keep(args: &Args) -> anyhow::Result<ExitCode> {
    // Its end is that of the answerer, who is told by the same signals and gives way first.
    let mut later = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .for_each(|signal| later.add(signal));
    later.thread_block().context("cannot block signals")?;
    let _link = link(&args.addresses)?;
    confine::keep_only(&[Capability::NetAdmin]).context("cannot drop privileges")?;
    let mut out = std::io::stdout();
    let _answers = NearbyTable::new(Way::Answers, &args.addresses, PORT)?;
    tell(&mut out, GIVING_WAY)?;
    let mut queries = None;
    let mut input = std::io::stdin();
    while let Some(beat) = beat(&mut input)? {
        let stood = queries.is_some();
        queries = match (beat, queries) {
            (ANSWERING, None) => Some(NearbyTable::new(Way::Queries, &args.addresses, PORT)?),
            (ANSWERING, stands) => stands,
            _ => None,
        };
        if stood != queries.is_some() || beat == LEAVING {
            tell(&mut out, beat)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do next; silence is giving way, and nothing at all when the answerer is gone.
fn beat(input: &mut std::io::Stdin) -> anyhow::Result<Option<u8>> {
    let waiting = PollFlags::POLLIN;
    let ready = {
        let mut both = [PollFd::new(input.as_fd(), waiting)];
        poll(&mut both, PollTimeout::from(SILENCE_MS)).context("cannot wait for beats")?
    };
    if ready == 0 {
        return Ok(Some(GIVING_WAY));
    }
    let mut bytes = [0; 64];
    let count = nix::unistd::read(input.as_fd(), &mut bytes).context("cannot read beats")?;
    Ok(bytes[..count].last().copied())
}

fn tell(out: &mut std::io::Stdout, what: u8) -> anyhow::Result<()> {
    out.write_all(&[what])?;
    out.flush().context("the answerer does not listen")
}

/// The link with the addresses.
fn link(addresses: &[IpAddr]) -> anyhow::Result<Tun> {
    let words = "--node-local needs CAP_NET_ADMIN and /dev/net/tun, and one process at a time";
    let link = Tun::new(LINK).context(words)?;
    let mut links = Links::here()?;
    for address in addresses {
        links.add_address(LINK, (*address).into())?;
    }
    links.up(LINK)?;
    Ok(link)
}
