//! Starting and stopping the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::auth::{self, Authenticator, Authority, Identity};
use crate::bootstrap::{self, KubernetesService};
use crate::http::{Acceptor, serve};
use crate::kind::Admission;
use crate::openapi::Documents;
use crate::store::{OpenError, Store};
use crate::{gc, kinds, namespaces};

/// How long the end waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How the server is to run.
pub struct Config {
    /// Where the store and the certificates are; made if it is missing.
    pub data_dir: PathBuf,
    /// Sockets to serve on.
    pub listeners: Vec<std::net::TcpListener>,
    /// Names and addresses under which clients reach the server, besides `localhost` and the listeners' own.
    pub names_and_addresses: Vec<String>,
    /// Sockets of the nodes' agents (`NODE.sock`), for `kubectl logs`.
    pub kubelet_dir: Option<PathBuf>,
    /// What may change or refuse writes, in this order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// The Service through which pods reach this server; its ClusterIP is added to the certificate.
    pub kubernetes_service: Option<KubernetesService>,
    /// Bearer tokens.
    pub tokens: Vec<(String, Identity)>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory could not be made.
    #[error("cannot make the data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The kernel's words.
        source: std::io::Error,
    },
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A certificate or its file.
    #[error(transparent)]
    Certificate(#[from] auth::Error),
    /// TLS does not take the certificate.
    #[error("cannot set up TLS: {0}")]
    Tls(Box<dyn std::error::Error + Send + Sync>),
    /// A socket cannot be used.
    #[error("cannot serve on a socket: {0}")]
    Listener(std::io::Error),
    /// The objects that every cluster has could not be made.
    #[error("cannot make the first objects: {0}")]
    Bootstrap(String),
}

/// A running server. It stops when [`Server::shutdown`] is called, or is cut off when this is dropped.
pub struct Server {
    authority: Authority,
    addresses: Vec<SocketAddr>,
    stopping: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    closed: watch::Receiver<bool>,
}

/// Starts serving; the server answers when this returns.
pub async fn start(config: Config) -> Result<Server, Error> {
    std::fs::create_dir_all(&config.data_dir).map_err(|source| Error::DataDir {
        path: config.data_dir.clone(),
        source,
    })?;
    let authority = Authority::open(&config.data_dir)?;
    let mut listeners = Vec::new();
    for listener in config.listeners {
        listener.set_nonblocking(true).map_err(Error::Listener)?;
        listeners.push(TcpListener::from_std(listener).map_err(Error::Listener)?);
    }
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::Listener)?;
    let names = names(
        config.names_and_addresses,
        &addresses,
        config.kubernetes_service.as_ref(),
    );
    let (certificate, key) = authority.server(&names)?;
    let acceptor = Acceptor::new(authority.certificate(), certificate, key).map_err(Error::Tls)?;

    let kinds = kinds::kinds();
    let store = Store::open(
        &config.data_dir.join("store.redb"),
        kinds,
        config.admission.clone(),
    )?;
    let closed = store.closed();
    let stopping = CancellationToken::new();
    let api = Arc::new(Api {
        kinds,
        store,
        admission: config.admission,
        documents: Documents::new(kinds),
        authenticator: Authenticator::new(config.tokens),
        kubelet_dir: config.kubelet_dir,
        stopping: stopping.clone(),
    });
    bootstrap::run(&api, config.kubernetes_service.clone())
        .await
        .map_err(|failure| Error::Bootstrap(failure.message))?;
    let tasks = vec![
        tokio::spawn(gc::run(Arc::clone(&api))),
        tokio::spawn(namespaces::run(Arc::clone(&api))),
        tokio::spawn(bootstrap::keep(Arc::clone(&api), config.kubernetes_service)),
        tokio::spawn(serve(api, acceptor, listeners)),
    ];
    Ok(Server {
        authority,
        addresses,
        stopping,
        tasks,
        closed,
    })
}

impl Server {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A kubeconfig (YAML) with a client certificate of its own for a user.
    pub fn kubeconfig(
        &self,
        server_url: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<String, auth::Error> {
        let credentials = self.authority.client(user, groups)?;
        Ok(auth::kubeconfig(
            server_url,
            user,
            self.authority.certificate_pem(),
            &credentials,
        ))
    }

    /// Tells the server to stop: watches end, open requests may finish.
    pub fn shutdown(&self) {
        self.stopping.cancel();
    }

    /// Waits until the server has stopped and the store is closed.
    pub async fn wait(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the server failed");
            }
        }
        // A request that was cut off may still be inside a write.
        match timeout(CLOSE_TIMEOUT, self.closed.wait_for(|closed| *closed)).await {
            Ok(_) => {}
            Err(_) => tracing::warn!("the store is still in use"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every name that a client may use; the API's own in-cluster names are always there.
fn names(
    given: Vec<String>,
    addresses: &[SocketAddr],
    service: Option<&KubernetesService>,
) -> Vec<String> {
    let mut names = given;
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(
        [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    );
    names.extend(
        addresses
            .iter()
            .map(|address| address.ip())
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.extend(service.map(|service| service.cluster_ip.to_string()));
    names.sort();
    names.dedup();
    names
}
