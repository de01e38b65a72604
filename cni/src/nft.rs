//! nftables over raw netlink: just the messages that `ruleset` needs, written and sent as one transaction.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`; big-endian as nftables wants them, save for register contents.

mod expression;

use netlink_sys::protocols::NETLINK_NETFILTER;

pub(crate) use self::expression::{Expression, register};
use crate::netlink::{NetlinkError, Reply, Request, Socket, attributes, find, flags};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const INET: u8 = 1;
const GENERIC_HEADER: usize = 4;
const LIST_ELEMENT: u16 = 1;
const NESTED: u16 = 0x8000;

/// Attributes being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Nothing here comes near 64 KiB.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }

    /// What was written.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn list(self, kind: u16, values: impl IntoIterator<Item = Self>) -> Self {
        let list = values.into_iter().fold(Self::default(), |list, value| list.nested(LIST_ELEMENT, &value));
        self.nested(kind, &list)
    }
}

/// Where a base chain is hooked in, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// What a map's elements lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leads {
    Nowhere,
    /// To a value of that nft type and length.
    To {
        datatype: u32,
        length: u32,
    },
    ToVerdict,
}

/// A set or map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// The nft type and the length in bytes of each part of the key.
    pub(crate) key: &'static [(u32, u32)],
    /// Keys are ranges.
    pub(crate) ranges: bool,
    pub(crate) leads: Leads,
}

/// A part of a key or value takes whole registers of four bytes.
fn padded(length: u32) -> u32 {
    length.next_multiple_of(4)
}

/// nft's number for a concatenation of types: six bits each.
pub(crate) const fn concatenated(parts: &[(u32, u32)]) -> u32 {
    let (mut number, mut index) = (0, 0);
    while index < parts.len() {
        number = number << 6 | parts[index].0;
        index += 1;
    }
    number
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// The last key of the range, for sets of ranges.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) value: Option<Target>,
    /// Whose it is; what nft shows as the element's comment.
    pub(crate) comment: String,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Value(Vec<u8>),
    Goto(String),
}

impl Target {
    fn data(&self) -> Attributes {
        match self {
            Self::Value(value) => Attributes::default().bytes(1, value),
            Self::Goto(chain) => Attributes::default()
                .nested(2, &Attributes::default().bytes(1, &expression::GOTO.to_be_bytes()).text(2, chain)),
        }
    }
}

impl Element {
    fn write(&self, with_value: bool) -> Attributes {
        let data = |value: &[u8]| Attributes::default().bytes(1, value);
        let mut element = Attributes::default().nested(1, &data(&self.key));
        if let Some(end) = &self.end {
            element = element.nested(10, &data(end));
        }
        if with_value {
            if let Some(value) = &self.value {
                element = element.nested(2, &value.data());
            }
            // libnftnl's type 0 is a comment: type, length, text with terminator.
            let text = &self.comment.as_bytes()[..self.comment.len().min(250)];
            let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
            let userdata: Vec<u8> = [0, length].into_iter().chain(text.iter().copied()).chain([0]).collect();
            element = element.bytes(6, &userdata);
        }
        element
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let data = |kind| find(body, kind).and_then(|data| find(data, 1)).map(<[u8]>::to_vec);
        let comment = find(body, 6).and_then(|userdata| match userdata {
            [0, length, text @ ..] => text.get(..usize::from(*length).checked_sub(1)?),
            _ => None,
        });
        Some(Self {
            key: data(1)?,
            end: data(10),
            value: data(2).map(Target::Value),
            comment: comment.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default(),
        })
    }
}

/// A transaction on one table, all of it or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    table: &'static str,
    requests: Vec<Request>,
}

impl Transaction {
    pub(crate) fn on(table: &'static str) -> Self {
        Self { table, requests: Vec::new() }
    }

