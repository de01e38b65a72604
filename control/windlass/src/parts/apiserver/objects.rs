//! What is served and what becomes of objects, as far as flags settle it. Upstream: `apiserver/pkg/server/options/{etcd,api_enablement}.go`,
//! `pkg/controlplane/apiserver/options`, `plugin/pkg/admission/defaulttolerationseconds`.

use crate::flags::Flags;
use anyhow::{anyhow, bail};
use apiserver::registry::{Config, Served};
use std::time::Duration;

/// Fewer than this many seconds no token of a service account may be limited to, nor more than that.
const TOKEN_SECONDS: (u64, u64) = (3600, 1 << 32);
/// Tokens of projected volumes ask for this, and may live so long.
const PROJECTED: (u64, u64) = (3607, 365 * 24 * 3600);
/// What switches the group off that priority and fairness reads; the first that is given decides.
const FLOW: [&str; 3] = ["flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all"];

/// The registry's settings with what the flags say of them.
pub(super) fn of_flags(flags: &Flags, default: &Config) -> anyhow::Result<Config> {
    let seconds = |name: &str, default: i64| flags.int(name).unwrap_or(default);
    let (not_ready, unreachable) = default.toleration_seconds;
    let min_watch = match flags.int("min-request-timeout") {
        None => default.watch_time,
        Some(seconds) => Duration::from_secs(
            u64::try_from(seconds).map_err(|_| anyhow!("--min-request-timeout can not be negative value"))?,
        ),
    };
    Ok(Config {
        served: served(flags)?,
        event_ttl: flags.duration("event-ttl").unwrap_or(default.event_ttl),
        watch_time: min_watch,
        delete_workers: count(flags, "delete-collection-workers").unwrap_or(default.delete_workers),
        garbage_collection: flags.bool("enable-garbage-collector").unwrap_or(default.garbage_collection),
        privileged: flags.bool("allow-privileged").unwrap_or(default.privileged),
        toleration_seconds: (
            seconds("default-not-ready-toleration-seconds", not_ready),
            seconds("default-unreachable-toleration-seconds", unreachable),
        ),
        pass_redirects: !flags
            .bool("aggregator-reject-forwarding-redirect")
            .unwrap_or(!default.pass_redirects),
        by_cluster_ip: flags
            .bool("enable-aggregator-routing")
            .map_or(default.by_cluster_ip, |direct| !direct),
        service_node_port: service_node_port(flags)?,
        max_token_seconds: token_seconds(flags, default.max_token_seconds)?,
        extend_token_expiration: flags
            .bool("service-account-extend-token-expiration")
            .unwrap_or(default.extend_token_expiration),
        ..default.clone()
    })
}

fn count(flags: &Flags, name: &str) -> Option<usize> {
    flags.int(name).and_then(|number| usize::try_from(number).ok())
}

fn served(flags: &Flags) -> anyhow::Result<Served> {
    let pairs: Vec<(String, String)> = flags
        .list("runtime-config")
        .unwrap_or_default()
        .iter()
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let served = Served::of(&pairs).map_err(|why| anyhow!(why))?;
    if flags.bool("enable-priority-and-fairness").unwrap_or(true) {
        let given = FLOW.iter().find_map(|key| Some((*key, pairs.iter().rev().find(|(k, _)| k == key)?)));
        if let Some((key, (_, value))) = given
            && value == "false"
        {
            bail!("--runtime-config={key}=false conflicts with --enable-priority-and-fairness=true");
        }
    }
    Ok(served)
}

fn service_node_port(flags: &Flags) -> anyhow::Result<Option<u16>> {
    match flags.int("kubernetes-service-node-port").unwrap_or(0) {
        0 => Ok(None),
        port @ 1..=65535 => Ok(u16::try_from(port).ok()),
        port => bail!(
            "--kubernetes-service-node-port {port} must be between 0 and 65535, inclusive. If 0, the Kubernetes master service will be of type ClusterIP"
        ),
    }
}

