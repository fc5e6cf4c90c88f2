//! The cluster's API: `portolan apiserver` as a process of its own, and a client that fills and changes it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
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

use crate::objects::{self, SERVICE_RANGE, Shape};

/// Writes that are under way at a time: enough to share one commit, few enough for the server's queue.
const WRITES_MAX: usize = 128;
/// For the server to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number under which the server inherits the first of its sockets.
const FIRST_FD: i32 = 10;
/// Where every network namespace reaches the server.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6443);

pub const SERVICES: &str = "/api/v1/namespaces/default/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const NODES: &str = "/api/v1/nodes";

/// A running API server. It ends when this is dropped.
pub struct Api {
    child: Child,
    portolan: PathBuf,
    /// Its sockets, for one that follows it.
    sockets: Vec<TcpListener>,
    client: Client,
    pub runtime: Runtime,
    folder: TempDir,
}

/// A socket on which the server can listen in the network namespace of the calling thread.
pub fn listen() -> Result<TcpListener, String> {
    TcpListener::bind(ADDRESS).map_err(|e| format!("cannot listen on {ADDRESS}: {e}"))
}

impl Api {
    /// Starts a server with an empty store that answers in this namespace and on these sockets of others.
    pub fn start(portolan: &Path, elsewhere: Vec<TcpListener>) -> Result<Self, String> {
        // Memory, if there is a file system of it: what is measured is not the disk.
        let shm = Path::new("/dev/shm");
        let parent = match shm.is_dir() {
            true => shm.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new()
            .prefix("portolan-bench-")
            .tempdir_in(parent)
            .map_err(|e| e.to_string())?;
        let kubeconfig = folder.path().join("kubeconfig");
        // The last socket is the one that the server's own controllers use, so it must be ours.
        let sockets: Vec<TcpListener> = elsewhere.into_iter().chain([listen()?]).collect();
        let child = serve(portolan, folder.path(), &sockets)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        if !wait::until(PATIENCE, || kubeconfig.exists()) {
            return Err("the API server does not start".into());
        }
        let client = runtime.block_on(portolan_k8s::client(Some(&kubeconfig)));
        let client = client.map_err(|e| e.to_string())?;
        Ok(Api {
            child,
            portolan: portolan.to_owned(),
            sockets,
            client,
            runtime,
            folder,
        })
    }

    /// Where the administrator's kubeconfig is; files of the run can be put beside it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A folder for files of the run; it is gone when this is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Creates everything of a shape.
    pub fn load(&self, shape: Shape, node: std::net::IpAddr) -> Result<(), String> {
        let node = (NODES.to_owned(), objects::node(node));
        let all = (0..shape.services).flat_map(|index| {
            [
                (SERVICES.to_owned(), objects::service(index)),
                (SLICES.to_owned(), shape.slice(index, None)),
            ]
        });
        self.create([node].into_iter().chain(all))
    }

    /// Creates objects, many at a time.
    pub fn create(&self, all: impl Iterator<Item = (String, Value)>) -> Result<(), String> {
        let writes = stream::iter(all).map(|(path, object)| self.send("POST", path, Some(object)));
        let done = writes
            .buffer_unordered(WRITES_MAX)
            .try_for_each(|()| async { Ok(()) });
        self.runtime.block_on(done)
    }

    /// `kill -9`, and one with the same store and sockets in its place. Connections are broken by it, and versions of
    /// before are too old for its watches.
    pub fn restart(&mut self) -> Result<(), String> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map_err(|e| format!("cannot end the API server: {e}"))?;
        self.child = serve(&self.portolan, self.folder.path(), &self.sockets)?;
        Ok(())
    }

    /// Sends one request and waits for its answer, which must be a success.
    pub async fn send(
        &self,
        method: &str,
        path: String,
        body: Option<Value>,
    ) -> Result<(), String> {
        request(&self.client, method, path, body).await
    }

    /// A second handle for tasks.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

/// Starts a server at these sockets, with its store and its log in a folder.
fn serve(portolan: &Path, folder: &Path, sockets: &[TcpListener]) -> Result<Child, String> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("apiserver.log"))
        .map_err(|e| e.to_string())?;
    let mut command = Command::new(portolan);
    command
        .args(["apiserver", "--advertise-address", &ADDRESS.to_string()])
        .args(["--service-cluster-ip-range", SERVICE_RANGE])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--kubeconfig-out")
        .arg(folder.join("kubeconfig"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .die_with_parent(Signal::SIGKILL);
    for (number, socket) in (FIRST_FD..).zip(sockets) {
        let socket = socket.try_clone().map_err(|e| e.to_string())?;
        command
            .args(["--listen-fd", &number.to_string()])
            .pass_fd(OwnedFd::from(socket), number);
    }
    command
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", portolan.display()))
}

/// Sends one request and waits for its answer, which must be a success.
pub async fn request(
    client: &Client,
    method: &str,
    path: String,
    body: Option<Value>,
) -> Result<(), String> {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let bytes = body.map(|body| body.to_string().into_bytes());
    let request = http::Request::builder()
        .method(method)
        .uri(&path)
        .header("content-type", kind)
        .body(bytes.unwrap_or_default())
        .map_err(|e| e.to_string())?;
    let answer = client.request_text(request).await;
    answer
        .map(drop)
        .map_err(|e| format!("{method} {path}: {e}"))
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
