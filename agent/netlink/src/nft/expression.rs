//! What rules are made of. A rule's expressions run in order over sixteen registers of four bytes; the first that does not match ends
//! the rule. Pure.

use super::object::Verdict;
use crate::attribute::Writer;
use std::borrow::Cow;

/// A register of four bytes, 0 to 15; longer values take the ones that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// `NFT_REG32_00` and up.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// Whether a comparison or look-up should match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// `NFT_CMP_EQ`, or member of the set.
    Equal,
    /// `NFT_CMP_NEQ`, or no member of the set.
    Different,
}

/// Where payload is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// IPv4 or IPv6 header.
    Network,
    /// The TCP, UDP or SCTP header.
    Transport,
}

/// `NFT_META_*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The packet's priority (`skb->priority`).
    Priority = 2,
    /// The packet's mark (`skb->mark`).
    Mark = 3,
    /// The number of the link it came by; `lo` is 1 in every namespace.
    InputInterface = 4,
    /// The name of that link, sixteen bytes filled up with zeros; all zeros where there is none.
    InputName = 6,
    /// IPv4 or IPv6, as `NFPROTO_*` in one byte.
    NetworkProtocol = 15,
    /// Transport protocol, one byte.
    Protocol = 16,
}

/// `NFT_CT_*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// Bits: 2 established, 4 related, 8 new.
    State = 0,
    /// `IPS_*`
    Status = 2,
    /// Destination port as the connection's first packet had it.
    OriginalDestinationPort = 12,
    /// Destination as the connection's first packet had it.
    OriginalDestination4 = 20,
    /// The same for IPv6.
    OriginalDestination6 = 22,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP port unreachable, in an IPv4 table.
    Icmp4,
    /// The same in an IPv6 table.
    Icmp6,
    /// TCP RST.
    TcpReset,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload(Register, Base, u32, u32),
    /// Loads what the kernel knows of the packet.
    Meta(Register, Meta),
    /// Sets what the kernel knows of the packet; its mark or its priority.
    Set(Meta, Register),
    /// Loads what the kernel knows of the connection.
    Conntrack(Register, Conntrack),
    /// Loads the kind of address the destination is for this machine (`RTN_*`).
    DestinationType(Register),
    /// The same of the source.
    SourceType(Register),
    /// Loads a random number in `offset .. offset + modulus`.
    Random {
        /// Receives the number.
        to: Register,
        /// Count of numbers.
        modulus: u32,
        /// Smallest number.
        offset: u32,
    },
    /// Ands a register with bytes.
    Mask(Register, Vec<u8>),
    /// Sets the bits of the last number in a register's four bytes.
    SetBits(Register, u32),
    /// Turns them over.
    FlipBits(Register, u32),
    /// Compares a register with bytes.
    Compare(Register, Is, Vec<u8>),
    /// Is the key in the set?
    Member(Cow<'static, str>, Register, Is),
    /// Loads what the key leads to; does not match without.
    Lookup(Cow<'static, str>, Register, Register),
    /// Does what the key leads to; goes on without.
    VerdictLookup(Cow<'static, str>, Register),
    /// Writes or renews an element with a value.
    Remember {
        /// Name of the map.
        map: Cow<'static, str>,
        /// Where its key is.
        key: Register,
        /// Where its value is.
        value: Register,
        /// Milliseconds it stays.
        timeout: u64,
    },
    /// Takes an element with a value away, which renewing leaves as it is.
    Forget {
        /// Name of the map.
        map: Cow<'static, str>,
        /// Where its key is.
        key: Register,
        /// Any value: maps ask for one.
        value: Register,
    },
    /// Sends the connection to an address and port in registers.
    Dnat {
        /// The address is IPv6.
        ipv6: bool,
        /// Where the address is.
        address: Register,
        /// Where the port is.
        port: Register,
    },
    /// Gives the connection this machine's address.
    Masquerade,
    /// Gives the connection this machine's address and a random port.
    MasqueradeFullyRandom,
    /// Drops the packet and tells its sender.
    Reject(Reject),
    /// Ends the rule with a verdict.
    Verdict(Verdict),
}

const FULLY_RANDOM: u32 = 0x10;

impl Expression {
    /// As an entry of a rule's list.
    pub(crate) fn write(&self, writer: &mut Writer) {
        let name = match self {
            Self::Payload(..) => "payload",
            Self::Meta(..) | Self::Set(..) => "meta",
            Self::Conntrack(..) => "ct",
            Self::DestinationType(..) | Self::SourceType(..) => "fib",
            Self::Random { .. } => "numgen",
            Self::Mask(..) | Self::SetBits(..) | Self::FlipBits(..) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Member(..) | Self::Lookup(..) | Self::VerdictLookup(..) => "lookup",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::Dnat { .. } => "nat",
            Self::Masquerade | Self::MasqueradeFullyRandom => "masq",
            Self::Reject(..) => "reject",
            Self::Verdict(..) => "immediate",
        };
        writer.nested(1, |w| {
            w.text(1, name);
            w.nested(2, |w| self.content(w));
        });
    }

    fn content(&self, w: &mut Writer) {
        match self {
            Self::Payload(to, base, offset, size) => {
                w.u32(1, to.number());
                w.u32(2, if *base == Base::Network { 1 } else { 2 });
                w.u32(3, *offset);
                w.u32(4, *size);
            }
            Self::Meta(to, key) => {
                w.u32(1, to.number());
                w.u32(2, *key as u32);
            }
            Self::Set(key, from) => {
                w.u32(2, *key as u32);
                w.u32(3, from.number());
            }
            Self::Conntrack(to, key) => {
                w.u32(1, to.number());
                w.u32(2, *key as u32);
                if !matches!(key, Conntrack::State | Conntrack::Status) {
                    // direction original
                    w.raw(3, &[0]);
                }
            }
            Self::DestinationType(to) => {
                w.u32(1, to.number());
                w.u32(2, 3);
                w.u32(3, 2);
            }
            Self::SourceType(to) => {
                w.u32(1, to.number());
                w.u32(2, 3);
                w.u32(3, 1);
            }
            Self::Random { to, modulus, offset } => {
                w.u32(1, to.number());
                w.u32(2, *modulus);
                w.u32(3, 1);
                w.u32(4, *offset);
            }
            Self::Mask(register, mask) => bitwise(w, *register, mask, &vec![0; mask.len()]),
            Self::SetBits(register, bits) => {
                bitwise(w, *register, &(!bits).to_ne_bytes(), &bits.to_ne_bytes());
            }
            Self::FlipBits(register, bits) => {
                bitwise(w, *register, &u32::MAX.to_ne_bytes(), &bits.to_ne_bytes());
            }
            Self::Compare(from, is, bytes) => {
                w.u32(1, from.number());
                w.u32(2, if *is == Is::Equal { 0 } else { 1 });
                w.nested(3, |w| w.raw(1, bytes));
            }
            Self::Member(set, key, is) => {
                w.text(1, set);
                w.u32(2, key.number());
                if *is == Is::Different {
                    w.u32(5, 1);
                }
            }
            Self::Lookup(map, key, to) => {
                w.text(1, map);
                w.u32(2, key.number());
                w.u32(3, to.number());
            }
            Self::VerdictLookup(map, key) => {
                w.text(1, map);
                w.u32(2, key.number());
                // NFT_REG_VERDICT
                w.u32(3, 0);
            }
            Self::Remember { map, key, value, timeout } => {
                w.text(1, map);
                // update
                w.u32(3, 1);
                w.u32(4, key.number());
                w.u32(5, value.number());
                w.u64(6, *timeout);
            }
            Self::Forget { map, key, value } => {
                w.text(1, map);
                // delete
                w.u32(3, 2);
                w.u32(4, key.number());
                w.u32(5, value.number());
            }
            Self::Dnat { ipv6, address, port } => {
                w.u32(1, 1);
                w.u32(2, if *ipv6 { 10 } else { 2 });
                w.u32(3, address.number());
                w.u32(5, port.number());
            }
            Self::Masquerade => {}
            Self::MasqueradeFullyRandom => w.u32(1, FULLY_RANDOM),
            Self::Reject(how) => {
                let (kind, code) = match how {
                    Reject::Icmp4 => (0, 3),
                    Reject::Icmp6 => (0, 4),
                    Reject::TcpReset => (1, 0),
                };
                w.u32(1, kind);
                w.raw(2, &[code]);
            }
            Self::Verdict(verdict) => {
                w.u32(1, 0);
                w.nested(2, |w| verdict.write(w));
            }
        }
    }
}

/// A register anded with one number and xored with another.
fn bitwise(w: &mut Writer, register: Register, and: &[u8], xor: &[u8]) {
    w.u32(1, register.number());
    w.u32(2, register.number());
    w.u32(3, u32::try_from(and.len()).unwrap_or(u32::MAX));
    w.nested(4, |w| w.raw(1, and));
    w.nested(5, |w| w.raw(1, xor));
}
