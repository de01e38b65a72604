//! The expressions that rules are made of.

use super::Attributes;

pub(super) const GOTO: i32 = -4;
const JUMP: i32 = -3;
const RETURN: i32 = -5;
const DROP: i32 = 0;

/// One expression of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub(super) name: &'static str,
    pub(super) data: Attributes,
}

/// The number of the nth four-byte register.
pub(crate) const fn register(index: u32) -> u32 {
    8 + index
}

fn expression(name: &'static str, data: Attributes) -> Expression {
    Expression { name, data }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}

impl Expression {
    /// `meta nfproto` of that family, or the rule ends.
    pub(crate) fn is_family(v4: bool) -> [Self; 2] {
        [Self::meta(15, register(0)), Self::equals(register(0), &[if v4 { 2 } else { 10 }])]
    }

    /// `meta l4proto` into a register.
    pub(crate) fn protocol(into: u32) -> Self {
        Self::meta(16, into)
    }

    /// `iif != "lo"`, which has the number 1 in every namespace.
    pub(crate) fn is_from_elsewhere() -> [Self; 2] {
        [Self::meta(4, register(0)), Self::differs(register(0), &1u32.to_ne_bytes())]
    }

    fn meta(key: u32, into: u32) -> Self {
        expression("meta", Attributes::default().number(1, into).number(2, key))
    }

    /// `ip saddr` or `ip6 saddr` into registers.
    pub(crate) fn source(v4: bool, into: u32) -> Self {
        if v4 { Self::payload(1, 12, 4, into) } else { Self::payload(1, 8, 16, into) }
    }

    /// `ip daddr` or `ip6 daddr` into registers.
    pub(crate) fn destination(v4: bool, into: u32) -> Self {
        if v4 { Self::payload(1, 16, 4, into) } else { Self::payload(1, 24, 16, into) }
    }

    /// `th dport` into a register.
    pub(crate) fn destination_port(into: u32) -> Self {
        Self::payload(2, 2, 2, into)
    }

    fn payload(base: u32, offset: u32, length: u32, into: u32) -> Self {
        let data = Attributes::default().number(1, into).number(2, base).number(3, offset).number(4, length);
        expression("payload", data)
    }

    /// `ct original proto-dst` into a register.
    pub(crate) fn original_destination_port(into: u32) -> Self {
        let original = [0];
        expression("ct", Attributes::default().number(1, into).number(2, 12).bytes(3, &original))
    }

    /// `ct status dnat`
    pub(crate) fn is_dnatted() -> [Self; 3] {
        const DST_NAT: u32 = 1 << 5;
        let status = expression("ct", Attributes::default().number(1, register(0)).number(2, 2));
        [status, Self::mask(register(0), &DST_NAT.to_ne_bytes()), Self::differs(register(0), &[0; 4])]
    }

    /// `fib daddr type local`
    pub(crate) fn is_to_this_host() -> [Self; 2] {
        const LOCAL: u32 = 2;
        let fib = expression("fib", Attributes::default().number(1, register(0)).number(2, 3).number(3, 2));
        [fib, Self::equals(register(0), &LOCAL.to_ne_bytes())]
    }

    pub(crate) fn mask(at: u32, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let data = Attributes::default()
            .number(1, at)
            .number(2, at)
            .number(3, length)
            .nested(4, &value(mask))
            .nested(5, &value(&vec![0; mask.len()]));
        expression("bitwise", data)
    }

    pub(crate) fn equals(at: u32, bytes: &[u8]) -> Self {
        expression("cmp", Attributes::default().number(1, at).number(2, 0).nested(3, &value(bytes)))
    }

    fn differs(at: u32, bytes: &[u8]) -> Self {
        expression("cmp", Attributes::default().number(1, at).number(2, 1).nested(3, &value(bytes)))
    }

    /// `@set` holds what is in the registers from `at` on, or the rule ends.
    pub(crate) fn is_in(set: &str, at: u32) -> Self {
        expression("lookup", Attributes::default().text(1, set).number(2, at))
    }

    /// `map @set` of the registers from `at` on, into those from `into` on.
    pub(crate) fn map(set: &str, at: u32, into: u32) -> Self {
        expression("lookup", Attributes::default().text(1, set).number(2, at).number(3, into))
    }

    /// `vmap @set` of the registers from `at` on.
    pub(crate) fn verdict_map(set: &str, at: u32) -> Self {
        const VERDICT: u32 = 0;
        Self::map(set, at, VERDICT)
    }

    /// `dnat to` address and port in registers.
    pub(crate) fn dnat(v4: bool, address: u32, port: u32) -> Self {
        let data = Attributes::default()
            .number(1, 1)
            .number(2, if v4 { 2 } else { 10 })
            .number(3, address)
            .number(5, port);
        expression("nat", data)
    }

    /// `masquerade`
    pub(crate) fn masquerade() -> Self {
        expression("masq", Attributes::default())
    }

    /// `jump`
    pub(crate) fn jump(chain: &str) -> Self {
        Self::verdict(&Attributes::default().bytes(1, &JUMP.to_be_bytes()).text(2, chain))
    }

    /// `return`
    pub(crate) fn give_back() -> Self {
        Self::verdict(&Attributes::default().bytes(1, &RETURN.to_be_bytes()))
    }

    /// `drop`
    pub(crate) fn discard() -> Self {
        Self::verdict(&Attributes::default().bytes(1, &DROP.to_be_bytes()))
    }

    fn verdict(verdict: &Attributes) -> Self {
        let data = Attributes::default().nested(2, verdict);
        expression("immediate", Attributes::default().number(1, 0).nested(2, &data))
    }
}
