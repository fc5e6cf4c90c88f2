//! How a client of the API is made: a kubeconfig file, the environment, or the pod that we run in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use kube::config::{
    AuthInfo, Cluster, Config, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};

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
    let config = match (found, master) {
        (Err(ClientError::Infer(_)), Some(master)) => Config::new(master),
        (found, None) => found?,
        (found, Some(master)) => {
            let mut config = found?;
            config.cluster_url = master;
            config
        }
    };
    made(config)
}

/// Makes a client from one context of a kubeconfig file; the file's own choice when there is none.
pub async fn client_in(path: &Path, context: Option<&str>) -> Result<Client, ClientError> {
    let options = KubeConfigOptions {
        context: context.map(str::to_string),
        ..KubeConfigOptions::default()
    };
    made(from_context(path, &options).await?)
}

/// Makes a client for a server with files in PEM: our certificate and key, and who signs the server's.
pub async fn client_with(
    server: &str,
    [certificate, key, authority]: [&Path; 3],
) -> Result<Client, ClientError> {
    let text = |path: &Path| Some(path.display().to_string());
    let cluster = Cluster {
        server: Some(server.to_string()),
        certificate_authority: text(authority),
        ..Cluster::default()
    };
    let user = AuthInfo {
        client_certificate: text(certificate),
        client_key: text(key),
        ..AuthInfo::default()
    };
    let name = "given".to_string();
    let context = Context {
        cluster: name.clone(),
        user: Some(name.clone()),
        ..Context::default()
    };
    let file = Kubeconfig {
        current_context: Some(name.clone()),
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(cluster),
            other: Default::default(),
        }],
        auth_infos: vec![NamedAuthInfo {
            name: name.clone(),
            auth_info: Some(user),
            other: Default::default(),
        }],
        contexts: vec![NamedContext {
            name,
            context: Some(context),
            other: Default::default(),
        }],
        ..Kubeconfig::default()
    };
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    made(config.map_err(|source| ClientError::Kubeconfig {
        path: certificate.to_path_buf(),
        source,
    })?)
}

fn made(mut config: Config) -> Result<Client, ClientError> {
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

/// Whether a program is run to get credentials (`users[].user.exec` of the kubeconfig). What cannot be read has none.
pub fn uses_plugins(kubeconfig: Option<&Path>) -> bool {
    let file = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let users = file.map(|file| file.auth_infos).unwrap_or_default();
    let infos = users.into_iter().filter_map(|user| user.auth_info);
    infos.into_iter().any(|info| info.exec.is_some())
}

async fn from_file(path: &Path) -> Result<Config, ClientError> {
    from_context(path, &KubeConfigOptions::default()).await
}

async fn from_context(path: &Path, options: &KubeConfigOptions) -> Result<Config, ClientError> {
    let wrong = |source| ClientError::Kubeconfig {
        path: path.to_path_buf(),
        source,
    };
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(file, options)
        .await
        .map_err(wrong)
}
