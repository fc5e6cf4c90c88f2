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
    /// The address of the API that was given is none.
    #[error("--master {url} is no address such as https://192.168.0.1:6443")]
    Master {
        /// What was given.
        url: String,
    },
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
    client_at(kubeconfig, None).await
}

/// The same, for a server at another address; where nothing else is there, without any credentials.
pub async fn client_at(
    kubeconfig: Option<&Path>,
    master: Option<&str>,
) -> Result<Client, ClientError> {
    let master = master.map(address).transpose()?;
    let found = match kubeconfig {
        Some(path) => from_file(path).await,
        None => Config::infer().await.map_err(ClientError::Infer),
    };
    let mut config = match (found, master) {
        (Err(ClientError::Infer(_)), Some(master)) => Config::new(master),
        (found, None) => found?,
        (found, Some(master)) => {
            let mut config = found?;
            config.cluster_url = master;
            config
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ClientError::Client {
        url,
        source: Box::new(source),
    })
}

fn address(url: &str) -> Result<http::Uri, ClientError> {
    let parsed: Option<http::Uri> = url.parse().ok();
    let whole = parsed.filter(|url| url.scheme().is_some() && url.authority().is_some());
    whole.ok_or_else(|| ClientError::Master { url: url.into() })
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
