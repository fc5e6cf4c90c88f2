//! The real binary as processes of a run: an API server with an empty store, whatever follows it, and requests to it.
//! They end with the thread that has started them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::wait;

/// For anything to start.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Writes that are under way at a time: enough to share one commit, few enough for the server's queue.
pub const WRITES_MAX: usize = 128;

/// A process; it ends when this is dropped.
pub struct Process(Child);

impl Process {
    /// Starts a command; what it says is added to a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process, String> {
        let open = File::options().create(true).append(true).open(log);
        let log = open.map_err(|e| e.to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let spawned = command.die_with_parent(Signal::SIGKILL).spawn();
        let child = spawned.map_err(|e| format!("cannot start {command:?}: {e}"))?;
        Ok(Process(child))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// `kill -9`; returns when nothing of the process is left.
    pub fn kill(&mut self) -> Result<(), String> {
        let killed = self.0.kill().and_then(|()| self.0.wait().map(drop));
        killed.map_err(|e| format!("kill: {e}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// An API server. It ends when this is dropped, and its files are gone then.
pub struct Api {
    _process: Process,
    /// The binary.
    pub portolan: PathBuf,
    /// Of the administrator.
    pub client: Client,
    /// What the client runs on.
    pub runtime: Runtime,
    folder: TempDir,
}

impl Api {
    /// Starts one with an empty store, in the network namespace of the calling thread.
    pub fn start() -> Result<Api, String> {
        let portolan = portolan()?;
        // Memory, if there is a file system of it: the disk is not what is looked at.
        let shm = Path::new("/dev/shm");
        let parent = match shm.is_dir() {
            true => shm.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new()
            .prefix("portolan-run-")
            .tempdir_in(parent);
        let folder = folder.map_err(|e| e.to_string())?;
        let kubeconfig = folder.path().join("kubeconfig");
        let mut command = Command::new(&portolan);
        command.args(["apiserver", "--data-dir"]);
        command.arg(folder.path().join("data"));
        command.arg("--kubeconfig-out").arg(&kubeconfig);
        let process = Process::start(&mut command, &folder.path().join("apiserver.log"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        if !wait::until(PATIENCE, || kubeconfig.exists()) {
            return Err("the API server does not start".into());
        }
        let client = runtime.block_on(portolan_k8s::client(Some(&kubeconfig)));
        let client = client.map_err(|e| e.to_string())?;
        Ok(Api {
            _process: process,
            portolan,
            client,
            runtime,
            folder,
        })
    }

    /// Where the administrator's kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// For files of the run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Creates objects, many at a time.
    pub fn create(&self, objects: impl Iterator<Item = (String, Value)>) -> Result<(), String> {
        let writes = stream::iter(objects)
            .map(|(path, object)| request(&self.client, "POST", path, object))
            .buffer_unordered(WRITES_MAX)
            .try_for_each(|()| async { Ok(()) });
        self.runtime.block_on(writes)
    }
}

/// The binary: `$PORTOLAN`, or the one beside this program.
fn portolan() -> Result<PathBuf, String> {
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

/// Sends one request and waits for its answer, which must be a success.
pub async fn request(
    client: &Client,
    method: &str,
    path: String,
    body: Value,
) -> Result<(), String> {
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
