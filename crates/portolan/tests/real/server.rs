//! `portolan apiserver` as a process, and kubectl to talk to it.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use tempfile::TempDir;
use tokio::time::Instant;

/// Nothing that is waited for takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// The server. Its socket belongs to the test, so that it has one address for ever.
pub struct Server {
    dir: TempDir,
    socket: TcpListener,
    child: Child,
}

impl Server {
    /// Starts it on a free port of loopback.
    pub fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let child = spawn(&dir, &socket);
        Server { dir, socket, child }
    }

    /// `kill -9`, and a new one in its place.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.dir, &self.socket);
    }

    /// A client, once the server answers.
    pub async fn client(&self) -> kube::Client {
        let path = self.kubeconfig();
        until("the server has written a kubeconfig", || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() > 0)
        })
        .await;
        portolan_k8s::client(Some(&path)).await.unwrap()
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        let path = self.kubeconfig();
        crate::node::until("the server has written a kubeconfig", || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() > 0)
        });
    }

    /// A file for what a program says.
    pub fn log(&self, name: &str) -> std::fs::File {
        let path = self.dir.path().join(name);
        let mut options = std::fs::File::options();
        options.create(true).append(true).open(path).unwrap()
    }

    /// What a program has said.
    pub fn read_log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// What kubectl prints; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        let output = command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .args(args)
            .output()
            .expect("kubectl is there (scripts/setup.sh installs it)");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, manifest: &str) {
        let path = self.dir.path().join("manifest.yaml");
        std::fs::write(&path, manifest).unwrap();
        self.kubectl(&["apply", "-f", path.to_str().unwrap()]);
    }

    /// Creates an object in a collection, or changes it. Where a machine is emulated, kubectl would take seconds for it.
    pub fn put(&self, collection: &str, manifest: &str) {
        let object: serde_json::Value = serde_norway::from_str(manifest).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let body = object.to_string().into_bytes();
        let create = http::Request::post(collection).header("content-type", "application/json");
        let change = http::Request::patch(format!("{collection}/{name}"))
            .header("content-type", "application/merge-patch+json");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let config = self.kubeconfig();
            let client = portolan_k8s::client(Some(&config)).await.unwrap();
            let create = client.request::<serde_json::Value>(create.body(body.clone()).unwrap());
            match create.await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let change = client.request::<serde_json::Value>(change.body(body).unwrap());
                    change.await.unwrap();
                }
                created => drop(created.unwrap()),
            }
        });
    }

    /// How to reach it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }
}

impl Server {
    /// The same for a user who owns nothing.
    pub fn kubeconfig_for(&self, user: u32) -> PathBuf {
        use std::os::unix::fs::{PermissionsExt, chown};
        let copy = self.dir.path().join(format!("kubeconfig-{user}"));
        std::fs::copy(self.kubeconfig(), &copy).unwrap();
        chown(&copy, Some(user), None).unwrap();
        let open = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), open).unwrap();
        copy
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &TempDir, socket: &TcpListener) -> Child {
    let mut options = std::fs::File::options();
    let log = options
        .create(true)
        .append(true)
        .open(dir.path().join("log"));
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .arg("apiserver")
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg("--listen-fd")
        .arg(socket.as_raw_fd().to_string())
        .arg("--kubeconfig-out")
        .arg(dir.path().join("kubeconfig"))
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        // A test that is killed leaves nothing behind.
        .die_with_parent(Signal::SIGKILL)
        .spawn()
        .unwrap()
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
