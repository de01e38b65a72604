//! Tables, sets and chains as data, and their attributes. Pure.

use crate::attribute::Writer;
use std::borrow::Cow;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `inet`: both.
    Inet,
    /// `ip`
    Ip,
    /// `ip6`
    Ip6,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// As nft prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// A table by family and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Packets the table sees.
    pub family: Family,
    /// Unique within its family.
    pub name: &'static str,
}

/// One part of a key or value, with the number `nft` knows its type by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Four bytes.
    Ipv4,
    /// Sixteen bytes.
    Ipv6,
    /// `IPPROTO_*`, one byte.
    Protocol,
    /// Two bytes, big endian.
    Port,
    /// A packet's mark, four bytes.
    Mark,
    /// A packet's priority, four bytes.
    Priority,
    /// The type of an ICMPv6 message, one byte.
    Icmp6Type,
}

impl Field {
    fn datatype(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            // as a class of traffic, which is what nft calls a priority's type
            Self::Priority => 23,
            Self::Icmp6Type => 29,
        }
    }

    /// Bytes, without padding.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark | Self::Priority => 4,
            Self::Ipv6 => 16,
            Self::Protocol | Self::Icmp6Type => 1,
            Self::Port => 2,
        }
    }
}

/// The datatype and length of a concatenation; only a concatenation's fields are padded.
fn describe(fields: &[Field]) -> (u32, u32) {
    let datatype = fields.iter().fold(0, |all, field| all << 6 | field.datatype());
    let size = match fields {
        [one] => one.size(),
        many => many.iter().map(|field| field.size().next_multiple_of(4)).sum(),
    };
    (datatype, u32::try_from(size).unwrap_or(u32::MAX))
}

/// A set or map.
#[derive(Clone, Debug)]
pub struct Set {
    /// Unique within its table.
    pub name: Cow<'static, str>,
    /// What its keys are made of.
    pub key: Vec<Field>,
    /// For a map: what they lead to.
    pub map: Option<Vec<Field>>,
    /// A map to verdicts.
    pub verdicts: bool,
    /// Keys are ranges, given by where each begins and ends.
    pub interval: bool,
    /// Keys are concatenations of ranges.
    pub ranges: bool,
    /// For a set that rules write: how many elements at most; they time out.
    pub dynamic: Option<u32>,
}

const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
const CONCATENATION: u32 = 0x80;
/// `NFT_DATA_VERDICT`
const VERDICT_TYPE: u32 = 0xffff_ff00;

impl Set {
    /// A set of `key`s.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, key: &[Field]) -> Self {
        Self {
            name: name.into(),
            key: key.to_vec(),
            map: None,
            verdicts: false,
            interval: false,
            ranges: false,
            dynamic: None,
        }
    }

    /// A map to values.
    #[must_use]
    pub fn to(mut self, value: &[Field]) -> Self {
        self.map = Some(value.to_vec());
        self
    }

    /// A map to verdicts.
    #[must_use]
    pub fn to_verdicts(mut self) -> Self {
        self.verdicts = true;
        self
    }

    /// A set of ranges.
    #[must_use]
    pub fn intervals(mut self) -> Self {
        self.interval = true;
        self
    }

    /// A set of concatenations of ranges; its elements have an `end`.
    #[must_use]
    pub fn ranges(mut self) -> Self {
        self.ranges = true;
        self
    }

    /// A set that rules write, of at most `size` elements that time out.
    #[must_use]
    pub fn dynamic(mut self, size: u32) -> Self {
        self.dynamic = Some(size);
        self
    }

    pub(crate) fn write(&self, writer: &mut Writer, table: &str, id: u32) {
        let (key_type, key_size) = describe(&self.key);
        let mut flags = 0;
        if self.interval {
            flags |= INTERVAL;
        }
        if self.ranges {
            flags |= INTERVAL | CONCATENATION;
        }
        if self.map.is_some() || self.verdicts {
            flags |= MAP;
        }
        if self.dynamic.is_some() {
            flags |= TIMEOUT | EVAL;
        }
        writer.text(1, table);
        writer.text(2, &self.name);
        writer.u32(3, flags);
        writer.u32(4, key_type);
        writer.u32(5, key_size);
        if self.verdicts {
            writer.u32(6, VERDICT_TYPE);
            writer.u32(7, 0);
        } else if let Some(value) = &self.map {
            let (value_type, value_size) = describe(value);
            writer.u32(6, value_type);
            writer.u32(7, value_size);
        }
        if let Some(size) = self.dynamic {
            writer.nested(9, |w| w.u32(1, size));
        }
        if self.ranges {
            let length = |field: &Field| u32::try_from(field.size()).unwrap_or(u32::MAX);
            let fields = |w: &mut Writer| self.key.iter().for_each(|f| w.nested(1, |w| w.u32(1, length(f))));
            writer.nested(9, |w| w.nested(2, fields));
        }
        writer.u32(10, id);
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drops the packet; no later hook sees it.
    Drop,
    /// Accepted by this hook.
    Accept,
    /// The chain is left.
    Return,
    /// A chain is run, then the next rule.
    Jump(Cow<'static, str>),
    /// A chain is run in place of what follows.
    Goto(Cow<'static, str>),
}

impl Verdict {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        writer.nested(2, |w| {
            w.raw(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        });
    }
}

/// Where a chain hangs.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// `NF_INET_*`
    pub number: u32,
    /// Order among chains of the same hook; lower comes first.
    pub priority: i32,
}

impl Hook {
    /// `NF_INET_PRE_ROUTING`
    pub const PREROUTING: u32 = 0;
    /// `NF_INET_LOCAL_IN`
    pub const INPUT: u32 = 1;
    /// `NF_INET_FORWARD`
    pub const FORWARD: u32 = 2;
    /// `NF_INET_LOCAL_OUT`
    pub const OUTPUT: u32 = 3;
    /// `NF_INET_POST_ROUTING`
    pub const POSTROUTING: u32 = 4;
    /// Priority `dstnat`.
    pub const DSTNAT: i32 = -100;
    /// Priority `srcnat`.
    pub const SRCNAT: i32 = 100;
    /// Priority `filter`.
    pub const FILTER: i32 = 0;
}

/// A base chain (with a hook) or a chain to jump to.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Unique within its table.
    pub name: Cow<'static, str>,
    /// `None` for one that is only jumped to.
    pub hook: Option<Hook>,
}

impl Chain {
    pub(crate) fn write(&self, writer: &mut Writer, table: &str) {
        writer.text(1, table);
        writer.text(3, &self.name);
        if let Some(hook) = self.hook {
            writer.nested(4, |w| {
                w.u32(1, hook.number);
                w.raw(2, &hook.priority.to_be_bytes());
            });
            // policy accept
            writer.u32(5, 1);
            writer.text(7, hook.kind);
        }
    }
}
