//! `portolan env`: the Service variables that a pod of a namespace would get if it started now.
//!
//! The rules are the kubelet's, in `portolan_lab::agent::service_env`; only Services are read, and nothing is written.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use portolan_lab::agent::service_env;
use serde_json::json;

/// How long the API may take to answer everything.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Arguments of `portolan env`.
#[derive(clap::Args)]
pub struct Args {
    /// The pod's namespace.
    namespace: String,
    /// The pod's enableServiceLinks; with false only the Service default/kubernetes is told.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    enable_service_links: bool,
    /// How to reach the API [default: $KUBECONFIG, ~/.kube/config, or the pod's own service account].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Print JSON or YAML, as in a container's `env`, instead of NAME=value.
    #[arg(short, long, value_parser = ["json", "yaml"])]
    output: Option<String>,
}

/// Prints the variables.
#[expect(clippy::print_stdout, reason = "the answer goes to standard output")]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    portolan_kernel::process::end_with_broken_pipe();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let services = runtime.block_on(async {
        let read = read(&args);
        let read = tokio::time::timeout(ANSWER_MAX, read).await;
        read.unwrap_or_else(|_| bail!("the API does not answer within {ANSWER_MAX:?}"))
    })?;
    let variables = service_env::build(&services, &args.namespace, args.enable_service_links);
    let pairs = variables.iter();
    let objects = pairs.map(|(name, value)| json!({"name": name, "value": value}));
    let objects: Vec<_> = objects.collect();
    match args.output.as_deref() {
        Some("json") => println!("{}", serde_json::to_string_pretty(&objects)?),
        Some(_) => print!("{}", serde_norway::to_string(&objects)?),
        None => {
            for (name, value) in &variables {
                println!("{name}={value}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The Services of the namespace, and `default/kubernetes`, of which every pod hears.
async fn read(args: &Args) -> anyhow::Result<Vec<Service>> {
    let client = portolan_k8s::client(args.kubeconfig.as_deref()).await?;
    check_namespace(&client, &args.namespace).await?;
    let own = Api::<Service>::namespaced(client.clone(), &args.namespace);
    let own = own.list(&ListParams::default()).await;
    let mut services = own
        .with_context(|| format!("list the Services of namespace {:?}", args.namespace))?
        .items;
    if args.namespace != "default" {
        let cluster = Api::<Service>::namespaced(client, "default");
        let cluster = cluster.get_opt("kubernetes").await;
        services.extend(cluster.context("read the Service default/kubernetes")?);
    }
    Ok(services)
}

/// No pod starts in a namespace that does not exist. Who may not read namespaces is not held up.
async fn check_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    match Api::<Namespace>::all(client.clone()).get_opt(name).await {
        Ok(None) => bail!("there is no namespace {name:?}, so no pod can start in it"),
        Ok(Some(_)) => Ok(()),
        Err(kube::Error::Api(refused)) if refused.code == 403 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("read the namespace {name:?}")),
    }
}
