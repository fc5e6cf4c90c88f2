//! A server on a free port of the loopback, and the real kubectl against it.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_apiserver::{Config, DefaultIngressClass, Server, start};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A server with an empty store, and a home directory for kubectl.
pub struct Cluster {
    home: TempDir,
    server: Option<Server>,
    runtime: Runtime,
}

impl Cluster {
    pub fn start() -> Cluster {
        let mut cluster = Cluster {
            home: TempDir::new().unwrap(),
            server: None,
            runtime: Runtime::new().unwrap(),
        };
        cluster.serve();
        cluster
    }

    /// Stops the server and starts another one on the same store.
    pub fn restart(&mut self) {
        let server = self.server.take().unwrap();
        server.shutdown();
        self.runtime.block_on(server.wait());
        self.serve();
    }

    fn serve(&mut self) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config {
            data_dir: self.home.path().join("data"),
            listeners: vec![listener],
            names_and_addresses: Vec::new(),
            kubelet_dir: Some(self.home.path().join("kubelet")),
            admission: vec![Arc::new(DefaultIngressClass::default())],
            kubernetes_service: None,
            tokens: Vec::new(),
        };
        let server = self.runtime.block_on(start(config)).unwrap();
        let url = format!("https://{}", server.addresses()[0]);
        let kubeconfig = server
            .kubeconfig(&url, "admin", &["system:masters"])
            .unwrap();
        std::fs::write(self.home.path().join("kubeconfig"), kubeconfig).unwrap();
        self.server = Some(server);
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("HOME", home)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("KUBECACHEDIR", home.join("cache"));
        command
    }

    /// Runs kubectl; what it printed, first what went well, then what did not.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = self
            .command(program, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text =
            [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.success(), text.concat())
    }

    /// Runs kubectl, which must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let (good, text) = self.run("kubectl", arguments, input);
        assert!(good, "kubectl {arguments:?}: {text}");
        text
    }

    /// Runs kubectl, which must fail.
    pub fn refused(&self, arguments: &[&str], input: &str) -> String {
        let (good, text) = self.run("kubectl", arguments, input);
        assert!(!good, "kubectl {arguments:?} should have failed: {text}");
        text
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command("kubectl", arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Waits until something holds; it must within a generous time.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause between two looks, up to a deadline"
)]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
pub fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}
