//! How a client of the API is made: a kubeconfig file, the environment, or the pod that we run in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// A server that does not take a connection for this long is given up for now; callers retry with back-off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The API cannot be reached with what was given.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig file cannot be read or does not make sense.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Neither a kubeconfig nor the environment of a pod is there.
    #[error("no kubeconfig was given, KUBECONFIG is not set, and this is no pod: {0}")]
    Infer(kube::config::InferConfigError),
    /// TLS or proxy settings that cannot be used.
    #[error("client for {url}: {source}")]
    Client {
        /// The server.
        url: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// Makes a client: from the file `kubeconfig`, or from `$KUBECONFIG`, `~/.kube/config`, or in-cluster, in this order.
/// No connection is made yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::infer().await.map_err(ClientError::Infer)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ClientError::Client {
        url,
        source: Box::new(source),
    })
}

async fn from_file(path: &Path) -> Result<Config, ClientError> {
    let wrong = |source| ClientError::Kubeconfig {
        path: path.to_path_buf(),
        source,
    };
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(wrong)
}
