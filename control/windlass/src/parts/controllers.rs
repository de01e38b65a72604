//! The controllers: with others in `windlass server`, or alone as kube-controller-manager, by its flags ([`options`], [`signers`]).

mod options;
mod signers;

use super::alone::Alone;
use super::leading::{self, OnLoss};
use super::throttle::{Limit, limited};
use super::{accounts, election, kubeconfig};
use crate::flags::Flags;
use anyhow::{Context as _, bail};
use client::leader::{Elector, Settings};
use controllers::{Authorities, Clients, Config, Ranges, Selection};
use ipnet::IpNet;
use pki::service_account::SigningKey;
use std::path::Path;
use std::sync::Arc;
use supervise::{Supervisor, Task};
use tokio::sync::watch;

/// Upstream's name of its lease, and of who its events are of.
pub(crate) const NAME: &str = "kube-controller-manager";
/// Upstream's limit of each client, where one of the two is given.
pub(crate) const LIMIT: Limit = Limit { qps: 20.0, burst: 30 };
/// Controllers' accounts whose clients may ask more, and how many times as much at length and at once, as upstream's.
const BUSY: [(&str, f64, u32); 2] =
    [("generic-garbage-collector", 2.0, 1), ("namespace-controller", 20.0, 100)];
pub(crate) fn task(
    client: kube::Client,
    config: Config,
    supervisor: &Supervisor,
    elector: Option<Elector>,
    on_loss: OnLoss,
) -> Task {
    let supervisor = supervisor.clone();
    leading::task("controllers", elector, on_loss, move |token| {
        let (client, supervisor, config) = (client.clone(), supervisor.clone(), config.clone());
        async move {
            controllers::run(client, config, &supervisor, token).await;
            Ok(())
        }
    })
}

/// Runs alone until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let (client, renewal) = kubeconfig::of_flags(&flags, None).await?;
    let limit = Limit::of_flags(&flags, LIMIT)?;
    let clients = clients(&flags, &client, limit).await?;
    let (authorities, pairs) = signers::of(&flags)?;
    let config = config(&flags, clients, authorities)?;
    let lease = election::settings(&flags, true, Settings::new(NAME))?;
    let alone = Alone::prepare(&flags, client, lease, NAME, (NAME, super::CONTROLLERS_PORT, false)).await?;
    // Its lease is kept by a client that waits for nobody.
    let client = limited(alone.client.clone(), limit);
    let task = task(client, config, &alone.supervisor, alone.elector.clone(), alone.on_loss());
    alone.run(std::iter::once(task).chain(pairs.task()).chain(renewal).collect()).await
}

/// The user the controllers write as; each asks no more often than `limit`.
async fn clients(flags: &Flags, root: &kube::Client, limit: Option<Limit>) -> anyhow::Result<Clients> {
    let root = root.clone();
    let own = move |account: &str| {
        let busy = BUSY.iter().find(|(busy, ..)| *busy == account);
        limit.map(|limit| busy.map_or(limit, |(_, qps, burst)| limit.times(*qps, *burst)))
    };
    if flags.bool("use-service-account-credentials") != Some(true) {
        return Ok(Arc::new(move |account: &str| limited(root.clone(), own(account))));
    }
    let bare = kubeconfig::bare(flags).await?;
    Ok(Arc::new(move |account: &str| match account {
        "" => limited(root.clone(), own(account)),
        account => accounts::client(&root, &limited(bare.clone(), own(account)), account),
    }))
}

/// The settings the flags say.
fn config(flags: &Flags, clients: Clients, authorities: Authorities) -> anyhow::Result<Config> {
    let read = |name: &str| {
        let read = |path| pki::files::read(Path::new(path)).with_context(|| format!("--{name}"));
        flags.text(name).map(read).transpose()
    };
    let selection = match flags.list("controllers") {
        Some(words) => Selection::parse(words).context("--controllers")?,
        None => Selection::parse(&["*".to_owned()])?,
    };
    let key = read("service-account-private-key-file")?.map(|text| SigningKey::from_pem(&text));
    Ok(Config {
        selection,
        clients,
        node_ranges: ranges(flags)?,
        authorities,
        root_ca: read("root-ca-file")?
            .or_else(|| kubeconfig::authority(flags))
            .map(|bundle| watch::Sender::new(bundle).subscribe()),
        service_account_key: key.transpose().context("--service-account-private-key-file")?.map(Arc::new),
        api_servers: Vec::new(),
        options: options::of(flags)?,
    })
}

