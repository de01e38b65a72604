//! What flags settle of any API server, alone or in `windlass server`, which takes them by `--kube-apiserver-arg`. Upstream:
//! `pkg/controlplane/apiserver/options`, `pkg/kubeapiserver/options`.

use super::serving::{Serving, not_negative};
use super::{
    Accounts, Flagged, Limits, Services, admission, audit, authentication, authorization, metrics, objects,
};
use crate::flags::{Flags, Table};
use crate::parts::gates;
use anyhow::{Context as _, anyhow, bail, ensure};
use apiserver::registry::{self, EndpointReconciler};

/// What `windlass server` settles by itself, by flags of its own or not at all: what these begin with, and these.
const OWN: [&str; 4] = ["etcd-", "encryption-provider-config", "requestheader-", "storage-"];
const OWN_WHOLE: [&str; 24] = [
    "advertise-address",
    "apiserver-count",
    "bind-address",
    "cert-dir",
    "client-ca-file",
    "data-dir",
    "endpoint-reconciler-type",
    "help",
    "kubelet-certificate-authority",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "lease-reuse-duration-seconds",
    "logging-format",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "secure-port",
    "service-account-issuer",
    "service-account-key-file",
    "service-account-signing-key-file",
    "service-cluster-ip-range",
    "tls-cert-file",
    "tls-private-key-file",
    "v",
    "version",
];

/// Reads what `windlass server` is told for its API server: flags of kube-apiserver, whose `table` it is, without their dashes.
pub(crate) fn of_arguments(table: &Table, given: &[String]) -> anyhow::Result<Flags> {
    let line: Vec<String> = given.iter().map(|word| format!("--{}", word.trim_start_matches('-'))).collect();
    let flags = table.parse(&line).map_err(|e| anyhow!(e)).context("--kube-apiserver-arg")?;
    for name in flags.names() {
        if OWN_WHOLE.contains(&name) || OWN.iter().any(|start| name.starts_with(start)) {
            bail!("--kube-apiserver-arg={name}: the server settles this by itself");
        }
    }
    admission::check(&flags).context("--kube-apiserver-arg")?;
    flags.warn();
    Ok(flags)
}

impl Flagged {
    /// What flags of kube-apiserver say; of objects, the rest is as `objects` has it.
    pub(crate) fn of_flags(flags: &Flags, default: &registry::Config) -> anyhow::Result<Self> {
        let list = |name: &str| flags.list(name).map(<[String]>::to_vec).unwrap_or_default();
        gates::check(flags)?.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Self {
            other_issuers: authentication::Source::of_flags(flags)?,
            tokens: authentication::Tokens::of_flags(flags)?,
            authorization: authorization::Source::of_flags(flags)?,
            audit: audit::Source::of_flags(flags)?,
            admission: admission::Configured::of_flags(flags)?,
            services: services(flags)?,
            serving: Serving::of_flags(flags)?,
            objects: objects::of_flags(flags, default)?,
            accounts: Accounts {
                keys_uri: keys_uri(flags)?,
                unseen: flags.bool("service-account-lookup") == Some(false),
            },
            metrics: metrics::of_flags(flags)?,
            node_addresses: list("kubelet-preferred-address-types"),
        })
    }
}

impl Limits {
    /// What flags of kube-apiserver say; the rest is as `default` has it.
    pub(crate) fn of_flags(flags: &Flags, flagged: &Flagged, default: Self) -> anyhow::Result<Self> {
        let mut enabled = flags.bool("anonymous-auth").unwrap_or(default.anonymous.enabled);
        if enabled && flagged.authorization.allows_all() {
            tracing::warn!(
                "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false"
            );
            enabled = false;
        }
        let anonymous = authentication::Anonymous { enabled, paths: Vec::new() };
        let count = |name: &str, default: usize| match flags.int(name) {
            None => Ok(default),
            Some(number) => {
                usize::try_from(number).map_err(|_| anyhow!("--{name} can not be negative value"))
            }
        };
        let limits = Limits {
            requests: count("max-requests-inflight", default.requests)?,
            mutating: count("max-mutating-requests-inflight", default.mutating)?,
            fair: flags.bool("enable-priority-and-fairness").unwrap_or(default.fair),
            timeout: match flags.text("request-timeout") {
                Some(_) => {
                    not_negative(flags, "request-timeout", "--request-timeout can not be negative value")?
                }
                None => default.timeout,
            },
            anonymous: flagged.other_issuers.anonymous().unwrap_or(anonymous),
            bootstrap_tokens: flags.bool("enable-bootstrap-token-auth").unwrap_or(default.bootstrap_tokens),
        };
        ensure!(
            !limits.fair || limits.requests + limits.mutating > 0,
            "invalid configuration: MaxRequestsInFlight={} and MaxMutatingRequestsInFlight={}; they must add up to something positive",
            limits.requests,
            limits.mutating
        );
        Ok(limits)
    }
}

/// Where others find the keys that verify tokens of service accounts.
fn keys_uri(flags: &Flags) -> anyhow::Result<Option<String>> {
    let Some(text) = flags.text("service-account-jwks-uri") else { return Ok(None) };
    let uri: http::Uri =
        text.parse().map_err(|e| anyhow!("service-account-jwks-uri must be a valid URL: {e}"))?;
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
        bail!("service-account-jwks-uri requires https scheme, parsed as: {text}");
    }
    Ok(Some(text.to_owned()))
}

