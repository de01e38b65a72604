//! The tables `windlass` as a transaction: sets, chains and rules once, then elements. Pure. [`text`](crate::text) says the same in
//! nft's language.

use crate::element::{Balancer, Difference, Element, Key, Set, Value};
use crate::model::Front;
use crate::numbers::GROUPS;
use crate::shape::{Pods, Shape};
use ipnet::IpNet;
use netlink::nft::expression::{Base, Conntrack, Expression as E, Is, Meta, Register, Reject};
use netlink::nft::{self, Batch, Bytes, Chain, Family, Field, Hook, Table, Verdict};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The name of our tables.
pub(crate) const TABLE: &str = "windlass";
/// Our tables, one for IPv4 and one for IPv6.
pub const TABLES: &[Table] =
    &[Table { family: Family::Ip, name: TABLE }, Table { family: Family::Ip6, name: TABLE }];
/// How many clients are remembered; the oldest time out.
pub(crate) const STICKY_CLIENTS: u32 = 262_144;
/// The map of sticky clients: a port's number and an address to an endpoint's number.
pub(crate) const CLIENTS: &str = "clients";
/// The maps of fronts to the numbers of their services' ports, by address and by node port.
pub(crate) const AFFINITY: &[&str] = &["affinity", "port_affinity"];

/// The table of a family.
#[must_use]
pub(crate) fn table(ipv6: bool) -> Table {
    TABLES[usize::from(ipv6)]
}

/// The one bit of a packet's mark that is ours, from translation until its source is rewritten: upstream's `masqueradeBit`.
pub(crate) const MASQUERADE_MARK: u32 = 1 << 14;
/// `IPS_DST_NAT`
const TRANSLATED: u32 = 0x20;
/// The bit of the state "new".
const NEW: u32 = 8;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
const TCP: u8 = 6;

/// Words that differ between the two families.
struct Layout {
    ipv6: bool,
    address: Field,
    /// Where an IP header has them.
    source: u32,
    destination: u32,
    size: u32,
}

impl Layout {
    fn of(ipv6: bool) -> Self {
        if ipv6 {
            Self { ipv6, address: Field::Ipv6, source: 8, destination: 24, size: 16 }
        } else {
            Self { ipv6, address: Field::Ipv4, source: 12, destination: 16, size: 4 }
        }
    }

    /// Registers an address takes.
    fn words(&self) -> u8 {
        if self.ipv6 { 4 } else { 1 }
    }

    fn load_destination(&self, to: u8) -> E {
        E::Payload(Register(to), Base::Network, self.destination, self.size)
    }

    fn load_source(&self, to: u8) -> E {
        E::Payload(Register(to), Base::Network, self.source, self.size)
    }

    /// Loads a front into register 0 and up; gives the first register after it.
    fn load_front(&self, node_port: bool) -> (Vec<E>, u8) {
        let mut out = Vec::new();
        let mut next = 0;
        if !node_port {
            out.push(self.load_destination(0));
            next = self.words();
        }
        out.push(E::Meta(Register(next), Meta::Protocol));
        out.push(E::Payload(Register(next + 1), Base::Transport, 2, 2));
        (out, next + 2)
    }

    fn is_local(load: E) -> [E; 2] {
        [load, E::Compare(FIRST, Is::Equal, LOCAL.to_ne_bytes().to_vec())]
    }

    /// Whether a packet is, or is not, one of this node's pods.
    fn sent_by_pod(&self, shape: &Shape, is: Is) -> [E; 2] {
        match &shape.pods {
            Pods::Ranges(_) => [self.load_source(0), E::Member("cluster_cidrs".into(), FIRST, is)],
            Pods::Interface(name) => by_link(whole_name(name), is),
            Pods::InterfacePrefix(prefix) => by_link(prefix.as_bytes().to_vec(), is),
        }
    }

    /// Whose connections to a cluster IP get the node's address as their source; `None`: nobody's, since nobody knows pods of this family.
    fn strangers(&self, shape: &Shape) -> Option<Vec<E>> {
        if shape.masquerade_all {
            return Some(Vec::new());
        }
        shape.knows_pods(self.ipv6).then(|| self.sent_by_pod(shape, Is::Different).to_vec())
    }

    /// The destination is an address of the node's that node ports are on, loopback ones aside.
    fn has_node_ports(&self, shape: &Shape) -> Vec<E> {
        let mut rule = Self::is_local(E::DestinationType(FIRST)).to_vec();
        if shape.node_ports(self.ipv6).is_some() {
            rule.push(self.load_destination(0));
            rule.push(E::Member(NODE_PORT_ADDRESSES.into(), FIRST, Is::Equal));
        }
        rule
    }

