//! The operator as a program: installs its definition and webhooks and looks after gadgets, or moves what is stored to another version.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use extension::{Extension, Settings};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use operator::definition::{Webhooks, admission, definition};
use operator::{DEFINITION, GROUP, MANAGER, VERSIONS, migrate, reconcile};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long the API server may take to serve the definition.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// An operator of gadgets.
#[derive(Parser)]
struct Options {
    /// How the cluster is reached.
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is needed and looks after gadgets until SIGTERM.
    Run {
        /// Where the webhooks listen; the API server must reach it.
        #[arg(long, default_value = "127.0.0.1:9443")]
        listen: SocketAddr,
    },
    /// Moves what is stored to a version.
    Migrate {
        /// `v1`, `v2` or `v3`.
        #[arg(long)]
        to: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { kubeconfig, command } = Options::parse();
    let file =
        Kubeconfig::read_from(&kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config).context("make a client")?;
    match command {
        Command::Run { listen } => run(client, listen).await,
        Command::Migrate { to } => {
            let written = migrate::to(client, &to).await?;
            println!("{written} gadgets are stored as {to}");
            Ok(())
        }
    }
}

async fn run(client: Client, listen: SocketAddr) -> anyhow::Result<()> {
    // nobody is believed to be the front proxy: only webhooks are served
    let front = pki::Authority::generate("nobody", jiff::Timestamp::now()).context("make an authority")?;
    let settings = Settings {
        listen: Some(listen),
        names: vec!["localhost".into()],
        front: front.cert_pem(),
        ..Settings::default()
    };
    let serving = Extension::start(settings).await.context("serve webhooks")?;
    let webhooks =
        Webhooks { url: format!("https://localhost:{}", serving.address().port()), bundle: serving.bundle() };
    let definitions = Api::all_with(client.clone(), &of("apiextensions.k8s.io", "CustomResourceDefinition"));
    let storage = stored(&definitions).await?;
    apply(&definitions, definition(&webhooks, &storage)).await?;
    for configuration in admission(&webhooks) {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        let api = Api::all_with(client.clone(), &of("admissionregistration.k8s.io", kind));
        apply(&api, configuration).await?;
    }
    let established = await_condition(Api::all(client.clone()), DEFINITION, conditions::is_crd_established());
    tokio::time::timeout(ESTABLISHED, established)
        .await
        .with_context(|| format!("{GROUP} is not served"))??;
    println!("running");
    reconcile::run(client).await;
    Ok(())
}

fn of(group: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
}

/// The version that the definition stores today, so that a start does not undo a migration; the oldest where there is none.
async fn stored(definitions: &Api<DynamicObject>) -> anyhow::Result<String> {
    let there = definitions.get_opt(DEFINITION).await.context("read the definition")?;
    let versions = there.as_ref().and_then(|definition| definition.data["spec"]["versions"].as_array());
    let storage =
        versions.into_iter().flatten().find(|version| version["storage"] == true).map(|v| &v["name"]);
    Ok(storage.and_then(Value::as_str).unwrap_or(VERSIONS[0]).to_owned())
}

async fn apply(api: &Api<DynamicObject>, object: Value) -> anyhow::Result<()> {
    let params = PatchParams::apply(MANAGER).force();
    api.patch(DEFINITION, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("apply {} {DEFINITION}", object["kind"]))?;
    Ok(())
}
