//! What the proxy keeps of its privileges when its settings are made: what its modes need, and nothing else.
//!
//! Without a file the mode stays, and what it needs is kept. With one the mode may change while the proxy runs, so that
//! what every mode needs is kept, as far as it was given: whoever starts the proxy decides by what he gives it.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use portolan_k8s::uses_plugins;
use portolan_kernel::confine::{self, Capability, Needs};

use super::mode::Mode;
use super::{ProxyOptions, setup};

/// Where `iptables` of ip_tables keeps others of its kind out. It may not make it any more later.
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// What programs are started with instead of a file.
const NOTHING: &str = "/dev/null";

/// In the environment of a process that has given up everything and begins anew: the kernel lets it do so 16 times only.
const DONE: &str = "PORTOLAN_CONFINED";

/// Whether this process has given up what it does not need.
static IS_CONFINED: AtomicBool = AtomicBool::new(false);

/// What this program has to know when it takes its own place.
pub(super) fn handed_on() -> Option<(&'static str, &'static str)> {
    IS_CONFINED.load(Ordering::Relaxed).then_some((DONE, "1"))
}

/// Gives up everything that is not needed, before there is a second thread.
pub(super) fn begin(options: &ProxyOptions, has_file: bool) -> anyhow::Result<()> {
    let kubeconfig = options.kubeconfig.as_deref();
    if uses_plugins(kubeconfig) {
        tracing::warn!(
            "the kubeconfig runs a program to get credentials, which may do anything: no privileges are given up"
        );
        return Ok(());
    }
    let mut needs = needs(options.wanted.borrow().mode, has_file);
    // Where eBPF mode pins what it has in the kernel; other modes take it away from there.
    let place = portolan_kernel::ebpf::place(&options.config.ebpf.pins);
    needs.writable.extend(place);
    // Sockets of relays, which other modes take away.
    let may_relay = has_file || options.wanted.borrow().mode.relay().is_some();
    if may_relay {
        make_directory(&options.state_dir);
    }
    needs.writable.push(options.state_dir.clone());
    if std::env::var_os(DONE).is_some() {
        if confine::stands(&needs) {
            IS_CONFINED.store(true, Ordering::Relaxed);
            tracing::info!("everything else was given up before");
            return Ok(());
        }
        tracing::warn!("{DONE} is set, and nothing was given up before: that is done now");
    }
    if needs.programs {
        make_lock();
    }
    let confined = confine::confine(&needs).context("cannot give up privileges")?;
    IS_CONFINED.store(true, Ordering::Relaxed);
    let missing = [
        (confined.writes, "Landlock: files are not protected"),
        (confined.calls, "seccomp: system calls are not restricted"),
    ];
    for (_, words) in missing.iter().filter(|(has, _)| !has) {
        tracing::warn!("this kernel has no {words} from this process");
    }
    let kept = confined.capabilities.iter().map(|kept| kept.name());
    tracing::info!(
        capabilities = kept.collect::<Vec<_>>().join(","),
        programs = needs.programs,
        bpf = needs.bpf,
        "everything else is given up"
    );
    Ok(())
}

/// What the mode, or every mode that may come, needs.
fn needs(mode: Mode, has_file: bool) -> Needs {
    let modes = Mode::ALL.into_iter();
    let modes = modes.filter(|other| has_file || *other == mode);
    let mut needs = Needs::default();
    for mode in modes {
        let of_mode = of(mode);
        for capability in of_mode.capabilities {
            if !needs.capabilities.contains(&capability) {
                needs.capabilities.push(capability);
            }
        }
        needs.writable.extend(of_mode.writable);
        needs.programs |= of_mode.programs;
        needs.bpf |= of_mode.bpf;
        needs.namespaces |= of_mode.namespaces;
    }
    // What `iptables` has left of another mode can be taken away by `iptables` only.
    needs.programs |= portolan_kernel::iptables::is_installed();
    if has_file {
        // A change of more than the mode is obeyed by beginning anew, settings of conntrack included.
        needs.programs = true;
        needs.writable.extend(setup::WRITTEN.map(Into::into));
    }
    if needs.programs {
        needs.writable.push(NOTHING.into());
    }
    needs
}

fn of(mode: Mode) -> Needs {
    // Raw sockets make clients of gone connections speak (`--reset-gone-connections`), and `iptables` asks by one.
    let network = Needs {
        capabilities: vec![Capability::NetAdmin, Capability::NetRaw],
        ..Needs::default()
    };
    match mode {
        Mode::Nftables => network,
        // The relay is a process of its own.
        Mode::Iptables | Mode::Userspace => Needs {
            programs: true,
            ..network
        },
        // Sockets of an ordinary user, and a relay.
        Mode::Loopback => Needs {
            programs: true,
            ..Needs::default()
        },
        Mode::Ipvs => Needs {
            writable: vec![setup::NETWORK.into()],
            ..network
        },
        Mode::Ebpf => Needs {
            capabilities: [
                network.capabilities,
                vec![Capability::SysAdmin, Capability::Perfmon, Capability::Bpf],
            ]
            .concat(),
            bpf: true,
            namespaces: true,
            ..Needs::default()
        },
    }
}

/// What is wrong with it is said when it is needed.
fn make_directory(path: &Path) {
    let mut builder = std::fs::DirBuilder::new();
    if let Err(error) = builder.recursive(true).mode(0o700).create(path) {
        tracing::debug!(%error, path = %path.display(), "this directory cannot be made");
    }
}

/// What cannot be made now, the tool complains about when it needs it.
fn make_lock() {
    let path = Path::new(XTABLES_LOCK);
    let mut options = std::fs::File::options();
    options.create(true).append(true);
    if !path.exists()
        && let Err(error) = options.open(path)
    {
        tracing::debug!(%error, "{XTABLES_LOCK} cannot be made");
    }
}
