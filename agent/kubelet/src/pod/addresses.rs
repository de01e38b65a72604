//! The addresses of a pod, in the order that a node's own say.

use std::net::IpAddr;

/// Of a runtime's list, the first address of the family the node's primary address has, then the first of the other, as the API
/// writes them; what is no address is left out. Upstream: `sortPodIPs`.
pub fn of_pod(seen: &[String], node: Option<IpAddr>) -> Vec<String> {
    let primary_is_v4 = node.is_none_or(|ip| ip.is_ipv4());
    let all: Vec<IpAddr> = seen.iter().filter_map(|ip| ip.parse().ok()).collect();
    let first = |v4: bool| all.iter().find(|ip| ip.is_ipv4() == v4);
    first(primary_is_v4).into_iter().chain(first(!primary_is_v4)).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_first_address_must_not_be_of_another_family_than_its_nodes() {
        let sorted = |seen: &[&str], node: &str| {
            of_pod(&seen.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>(), node.parse().ok())
        };
        assert_eq!(sorted(&["fd00::1", "10.0.0.1"], "192.0.2.1"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(sorted(&["10.0.0.1", "fd00:0::1"], "2001:db8::1"), ["fd00::1", "10.0.0.1"]);
        assert_eq!(sorted(&["fd00::1", "10.0.0.1"], ""), ["10.0.0.1", "fd00::1"]);
        assert_eq!(sorted(&["10.0.0.1", "10.0.0.2", "x"], "192.0.2.1"), ["10.0.0.1"]);
        assert!(sorted(&[], "192.0.2.1").is_empty());
    }
}