    fn push(&mut self, kind: u16, extra: u16, attributes: &Attributes) {
        self.requests.push(Request::raw(kind, extra, with_header(attributes)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// `add table`
    pub(crate) fn table(&mut self) {
        let attributes = Attributes::default().text(1, self.table).number(2, 0);
        self.push(NEWTABLE, flags::CREATE, &attributes);
    }

    /// `add chain`
    pub(crate) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = Attributes::default().text(1, self.table).text(3, name);
        if let Some(hook) = hook {
            let place = Attributes::default().number(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
            attributes = attributes.nested(4, &place).text(7, hook.kind);
        }
        self.push(NEWCHAIN, flags::CREATE, &attributes);
    }

    /// `flush chain`
    pub(crate) fn flush(&mut self, chain: &str) {
        let attributes = Attributes::default().text(1, self.table).text(2, chain);
        self.push(DELRULE, 0, &attributes);
    }

    /// `add rule`
    pub(crate) fn rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Expression>) {
        let expressions = expressions
            .into_iter()
            .map(|Expression { name, data }| Attributes::default().text(1, name).nested(2, &data));
        let attributes = Attributes::default().text(1, self.table).text(2, chain).list(4, expressions);
        self.push(NEWRULE, flags::CREATE | flags::APPEND, &attributes);
    }

    /// `add set` or `add map`
    pub(crate) fn set(&mut self, set: &Set, id: u32) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const CONCAT: u32 = 0x80;
        const VERDICT: u32 = 0xffff_ff00;
        let length: u32 = set.key.iter().map(|(_, length)| padded(*length)).sum();
        let (map, leads) = match set.leads {
            Leads::Nowhere => (0, None),
            Leads::To { datatype, length } => (MAP, Some((datatype, length))),
            Leads::ToVerdict => (MAP, Some((VERDICT, 0))),
        };
        let ranges = if set.ranges { INTERVAL | CONCAT } else { 0 };
        let mut attributes = Attributes::default()
            .text(1, self.table)
            .text(2, set.name)
            .number(3, map | ranges)
            .number(4, concatenated(set.key))
            .number(5, length)
            .number(10, id);
        if let Some((datatype, length)) = leads {
            attributes = attributes.number(6, datatype).number(7, length);
        }
        if set.ranges {
            let fields = set.key.iter().map(|(_, length)| Attributes::default().number(1, *length));
            attributes = attributes.nested(9, &Attributes::default().list(2, fields));
        }
        self.push(NEWSET, flags::CREATE, &attributes);
    }

    /// `add element`
    pub(crate) fn add(&mut self, set: &str, element: &Element) {
        self.element(NEWSETELEM, flags::CREATE | flags::EXCL, set, element);
    }

    /// `delete element`
    pub(crate) fn delete(&mut self, set: &str, element: &Element) {
        self.element(DELSETELEM, 0, set, element);
    }

    fn element(&mut self, kind: u16, extra: u16, set: &str, element: &Element) {
        let attributes = Attributes::default()
            .text(1, self.table)
            .text(2, set)
            .list(3, [element.write(kind == NEWSETELEM)]);
        self.push(kind, extra, &attributes);
    }

    /// Commits.
    pub(crate) fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let count = self.requests.len();
        let begin = socket.number(u32::try_from(count + 2).unwrap_or(u32::MAX));
        let envelope = |kind| Request::raw(kind, 0, vec![0, 0, 0, 10]);
        let mut datagram = Vec::new();
        envelope(BATCH_BEGIN).write(&mut datagram, flags::REQUEST, begin);
        let mut sequence = begin;
        for request in &self.requests {
            sequence = sequence.wrapping_add(1);
            request.write(&mut datagram, flags::REQUEST | flags::ACK, sequence);
        }
        envelope(BATCH_END).write(&mut datagram, flags::REQUEST, sequence.wrapping_add(1));
        socket.exchange(&datagram, begin.wrapping_add(1), count, Some(begin)).map(drop)
    }
}

/// The elements of a set; `None` if there is no such set.
pub(crate) fn elements(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Option<Vec<Element>>, NetlinkError> {
    let attributes = Attributes::default().text(1, table).text(2, set);
    match socket.request(Request::raw(GETSETELEM, flags::DUMP, with_header(&attributes))) {
        Ok(replies) => Ok(Some(replies.iter().flat_map(parse_elements).collect())),
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_elements(reply: &Reply) -> Vec<Element> {
    let body = reply.body.get(GENERIC_HEADER..).unwrap_or_default();
    let list = find(body, 3).unwrap_or_default();
    attributes(list).filter_map(|(_, element)| Element::parse(element)).collect()
}

fn with_header(attributes: &Attributes) -> Vec<u8> {
    let mut body = vec![INET, 0, 0, 0];
    body.extend(&attributes.0);
    body
}

/// A socket to nftables in the calling thread's namespace.
pub(crate) fn open() -> Result<Socket, NetlinkError> {
    Socket::open(NETLINK_NETFILTER)
}
