//! In which order nodes answer for an address: by rendezvous hashing, so that all nodes agree who know the same nodes, addresses spread
//! evenly, and a node that comes or goes moves its own addresses only. Pure.

use std::net::IpAddr;

/// The place of `node` among `candidates`; 0 is the one that answers. None where it is not among them.
pub(crate) fn of<'a>(
    address: IpAddr,
    node: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<usize> {
    let own = (weight(address, node), node);
    let (mut before, mut there) = (0, false);
    for other in candidates {
        there |= other == node;
        before += usize::from((weight(address, other), other) > own);
    }
    there.then_some(before)
}

/// What a node's name weighs for an address: the same in every program and version (FNV-1a, then the mixing of splitmix64).
fn weight(address: IpAddr, node: &str) -> u64 {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let hash = octets.iter().chain(node.as_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn owner<'a>(address: IpAddr, nodes: &[&'a str]) -> &'a str {
        nodes.iter().find(|node| of(address, node, nodes.iter().copied()) == Some(0)).unwrap()
    }

    fn addresses() -> impl Iterator<Item = IpAddr> {
        (0..1000_u16).map(|n| IpAddr::from([192, 0, (n >> 8) as u8, (n & 255) as u8]))
    }

    #[test]
    fn every_address_has_one_node_of_each_rank() {
        let nodes = ["a", "b", "c", "d"];
        for address in addresses() {
            let mut ranks: Vec<_> = nodes.iter().map(|node| of(address, node, nodes).unwrap()).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2, 3]);
        }
        assert_eq!(of([192, 0, 2, 1].into(), "x", nodes), None);
    }

    #[test]
    fn a_node_that_goes_must_not_move_addresses_of_others() {
        let nodes = ["n1", "n2", "n3", "n4", "n5"];
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        for address in addresses() {
            let before = owner(address, &nodes);
            *shares.entry(before).or_default() += 1;
            let after = owner(address, &nodes[..4]);
            assert!(before == after || before == "n5", "{address} moved from {before} to {after}");
            if before == "n5" {
                assert_eq!(of(address, after, nodes), Some(1), "the next one takes it");
            }
        }
        assert!(shares.values().all(|share| (140..260).contains(share)), "{shares:?}");
    }

    #[test]
    fn programs_of_another_version_must_not_choose_another_node() {
        assert_eq!(weight([192, 0, 2, 1].into(), "n1"), WEIGHED);
    }

    /// Written down once: a change moves addresses while a cluster is upgraded.
    const WEIGHED: u64 = 0x778f_64f8_fe50_886a;
}