    fn not_loopback(&self) -> [E; 2] {
        if self.ipv6 {
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
            [self.load_destination(0), E::Compare(FIRST, Is::Different, loopback)]
        } else {
            // 127.0.0.0/8 is one byte
            let byte = E::Payload(FIRST, Base::Network, self.destination, 1);
            [byte, E::Compare(FIRST, Is::Different, vec![127])]
        }
    }
}

const FIRST: Register = Register(0);

/// The ranges node ports are on, where they are not on each address.
pub(crate) const NODE_PORT_ADDRESSES: &str = "node_port_addresses";
/// Bytes of a link's name, `IFNAMSIZ`.
const LINK_NAME: usize = 16;

fn by_link(name: Vec<u8>, is: Is) -> [E; 2] {
    [E::Meta(FIRST, Meta::InputName), E::Compare(FIRST, is, name)]
}

/// A name with all that follows it, so that no longer one is meant.
fn whole_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(LINK_NAME, 0);
    bytes
}

fn jump(chain: &'static str) -> E {
    E::Verdict(Verdict::Jump(chain.into()))
}

fn bits(load: E, mask: u32, is: Is, value: u32) -> [E; 3] {
    [load, E::Mask(FIRST, mask.to_ne_bytes().to_vec()), E::Compare(FIRST, is, value.to_ne_bytes().to_vec())]
}

/// Replaces both tables: empty maps and the rules that read them. A connection to a cluster IP from elsewhere than a pod gets the
/// node's address as its source, since only pods have a way back by themselves.
pub fn tables(batch: &mut Batch, shape: &Shape) {
    for ipv6 in [false, true] {
        batch.replace_table(table(ipv6));
        sets(batch, ipv6);
        let ranges = shape.pod_ranges().iter().copied();
        batch.add_elements(table(ipv6), "cluster_cidrs", &nft::interval::intervals(ranges, ipv6));
        if let Some(ranges) = shape.node_ports(ipv6) {
            let set = nft::Set::new(NODE_PORT_ADDRESSES, &[Layout::of(ipv6).address]).intervals();
            batch.add_set(table(ipv6), &set);
            batch.add_elements(table(ipv6), NODE_PORT_ADDRESSES, &nft::interval::intervals(ranges, ipv6));
        }
        chains(batch, ipv6);
        rules(batch, ipv6, shape);
    }
}

/// Says where cluster IPs may be: what goes to one that no service has goes nowhere.
pub fn service_cidrs(batch: &mut Batch, cidrs: &[IpNet]) {
    for ipv6 in [false, true] {
        batch.flush_set(table(ipv6), "service_cidrs");
        let ranges = nft::interval::intervals(cidrs.iter().copied(), ipv6);
        batch.add_elements(table(ipv6), "service_cidrs", &ranges);
    }
}

fn sets(batch: &mut Batch, ipv6: bool) {
    use netlink::nft::Set;
    let table = table(ipv6);
    let a = Layout::of(ipv6).address;
    let (front, port) = ([a, Field::Protocol, Field::Port], [Field::Protocol, Field::Port]);
    let with = |key: &[Field], more: Field| key.iter().copied().chain([more]).collect::<Vec<_>>();
    let endpoint = [a, Field::Port];
    let number = [Field::Priority];
    for set in [
        Set::new("cluster_cidrs", &[a]).intervals(),
        Set::new("service_cidrs", &[a]).intervals(),
        Set::new("cluster_ips", &[a]),
        Set::new("hairpin", &[a, a]),
        Set::new("services", &front).to_verdicts(),
        Set::new("node_ports", &port).to_verdicts(),
        Set::new("inside", &front).to_verdicts(),
        Set::new("inside_ports", &port).to_verdicts(),
        Set::new("endpoints", &with(&front, Field::Priority)).to(&endpoint),
        Set::new("port_endpoints", &with(&port, Field::Priority)).to(&endpoint),
        Set::new("sticky", &with(&front, Field::Priority)).to(&number),
        Set::new("port_sticky", &with(&port, Field::Priority)).to(&number),
        Set::new(AFFINITY[0], &front).to(&number),
        Set::new(AFFINITY[1], &port).to(&number),
        Set::new(CLIENTS, &[Field::Priority, a]).to(&number).dynamic(STICKY_CLIENTS),
        Set::new("closed", &front).to_verdicts(),
        Set::new("closed_ports", &port).to_verdicts(),
        Set::new("guarded", &front),
        Set::new("allowed", &with(&front, a)).ranges(),
    ] {
        batch.add_set(table, &set);
    }
}