fn token_seconds(flags: &Flags, default: i64) -> anyhow::Result<i64> {
    let longest = flags.duration("service-account-max-token-expiration").map(|time| time.as_secs());
    let Some(longest) = longest.filter(|seconds| *seconds != 0) else { return Ok(default) };
    let given = flags.text("service-account-max-token-expiration").unwrap_or_default();
    if !(TOKEN_SECONDS.0..=TOKEN_SECONDS.1).contains(&longest) {
        bail!("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds");
    }
    if flags.bool("service-account-extend-token-expiration").unwrap_or(true) {
        let (asked, extended) = PROJECTED;
        if longest < asked {
            tracing::warn!(
                "service-account-extend-token-expiration is true, in order to correctly trigger safe transition logic, service-account-max-token-expiration must be set longer than {asked} seconds (currently {given})"
            );
        }
        if longest < extended {
            tracing::warn!(
                "service-account-extend-token-expiration is true, enabling tokens valid up to {extended} seconds, which is longer than service-account-max-token-expiration set to {given}"
            );
        }
    }
    Ok(i64::try_from(longest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Config> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-apiserver").unwrap().table().parse(&arguments)?;
        of_flags(&flags, &Config::default())
    }

    #[test]
    fn each_flag_changes_what_it_names() {
        type Seen = fn(&Config) -> String;
        let cases: [(&str, Seen, &str); 14] = [
            ("--event-ttl=2h", |c| c.event_ttl.as_secs().to_string(), "7200"),
            ("--min-request-timeout=60", |c| c.watch_time.as_secs().to_string(), "60"),
            ("--delete-collection-workers=4", |c| c.delete_workers.to_string(), "4"),
            ("--enable-garbage-collector=false", |c| c.garbage_collection.to_string(), "false"),
            ("--allow-privileged=false", |c| c.privileged.to_string(), "false"),
            (
                "--default-not-ready-toleration-seconds=7",
                |c| format!("{:?}", c.toleration_seconds),
                "(7, 300)",
            ),
            (
                "--default-unreachable-toleration-seconds=7",
                |c| format!("{:?}", c.toleration_seconds),
                "(300, 7)",
            ),
            ("--aggregator-reject-forwarding-redirect=false", |c| c.pass_redirects.to_string(), "true"),
            ("--enable-aggregator-routing=false", |c| c.by_cluster_ip.to_string(), "true"),
            ("--kubernetes-service-node-port=30443", |c| format!("{:?}", c.service_node_port), "Some(30443)"),
            ("--service-account-max-token-expiration=2h", |c| c.max_token_seconds.to_string(), "7200"),
            (
                "--service-account-extend-token-expiration=false",
                |c| c.extend_token_expiration.to_string(),
                "false",
            ),
            ("--runtime-config=apps/v1=false", |c| c.served.has("apps", "v1").to_string(), "false"),
            (
                "--runtime-config=apps/v1/deployments=false",
                |c| c.served.serves("apps", "v1", "deployments").to_string(),
                "false",
            ),
        ];
        let default = of("").unwrap();
        for (line, seen, expected) in cases {
            assert_eq!(seen(&of(line).unwrap()), expected, "{line}");
            assert_ne!(seen(&default), expected, "{line}");
        }
        assert_eq!(
            of("--service-account-max-token-expiration=0s").unwrap().max_token_seconds,
            default.max_token_seconds
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_upstreams_words() {
        for (line, why) in [
            ("--min-request-timeout=-1", "--min-request-timeout can not be negative value"),
            (
                "--service-account-max-token-expiration=10m",
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
            ),
            (
                "--kubernetes-service-node-port=70000",
                "--kubernetes-service-node-port 70000 must be between 0 and 65535, inclusive. If 0, the Kubernetes master service will be of type ClusterIP",
            ),
            ("--runtime-config=api/all=false", "invalid runtime-config with only api/all=false"),
            (
                "--runtime-config=resource.k8s.io/v1beta1=true",
                "group version resource.k8s.io/v1beta1 that has not been registered",
            ),
            (
                "--runtime-config=api/ga=false,v1=true",
                "--runtime-config=api/ga=false conflicts with --enable-priority-and-fairness=true",
            ),
        ] {
            assert_eq!(of(line).unwrap_err().to_string(), why, "{line}");
        }
        let on = "--runtime-config=api/all=false,v1=true,flowcontrol.apiserver.k8s.io/v1=true";
        assert!(of(on).is_ok(), "the group itself is on");
        assert!(of("--runtime-config=api/ga=false,v1=true --enable-priority-and-fairness=false").is_ok());
    }
}