/// What Services are given, and who is behind that of the API itself.
fn services(flags: &Flags) -> anyhow::Result<Services> {
    let default = Services::default();
    let node_ports = match flags.text("service-node-port-range") {
        Some(text) => port_range(text).with_context(|| format!("--service-node-port-range: {text:?}"))?,
        None => default.node_ports,
    };
    let count = flags.int("apiserver-count").unwrap_or(1);
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        bail!("--apiserver-count should be a positive number, but value '{count}' provided");
    };
    let endpoints = match flags.text("endpoint-reconciler-type") {
        None | Some("lease") => EndpointReconciler::Lease,
        Some("master-count") => EndpointReconciler::MasterCount(count),
        Some("none") => EndpointReconciler::None,
        Some(other) => {
            bail!("--endpoint-reconciler-type={other}: must be one of [master-count, lease, none]")
        }
    };
    Ok(Services { node_ports, endpoints })
}

/// Ports from the first to the last: `30000-32767`, `30000+2767`, or one.
fn port_range(text: &str) -> anyhow::Result<(u16, u16)> {
    let text = text.trim();
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (first.parse()?, last.parse()?),
        (None, Some((first, more))) => {
            let (first, more): (u16, u16) = (first.parse()?, more.parse()?);
            (first, first.checked_add(more).context("the last port is above 65535")?)
        }
        (None, None) => (text.parse()?, text.parse()?),
    };
    ensure!(first > 0 && first <= last, "the first port must be above 0 and not above the last");
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn flags(line: &str) -> anyhow::Result<Flags> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Ok(Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
    }

    fn of(line: &str) -> anyhow::Result<(Flagged, Limits)> {
        let flags = flags(line)?;
        let flagged = Flagged::of_flags(&flags, &registry::Config::default())?;
        let limits = Limits::of_flags(&flags, &flagged, Limits::default())?;
        Ok((flagged, limits))
    }

    #[test]
    fn each_flag_changes_what_it_names() {
        type Seen = fn(&(Flagged, Limits)) -> String;
        let cases: [(&str, Seen, &str); 9] = [
            ("--max-requests-inflight=7", |(_, l)| l.requests.to_string(), "7"),
            ("--max-mutating-requests-inflight=7", |(_, l)| l.mutating.to_string(), "7"),
            ("--enable-priority-and-fairness=false", |(_, l)| l.fair.to_string(), "false"),
            ("--request-timeout=7s", |(_, l)| l.timeout.as_secs().to_string(), "7"),
            ("--enable-bootstrap-token-auth=false", |(_, l)| l.bootstrap_tokens.to_string(), "false"),
            ("--service-account-lookup=false", |(f, _)| f.accounts.unseen.to_string(), "true"),
            (
                "--service-account-jwks-uri=https://keys.test/jwks",
                |(f, _)| f.accounts.keys_uri.clone().unwrap_or_default(),
                "https://keys.test/jwks",
            ),
            ("--disabled-metrics=a,b", |(f, _)| f.metrics.disabled.join(" "), "a b"),
            (
                "--kubelet-preferred-address-types=Hostname,InternalIP",
                |(f, _)| f.node_addresses.join(" "),
                "Hostname InternalIP",
            ),
        ];
        let default = of("").unwrap();
        for (line, seen, expected) in cases {
            assert_eq!(seen(&of(line).unwrap()), expected, "{line}");
            assert_ne!(seen(&default), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_upstreams_words() {
        for (line, why) in [
            ("--request-timeout=-1s", "--request-timeout can not be negative value"),
            ("--max-requests-inflight=-1", "--max-requests-inflight can not be negative value"),
            (
                "--max-requests-inflight=0 --max-mutating-requests-inflight=0",
                "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to something positive",
            ),
            (
                "--service-account-jwks-uri=http://keys.test",
                "service-account-jwks-uri requires https scheme, parsed as: http://keys.test",
            ),
        ] {
            assert_eq!(of(line).err().expect(line).to_string(), why);
        }
        let free = "--max-requests-inflight=0 --max-mutating-requests-inflight=0 --enable-priority-and-fairness=false";
        assert!(of(free).is_ok(), "then there is no limit");
    }

    #[test]
    fn a_server_must_not_be_told_what_it_settles_by_itself() {
        let table = Component::named("kube-apiserver").unwrap().table();
        let of =
            |words: &[&str]| of_arguments(&table, &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let flags = of(&["event-ttl=2h", "--profiling=false", "enable-garbage-collector"]).unwrap();
        assert_eq!(flags.duration("event-ttl").unwrap().as_secs(), 7200);
        assert_eq!(flags.bool("enable-garbage-collector"), Some(true));
        for (word, why) in [
            ("secure-port=1", "--kube-apiserver-arg=secure-port: the server settles this by itself"),
            ("etcd-servers=x", "--kube-apiserver-arg=etcd-servers: the server settles this by itself"),
            ("nonsense=1", "--kube-apiserver-arg: unknown flag: --nonsense"),
            (
                "enable-admission-plugins=Foo",
                "--kube-apiserver-arg: enable-admission-plugins plugin \"Foo\" is unknown",
            ),
        ] {
            assert_eq!(format!("{:#}", of(&[word]).unwrap_err()), why);
        }
    }

    #[test]
    fn every_flag_a_server_settles_by_itself_is_one() {
        let table = Component::named("kube-apiserver").unwrap().flags;
        let names: Vec<&str> = table.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(OWN_WHOLE.iter().all(|own| names.contains(own)));
        assert!(OWN.iter().all(|start| names.iter().any(|name| name.starts_with(start))));
    }
}