fn ranges(flags: &Flags) -> anyhow::Result<Ranges> {
    let parse = |name: &str| -> anyhow::Result<Vec<IpNet>> {
        let texts = flags.text(name).into_iter().flat_map(|text| text.split(','));
        texts.map(|text| text.trim().parse().with_context(|| format!("--{name}: {text:?}"))).collect()
    };
    let allocates = flags.bool("allocate-node-cidrs").unwrap_or(false);
    let cluster = parse("cluster-cidr")?;
    if allocates && cluster.is_empty() {
        bail!("--allocate-node-cidrs needs --cluster-cidr");
    }
    crate::ranges::check("cluster-cidr", &cluster)?;
    if allocates {
        masks(flags, &cluster)?;
    }
    let prefix = |name: &str, default: u8, most: i64| {
        let given = flags.int(name).or(flags.int("node-cidr-mask-size")).filter(|given| *given != 0);
        match given {
            None => Ok(default),
            Some(given) if (1..=most).contains(&given) => Ok(u8::try_from(given).unwrap_or(default)),
            Some(given) => bail!("--{name}: {given} is no length of a prefix"),
        }
    };
    let prefixes =
        (prefix("node-cidr-mask-size-ipv4", 24, 32)?, prefix("node-cidr-mask-size-ipv6", 64, 128)?);
    let cluster = if allocates { cluster } else { Vec::new() };
    Ok(Ranges { cluster, taken: parse("service-cluster-ip-range")?, prefixes })
}

/// Which flags say how large nodes' ranges are goes by the families there are. Upstream: `setNodeCIDRMaskSizes`.
fn masks(flags: &Flags, cluster: &[IpNet]) -> anyhow::Result<()> {
    let given = |name: &str| flags.int(name).is_some_and(|bits| bits != 0);
    let any = given("node-cidr-mask-size");
    let (v4, v6) = (given("node-cidr-mask-size-ipv4"), given("node-cidr-mask-size-ipv6"));
    if any && cluster.len() > 1 {
        bail!("usage of --node-cidr-mask-size is not allowed with dual-stack clusters");
    }
    if any && (v4 || v6) {
        bail!(
            "usage of --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6 is not allowed if --node-cidr-mask-size is set"
        );
    }
    if let [only] = cluster {
        let ipv6 = only.addr().is_ipv6();
        if v4 && ipv6 {
            bail!("usage of --node-cidr-mask-size-ipv4 is not allowed for a single-stack IPv6 cluster");
        }
        if v6 && !v4 && !ipv6 {
            bail!("usage of --node-cidr-mask-size-ipv6 is not allowed for a single-stack IPv4 cluster");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Config> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named(NAME).unwrap().table().parse(&arguments)?;
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let clients: Clients = Arc::new(move |_| kube::Client::new(nobody, "default"));
        config(&flags, clients, signers::of(&flags)?.0)
    }

    #[test]
    fn without_flags_nothing_is_signed_or_given() {
        let config = of("").unwrap();
        assert!(
            config.authorities.is_empty() && config.root_ca.is_none() && config.service_account_key.is_none()
        );
        assert!(config.node_ranges.cluster.is_empty(), "node ranges are asked for");
        assert!(!config.selection.has("bootstrap-signer-controller"), "as upstream");
    }

    #[test]
    fn nodes_get_ranges_when_that_is_asked_for() {
        let line = "--cluster-cidr=10.1.0.0/16,fd00::/48 --service-cluster-ip-range=10.1.0.0/20";
        assert!(of(line).unwrap().node_ranges.cluster.is_empty());
        let ranges =
            of(&format!("{line} --allocate-node-cidrs --node-cidr-mask-size-ipv4=25")).unwrap().node_ranges;
        assert_eq!((ranges.cluster.len(), ranges.prefixes), (2, (25, 64)));
        assert_eq!(ranges.taken, ["10.1.0.0/20".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (line, word) in [
            ("--allocate-node-cidrs", "--cluster-cidr"),
            ("--controllers=foo", "\"foo\" is not in the list of known controllers"),
            ("--root-ca-file=/nowhere", "--root-ca-file"),
            ("--cluster-cidr=x", "--cluster-cidr"),
            ("--cluster-cidr=10.1.0.0/16,10.2.0.0/16", "different IP family"),
            (
                "--allocate-node-cidrs --cluster-cidr=10.1.0.0/16,fd00::/48 --node-cidr-mask-size=25",
                "dual-stack",
            ),
            (
                "--allocate-node-cidrs --cluster-cidr=fd00::/48 --node-cidr-mask-size-ipv4=25",
                "single-stack IPv6",
            ),
            (
                "--allocate-node-cidrs --cluster-cidr=10.1.0.0/16 --node-cidr-mask-size-ipv6=70",
                "single-stack IPv4",
            ),
        ] {
            let error = format!("{:#}", of(line).err().expect(line));
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
