//! Which ranges of addresses a cluster may have, and which of a server's addresses it is told by. Pure.
//!
//! Upstream: `cmd/kube-apiserver/app/options/validation.go`, `cmd/kube-controller-manager/app/core.go`.

use anyhow::ensure;
use ipnet::IpNet;
use std::net::IpAddr;

/// The families' names in messages.
fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

fn is_ipv4(range: &IpNet) -> bool {
    range.addr().is_ipv4()
}

/// One range, or one of each family; `flag` without its dashes.
///
/// # Errors
/// There are more, or two of one family.
pub(crate) fn check(flag: &str, ranges: &[IpNet]) -> anyhow::Result<()> {
    ensure!(ranges.len() <= 2, "--{flag} must not contain more than two entries");
    let pair = ranges.first().zip(ranges.get(1));
    ensure!(
        pair.is_none_or(|(one, other)| is_ipv4(one) != is_ipv4(other)),
        "--{flag}[0] and --{flag}[1] must be of different IP family"
    );
    Ok(())
}

/// Pods can answer for every Service: what has ranges of Services has them of pods.
///
/// # Errors
/// A family has Services and no pods.
pub(crate) fn check_both(pods: &[IpNet], services: &[IpNet]) -> anyhow::Result<()> {
    check("cluster-cidr", pods)?;
    check("service-cidr", services)?;
    for range in services {
        ensure!(
            pods.iter().any(|pods| is_ipv4(pods) == is_ipv4(range)),
            "--service-cidr has {range}, and --cluster-cidr no {} range: no pod could answer there",
            family(is_ipv4(range))
        );
    }
    Ok(())
}

/// Each cluster range has room for the range of a node, `prefixes` bits of IPv4 and of IPv6.
///
/// # Errors
/// It has not.
pub(crate) fn check_nodes(pods: &[IpNet], prefixes: (u8, u8)) -> anyhow::Result<()> {
    for range in pods {
        let prefix = if is_ipv4(range) { prefixes.0 } else { prefixes.1 };
        ensure!(
            range.prefix_len() <= prefix && prefix <= range.max_prefix_len(),
            "--cluster-cidr: {range} has no /{prefix} for a node: give --node-cidr-mask-size-{}",
            family(is_ipv4(range)).to_ascii_lowercase()
        );
    }
    Ok(())
}

/// The address that stands for a server: the one given, or the first of its own of the family of the first service range, in which
/// the Service `kubernetes` is.
///
/// # Errors
/// None is of that family: nobody would reach the server by that Service.
pub(crate) fn advertised(
    given: Option<IpAddr>,
    own: &[IpAddr],
    services: &[IpNet],
) -> anyhow::Result<Option<IpAddr>> {
    let fits = |ip: &IpAddr| services.first().is_none_or(|range| is_ipv4(range) == ip.is_ipv4());
    let chosen = given.or_else(|| own.iter().copied().find(fits)).or(own.first().copied());
    if let (Some(ip), Some(range)) = (chosen, services.first()) {
        ensure!(fits(&ip), "service IP family \"{range}\" must match public address family \"{ip}\"");
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(',').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect()
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split(',').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_cluster_has_one_range_or_one_of_each_family() {
        let said = |text: &str| check("x", &nets(text)).err().map(|error| error.to_string());
        for good in ["10.0.0.0/8", "fd00::/48", "10.0.0.0/8,fd00::/48", "fd00::/48,10.0.0.0/8"] {
            assert_eq!(said(good), None, "{good}");
        }
        let twice = Some("--x[0] and --x[1] must be of different IP family".to_owned());
        assert_eq!(said("10.0.0.0/16,10.1.0.0/16"), twice);
        assert_eq!(said("fd00::/48,fd01::/48"), twice);
        let many = Some("--x must not contain more than two entries".to_owned());
        assert_eq!(said("10.0.0.0/16,fd00::/48,10.1.0.0/16"), many);
    }

    #[test]
    fn a_service_must_not_have_a_family_that_no_pod_has() {
        let said = |pods: &str, services: &str| check_both(&nets(pods), &nets(services)).is_ok();
        assert!(said("10.0.0.0/16", "10.96.0.0/16"));
        assert!(said("10.0.0.0/16,fd00::/48", "10.96.0.0/16"), "Services of one family among pods of two");
        assert!(said("fd00::/48,10.0.0.0/16", "10.96.0.0/16,fd01::/112"));
        assert!(!said("10.0.0.0/16", "fd01::/112"));
        assert!(!said("10.0.0.0/16", "10.96.0.0/16,fd01::/112"));
        assert!(!said("fd00::/48", "10.96.0.0/16"), "the default range beside pods of IPv6");
    }

    #[test]
    fn a_cluster_range_must_not_be_smaller_than_a_nodes() {
        let said = |pods: &str, prefixes| check_nodes(&nets(pods), prefixes).err().map(|e| e.to_string());
        assert_eq!(said("10.0.0.0/16,fd00::/56", (24, 64)), None);
        assert_eq!(said("10.0.0.0/24,fd00::/64", (24, 64)), None, "one node");
        let small = "--cluster-cidr: fd00::/112 has no /64 for a node: give --node-cidr-mask-size-ipv6";
        assert_eq!(said("10.0.0.0/16,fd00::/112", (24, 64)).as_deref(), Some(small));
        assert_eq!(said("fd00::/112", (24, 120)), None);
        assert!(said("10.0.0.0/26", (24, 64)).is_some() && said("10.0.0.0/16", (33, 64)).is_some());
    }

    #[test]
    fn a_server_must_not_be_told_by_an_address_its_own_service_cannot_name() {
        let of = |given: &str, own: &str, services: &str| {
            advertised(ips(given).first().copied(), &ips(own), &nets(services)).map_err(|e| e.to_string())
        };
        let ip = |text: &str| Ok(text.parse().ok());
        assert_eq!(of("", "192.0.2.1,fd77::1", "10.96.0.0/12"), ip("192.0.2.1"));
        assert_eq!(of("", "fd77::1,192.0.2.1", "10.96.0.0/12,fd00::/112"), ip("192.0.2.1"));
        assert_eq!(of("", "192.0.2.1,fd77::1", "fd00::/112,10.96.0.0/12"), ip("fd77::1"));
        assert_eq!(of("fd77::9", "fd77::1", "fd00::/112"), ip("fd77::9"));
        let refused = "service IP family \"10.96.0.0/12\" must match public address family \"fd77::1\"";
        assert_eq!(of("", "fd77::1", "10.96.0.0/12"), Err(refused.to_owned()));
        assert!(of("192.0.2.9", "fd77::1", "fd00::/112").is_err());
        assert_eq!(of("", "", "10.96.0.0/12"), Ok(None));
    }
}
