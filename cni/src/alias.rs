//! What an attachment is called in the kernel: the alias of a link, the comment of an nftables element.

use crate::call::Owner;

/// FNV-1a: names must be the same in every build, which the standard library's hashes do not promise.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) fn alias_prefix(network: &str) -> String {
    format!("cni:{:016x}:", fnv(network.bytes()))
}

/// Whose a host end is. The kernel allows 255 bytes, so the network's name is hashed.
pub(crate) fn alias(network: &str, owner: &Owner) -> String {
    format!("{}{}:{}", alias_prefix(network), owner.container, owner.interface)
}
