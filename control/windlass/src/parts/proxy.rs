//! The service proxy alone, as kube-proxy.
//!
//! Its flags and its file are one document: where there is a file it alone counts, but for the node's name, as upstream's.

mod settings;
mod written;

use super::{alone, kubeconfig};
use crate::component_config::{self, Document, Kind};
use crate::flags::Flags;
use anyhow::{Context as _, anyhow};
use serde_json::Value;
use std::path::Path;

/// The kind of the file.
const KIND: Kind = Kind {
    api_version: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    fields: include_str!("../../data/config/KubeProxyConfiguration.txt"),
};

/// Runs until a signal, unless it is asked for one thing only.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let document = match flags.text("config") {
        Some(path) => component_config::load(Path::new(path), &KIND).context("--config")?,
        None => of_flags(&flags)?,
    };
    let (settings, warnings) =
        settings::read(&document, flags.text("hostname-override")).context("failed validate")?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(path) = flags.text("write-config-to") {
        return written::write(Path::new(path), &document);
    }
    if flags.bool("cleanup") == Some(true) {
        return proxy::apply::remove_tables().await.context("remove our rules");
    }
    if flags.bool("init-only") == Some(true) {
        proxy::set_limits(&settings.proxy.limits);
        return Ok(());
    }
    if settings.must_listen {
        settings.proxy.check_ports().map_err(|e| anyhow!("{}", supervise::chain(&e)))?;
    }
    if let Err(error) = supervise::process::set_oom_score(settings.oom_score) {
        tracing::info!(%error, score = settings.oom_score, "the kernel's preference for ending us is as it was");
    }
    let (client, renewal) =
        kubeconfig::of_flags(&flags, document.text("/clientConnection/kubeconfig")).await?;
    let client = match settings.requests {
        Some((qps, burst)) => node::limited_client(client, qps, burst),
        None => client,
    };
    alone::run(renewal, |supervisor| node::tasks::proxy(settings.proxy, client, supervisor)).await
}

/// The flags as a file would have them; deprecated ones for ports complete addresses, and port 0 is none.
fn of_flags(flags: &Flags) -> anyhow::Result<Document> {
    let mut document = flags.document();
    for (flag, field, default) in [
        ("healthz-port", "healthzBindAddress", proxy::HEALTH_PORT),
        ("metrics-port", "metricsBindAddress", proxy::STATUS_PORT),
    ] {
        let Some(port) = flags.text(flag).map(|_| flags.port(flag, default)).transpose()? else { continue };
        let address = document[field].as_str().map(str::to_owned);
        document[field] = match (port, address) {
            (0, _) => Value::String(settings::NOWHERE.to_owned()),
            (port, Some(address)) => Value::String(settings::with_port(&address, port)),
            (port, None) => Value::String(settings::default_address(&document, field, port)),
        };
    }
    Ok(Document(document))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Document> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        of_flags(&Component::named("kube-proxy").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn the_old_flags_for_ports_must_not_be_ignored() {
        let read = |line: &str| settings::read(&of(line).unwrap(), Some("n")).unwrap().0.proxy;
        let cases = [
            ("", Some("0.0.0.0:10256"), Some("127.0.0.1:10249")),
            ("--healthz-port=0 --metrics-port=0", None, None),
            ("--healthz-port=1 --metrics-port=2", Some("0.0.0.0:1"), Some("127.0.0.1:2")),
            (
                "--healthz-bind-address=127.0.0.1 --healthz-port=1",
                Some("127.0.0.1:1"),
                Some("127.0.0.1:10249"),
            ),
            (
                "--healthz-bind-address=127.0.0.1:5 --healthz-port=1",
                Some("127.0.0.1:5"),
                Some("127.0.0.1:10249"),
            ),
            ("--bind-address=:: --metrics-port=3", Some("[::]:10256"), Some("[::1]:3")),
        ];
        for (line, healthz, metrics) in cases {
            let config = read(line);
            assert_eq!(config.healthz, healthz.map(|a| a.parse().unwrap()), "{line}");
            assert_eq!(config.mode, metrics.map(|a| a.parse().unwrap()), "{line}");
        }
        assert!(of("--healthz-port=70000").is_err());
    }
}
