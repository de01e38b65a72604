//! The example as a program, to be run beside a cluster: prints the authority to put into APIServices and webhook configurations.

use anyhow::Context as _;
use clap::Parser;
use extension::{Extension, Settings};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A server of `example.windlass.dev`, and of webhooks.
#[derive(Parser)]
struct Options {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// What its certificate is for: `NAME.NAMESPACE.svc`; may be given several times.
    #[arg(long = "name", required = true)]
    names: Vec<String>,
    /// The authority of the front proxy, PEM: what the ConfigMap `extension-apiserver-authentication` holds.
    #[arg(long)]
    front: PathBuf,
    /// Speak no OpenAPI 3.
    #[arg(long)]
    old: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { listen, names, front, old } = Options::parse();
    let front = std::fs::read_to_string(&front).with_context(|| format!("read {}", front.display()))?;
    let extension = Extension::start(Settings { listen: Some(listen), names, front, old }).await?;
    println!("caBundle: {}", extension.bundle());
    tokio::signal::ctrl_c().await.context("wait for the end")?;
    Ok(())
}
