//! What the runs stand on: `portolan apiserver` and `portolan dns` as processes, in the network namespace of this one.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::Result;

/// Where names are answered.
pub const DNS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);
/// For anything to start.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A query without an answer for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(2);
/// Writes that are under way at a time: enough to share one commit, few enough for the server's queue.
pub const WRITES_MAX: usize = 128;

/// kubeadm's, without a server for other names, which there are none of, and with a page of its own for each process.
const COREFILE: &str = ".:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus 127.0.0.1:PAGE
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    reload
    loadbalance
}
";

/// The API. It ends when this is dropped.
pub struct Bed {
    child: Child,
    portolan: PathBuf,
    pub client: Client,
    pub runtime: Runtime,
    folder: TempDir,
}

impl Bed {
    /// Starts an API server with an empty store.
    pub fn start() -> Result<Bed> {
        let portolan = portolan()?;
        // Memory, if there is a file system of it: the disk is not what is looked at.
        let shm = Path::new("/dev/shm");
        let parent = match shm.is_dir() {
            true => shm.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new()
            .prefix("portolan-names-")
            .tempdir_in(parent);
        let folder = folder.map_err(|e| e.to_string())?;
        let kubeconfig = folder.path().join("kubeconfig");
        let mut command = Command::new(&portolan);
        command.args(["apiserver", "--data-dir"]);
        command.arg(folder.path().join("data"));
        command.arg("--kubeconfig-out").arg(&kubeconfig);
        let child = spawn(&mut command, &folder.path().join("apiserver.log"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        if !wait::until(PATIENCE, || kubeconfig.exists()) {
            return Err("the API server does not start".into());
        }
        let client = runtime.block_on(portolan_k8s::client(Some(&kubeconfig)));
        let client = client.map_err(|e| e.to_string())?;
        Ok(Bed {
            child,
            portolan,
            client,
            runtime,
            folder,
        })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Creates objects, many at a time.
    pub fn create(&self, objects: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let writes = stream::iter(objects)
            .map(|(path, object)| request(&self.client, "POST", path, object))
            .buffer_unordered(WRITES_MAX)
            .try_for_each(|()| async { Ok(()) });
        self.runtime.block_on(writes)
    }

    /// Starts an answerer; several of them share one port.
    pub fn answerer(&self, number: usize) -> Result<Answerer> {
        let conf = self.folder.path().join(format!("Corefile-{number}"));
        let text = COREFILE.replace("PAGE", &(9153 + number).to_string());
        std::fs::write(&conf, text).map_err(|e| e.to_string())?;
        let mut command = Command::new(&self.portolan);
        command.args(["dns", "--conf"]).arg(conf);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        let log = self.folder.path().join(format!("dns-{number}.log"));
        spawn(&mut command, &log).map(Answerer)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `portolan dns`. It ends when this is dropped.
pub struct Answerer(pub Child);

impl Answerer {
    /// `kill -9`; returns when nothing of the process is left.
    pub fn kill(&mut self) -> Result<()> {
        let killed = self.0.kill().and_then(|()| self.0.wait().map(drop));
        killed.map_err(|e| format!("kill: {e}"))
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let open = File::options().create(true).append(true).open(log);
    let log = open.map_err(|e| e.to_string())?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let spawned = command.die_with_parent(Signal::SIGKILL).spawn();
    spawned.map_err(|e| format!("cannot start {command:?}: {e}"))
}

/// The binary: `$PORTOLAN`, or the one beside this program.
fn portolan() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let path = match std::env::var_os("PORTOLAN") {
        Some(path) => PathBuf::from(path),
        None => own.with_file_name("portolan"),
    };
    match path.is_file() {
        true => Ok(path),
        false => Err(format!(
            "there is no {}; build it with: cargo build --release --package portolan",
            path.display()
        )),
    }
}

/// A socket that asks [`DNS`].
pub fn socket() -> Result<UdpSocket> {
    let open = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(DNS)?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        Ok(socket)
    };
    open().map_err(|e: std::io::Error| format!("cannot open a socket: {e}"))
}

/// Sends one request and waits for its answer, which must be a success.
pub async fn request(client: &Client, method: &str, path: String, body: Value) -> Result<()> {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(&path)
        .header("content-type", kind)
        .body(body.to_string().into_bytes())
        .map_err(|e| e.to_string())?;
    let answer = client.request_text(request).await;
    answer
        .map(drop)
        .map_err(|e| format!("{method} {path}: {e}"))
}