fn chains(batch: &mut Batch, ipv6: bool) {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    for (name, hook) in [
        ("refuse", None),
        ("services", None),
        ("nat_prerouting", hook("nat", Hook::PREROUTING, Hook::DSTNAT)),
        ("nat_output", hook("nat", Hook::OUTPUT, Hook::DSTNAT)),
        ("nat_postrouting", hook("nat", Hook::POSTROUTING, Hook::SRCNAT)),
        ("closed_services", None),
        ("unallocated", None),
        ("guard", None),
        ("guard_prerouting", hook("filter", Hook::PREROUTING, Hook::DSTNAT - 10)),
        ("guard_output", hook("filter", Hook::OUTPUT, Hook::DSTNAT - 10)),
        ("filter_input", hook("filter", Hook::INPUT, -1)),
        ("filter_forward", hook("filter", Hook::FORWARD, -1)),
        ("filter_output", hook("filter", Hook::OUTPUT, -1)),
    ] {
        batch.add_chain(table(ipv6), &Chain { name: name.into(), hook });
    }
}

fn rules(batch: &mut Batch, ipv6: bool, shape: &Shape) {
    let layout = Layout::of(ipv6);
    let mut add = |chain: &str, rule: Vec<E>| batch.add_rule(table(ipv6), chain, &rule);
    add(
        "refuse",
        vec![
            E::Meta(FIRST, Meta::Protocol),
            E::Compare(FIRST, Is::Equal, vec![TCP]),
            E::Reject(Reject::TcpReset),
        ],
    );
    add("refuse", vec![E::Reject(if ipv6 { Reject::Icmp6 } else { Reject::Icmp4 })]);
    let by = |node_port: bool, map: &'static str| {
        let (mut rule, _) = layout.load_front(node_port);
        rule.push(E::VerdictLookup(map.into(), FIRST));
        rule
    };
    let local = layout.has_node_ports(shape);
    let inside = [layout.sent_by_pod(shape, Is::Equal), Layout::is_local(E::SourceType(FIRST))];
    // told here and not after routing, where nobody knows by which link a packet came
    if let Some(from) = layout.strangers(shape) {
        let to_cluster_ip = [layout.load_destination(0), E::Member("cluster_ips".into(), FIRST, Is::Equal)];
        add("services", [&from[..], &to_cluster_ip, &mark()].concat());
    }
    for from in &inside {
        add("services", [&from[..], &by(false, "inside")].concat());
    }
    add("services", by(false, "services"));
    let to_node = [&local[..], &layout.not_loopback()].concat();
    for from in &inside {
        add("services", [&from[..], &to_node, &by(true, "inside_ports")].concat());
    }
    add("services", [&to_node[..], &by(true, "node_ports")].concat());
    add("nat_prerouting", vec![jump("services")]);
    add("nat_output", vec![jump("services")]);
    let status = E::Conntrack(FIRST, Conntrack::Status);
    let untranslated = bits(status, TRANSLATED, Is::Different, TRANSLATED);
    add("nat_postrouting", [&untranslated[..], &[E::Verdict(Verdict::Return)]].concat());
    let marked = bits(E::Meta(FIRST, Meta::Mark), MASQUERADE_MARK, Is::Different, 0);
    let unmark = E::FlipBits(FIRST, MASQUERADE_MARK);
    let unmark = [E::Meta(FIRST, Meta::Mark), unmark, E::Set(Meta::Mark, FIRST), E::MasqueradeFullyRandom];
    add("nat_postrouting", [&marked[..], &unmark].concat());
    add(
        "nat_postrouting",
        vec![
            layout.load_source(0),
            layout.load_destination(layout.words()),
            E::Member("hairpin".into(), FIRST, Is::Equal),
            E::MasqueradeFullyRandom,
        ],
    );
    add("closed_services", by(false, "closed"));
    add(
        "closed_services",
        vec![
            layout.load_destination(0),
            E::Member("cluster_ips".into(), FIRST, Is::Equal),
            E::Verdict(Verdict::Goto("refuse".into())),
        ],
    );
    let new = bits(E::Conntrack(FIRST, Conntrack::State), NEW, Is::Different, 0);
    for chain in ["filter_input", "filter_forward", "filter_output"] {
        add(chain, [&new[..], &[jump("closed_services")]].concat());
    }
    // an address of this node is somebody's, whatever range it is in
    add(
        "unallocated",
        vec![
            layout.load_destination(0),
            E::Member("service_cidrs".into(), FIRST, Is::Equal),
            E::DestinationType(FIRST),
            E::Compare(FIRST, Is::Different, LOCAL.to_ne_bytes().to_vec()),
            E::Verdict(Verdict::Drop),
        ],
    );
    for chain in ["filter_forward", "filter_output"] {
        add(chain, [&new[..], &[jump("unallocated")]].concat());
    }
    let (mut strangers, next) = layout.load_front(false);
    strangers.push(E::Member("guarded".into(), FIRST, Is::Equal));
    strangers.extend(layout.load_front(false).0);
    strangers.push(layout.load_source(next));
    strangers.push(E::Member("allowed".into(), FIRST, Is::Different));
    strangers.push(E::Verdict(Verdict::Drop));
    add("guard", strangers);
    for chain in ["guard_prerouting", "guard_output"] {
        add(chain, [&new[..], &[jump("guard")]].concat());
    }
    // node ports are nothing to the programs on loopback, and nothing to other machines' ports
    add("filter_input", [&new[..], &to_node, &by(true, "closed_ports")].concat());
}

/// The chains a difference needs that are not there yet; makes them in both tables and remembers them in `known`.
pub fn balancers(batch: &mut Batch, difference: &Difference, known: &mut BTreeSet<Balancer>) {
    for element in &difference.add {
        if let Value::Balance(balancer) = element.value
            && known.insert(balancer)
        {
            balancer_chains(batch, false, balancer);
            balancer_chains(batch, true, balancer);
        }
    }
}

fn balancer_chains(batch: &mut Batch, ipv6: bool, balancer: Balancer) {
    let layout = Layout::of(ipv6);
    let (endpoints, sticky, affinity): (Cow<'static, str>, Cow<'static, str>, Cow<'static, str>) =
        if balancer.node_port {
            ("port_endpoints".into(), "port_sticky".into(), AFFINITY[1].into())
        } else {
            ("endpoints".into(), "sticky".into(), AFFINITY[0].into())
        };
    let (front, next) = layout.load_front(balancer.node_port);
    let by_number = |map: Cow<'static, str>| {
        [&front[..], &[E::Meta(Register(next), Meta::Priority), E::Lookup(map, FIRST, FIRST)]].concat()
    };
    let port = Register(layout.words());
    let dnat = [&by_number(endpoints)[..], &[E::Dnat { ipv6, address: FIRST, port }]].concat();
    let draw = vec![
        E::Random {
            to: FIRST,
            modulus: u32::try_from(balancer.slots).unwrap_or(u32::MAX),
            offset: balancer.base(),
        },
        E::Set(Meta::Priority, FIRST),
    ];
    let name = balancer.to_string();
    let mut rules = marking(balancer);
    let Some(seconds) = balancer.sticky else {
        rules.extend([draw, dnat]);
        return chain(batch, ipv6, &name, &rules);
    };
    let (priority, set_priority) = (E::Meta(FIRST, Meta::Priority), E::Set(Meta::Priority, FIRST));
    let value = Register(1 + layout.words());
    let timeout = u64::from(seconds) * 1000;
    let client = [
        priority.clone(),
        E::Mask(FIRST, GROUPS.mask.to_ne_bytes().to_vec()),
        layout.load_source(1),
        E::Meta(value, Meta::Priority),
    ];
    let with = |done: E| [&client[..], &[done]].concat();
    let remember = with(E::Remember { map: CLIENTS.into(), key: FIRST, value, timeout });
    let forget = with(E::Forget { map: CLIENTS.into(), key: FIRST, value });
    let (known, fresh) = (format!("{name}-known"), format!("{name}-fresh"));
    let goto = |chain: &str| E::Verdict(Verdict::Goto(chain.to_owned().into()));
    let mut to_endpoint = Vec::new();
    if balancer.inside {
        to_endpoint.push(vec![priority.clone(), E::SetBits(FIRST, GROUPS.inside), set_priority.clone()]);
    }
    to_endpoint.push(dnat);
    let numbered = [&by_number(sticky)[..], std::slice::from_ref(&set_priority)].concat();
    chain(batch, ipv6, &fresh, &[&[draw, numbered, remember.clone()][..], &to_endpoint].concat());
    // a client whose endpoint is gone, or not behind this front, finds none for its number and goes on to a new draw, which is kept
    // only if the old one is forgotten: the kernel renews an element's time and not its value
    chain(batch, ipv6, &known, &[&[remember][..], &to_endpoint, &[forget, vec![goto(&fresh)]]].concat());
    let whose = [&front[..], &[E::Lookup(affinity, FIRST, FIRST), set_priority.clone()]].concat();
    let lookup = E::Lookup(CLIENTS.into(), FIRST, FIRST);
    let recall = vec![priority, layout.load_source(1), lookup, set_priority, goto(&known)];
    rules.extend([whose, recall, vec![goto(&fresh)]]);
    chain(batch, ipv6, &name, &rules);
}

/// Marks a connection whose source is to be rewritten.
fn mark() -> [E; 3] {
    [E::Meta(FIRST, Meta::Mark), E::SetBits(FIRST, MASQUERADE_MARK), E::Set(Meta::Mark, FIRST)]
}

/// What marks connections whose source is to be rewritten once they are routed.
fn marking(balancer: Balancer) -> Vec<Vec<E>> {
    let mut rules = Vec::new();
    if balancer.masquerade {
        rules.push(mark().to_vec());
    }
    if balancer.inside {
        // the node's own source may be the front's address
        rules.push([&Layout::is_local(E::SourceType(FIRST))[..], &mark()].concat());
    }
    rules
}

fn chain(batch: &mut Batch, ipv6: bool, name: &str, rules: &[Vec<E>]) {
    let table = table(ipv6);
    batch.add_chain(table, &Chain { name: name.to_owned().into(), hook: None });
    batch.flush_chain(table, name);
    for rule in rules {
        batch.add_rule(table, name, rule);
    }
}

/// Appends the deletions, then the additions, sorted by set.
pub fn elements(batch: &mut Batch, difference: &Difference) {
    for (list, add) in [(&difference.delete, false), (&difference.add, true)] {
        let mut sorted: Vec<&Element> = list.iter().collect();
        sorted.sort_by_key(|e| (e.ipv6, e.set));
        for run in sorted.chunk_by(|a, b| (a.ipv6, a.set) == (b.ipv6, b.set)) {
            let (table, set) = (table(run[0].ipv6), run[0].set.name());
            let run: Vec<nft::Element> = run.iter().map(|e| encode(e, add)).collect();
            if add {
                batch.add_elements(table, set, &run);
            } else {
                batch.delete_elements(table, set, &run);
            }
        }
    }
}

fn encode(element: &Element, with_value: bool) -> nft::Element {
    let key = match element.key {
        Key::Address(ip) => Bytes::default().address(ip),
        Key::Pair(ip) => Bytes::default().address(ip).address(ip),
        Key::Front(front) => front_bytes(front),
        Key::Slot(front, slot) => front_bytes(front).mark(slot),
        Key::Source(front, range) => front_bytes(front).address(range.network()),
    };
    let end = match element.key {
        Key::Source(front, range) => Some(front_bytes(front).address(range.broadcast())),
        _ => None,
    };
    let verdict = |verdict| Some(nft::Value::Verdict(verdict));
    let value = match &element.value {
        _ if !with_value => None,
        Value::Member => None,
        Value::Balance(balancer) => verdict(Verdict::Goto(balancer.to_string().into())),
        Value::Refuse => verdict(Verdict::Goto("refuse".into())),
        Value::Drop => verdict(Verdict::Drop),
        Value::Endpoint(endpoint) => {
            Some(nft::Value::Bytes(Bytes::default().address(endpoint.address).port(endpoint.port)))
        }
        Value::Number(number) => Some(nft::Value::Bytes(Bytes::default().mark(*number))),
    };
    nft::Element { value, end, ..nft::Element::member(key) }
}

/// A front as a key, or as the beginning of one.
pub(crate) fn front_bytes(front: Front) -> Bytes {
    let mut key = Bytes::default();
    if let Front::Address(ip, ..) = front {
        key = key.address(ip);
    }
    let (protocol, port) = front.port();
    key.protocol(protocol.number()).port(port)
}

/// Where a set's name is needed.
impl Set {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster_ips",
            Self::Hairpin => "hairpin",
            Self::Services => "services",
            Self::NodePorts => "node_ports",
            Self::Inside => "inside",
            Self::InsidePorts => "inside_ports",
            Self::Endpoints => "endpoints",
            Self::PortEndpoints => "port_endpoints",
            Self::Sticky => "sticky",
            Self::PortSticky => "port_sticky",
            Self::Affinity => AFFINITY[0],
            Self::PortAffinity => AFFINITY[1],
            Self::Closed => "closed",
            Self::ClosedPorts => "closed_ports",
            Self::Guarded => "guarded",
            Self::Allowed => "allowed",
        }
    }
}
