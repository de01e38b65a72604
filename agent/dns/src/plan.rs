//! Who is asked about which names: what a cluster's Corefile says of it (the ConfigMaps `coredns` and `coredns-custom`). Pure.
//!
//! Read are zones, and in them `forward`, `hosts` and `rewrite name`. What CoreDNS does by itself here is done anyway (`errors`, `kubernetes`,
//! `cache`, ...); of anything else a remark says that it does nothing.

use crate::corefile::{Directive, Section, Unreadable, directives, sections};
use crate::hosts::{Hosts, name};
use crate::rename::Rule;
use hickory_proto::rr::Name;
use std::net::{IpAddr, SocketAddr};

/// The port that is asked at, and that zones without one are served on.
const PORT: u16 = 53;
/// The file that stands for the node's own resolvers.
const NODE_FILE: &str = "/etc/resolv.conf";
/// What is done anyway, or is nothing to this server.
const DONE_ANYWAY: [&str; 16] = [
    "any",
    "autopath",
    "bufsize",
    "cache",
    "debug",
    "errors",
    "health",
    "kubernetes",
    "lameduck",
    "loadbalance",
    "log",
    "loop",
    "minimal",
    "prometheus",
    "ready",
    "reload",
];

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    At(SocketAddr),
    /// The node's own resolvers.
    Node,
}

/// Names that are asked of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) from: Name,
    pub(crate) except: Vec<Name>,
    pub(crate) to: Vec<Target>,
}

/// One zone of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) zone: Name,
    /// The cluster's own names are answered in it, too.
    pub(crate) kubernetes: bool,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) hosts: Vec<Hosts>,
    pub(crate) renames: Vec<Rule>,
}

/// Why a Corefile is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// CoreDNS refuses such a line, or what it stands for is not known here: nobody would be asked.
    #[error("{0}: cannot be followed")]
    Directive(String),
}

/// What a Corefile says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// At least one of them is the root's.
    pub(crate) blocks: Vec<Block>,
    /// What is not acted on.
    pub(crate) remarks: Vec<String>,
}

impl Default for Plan {
    /// Everything but the cluster's names is the node's resolvers'.
    fn default() -> Self {
        Self { blocks: vec![Block::root()], remarks: Vec::new() }
    }
}

impl Block {
    fn root() -> Self {
        let forward = Forward { from: Name::root(), except: Vec::new(), to: vec![Target::Node] };
        Self {
            zone: Name::root(),
            kubernetes: true,
            forwards: vec![forward],
            hosts: Vec::new(),
            renames: Vec::new(),
        }
    }
}

impl Plan {
    /// Reads a Corefile; `overrides` are more directives for its root section, `servers` more sections, as Azure and k3s have them in
    /// `coredns-custom`.
    ///
    /// # Errors
    /// Braces do not match, or somebody who is to be asked cannot be: the whole is not to be believed.
    pub(crate) fn read<'a>(
        corefile: Option<&str>,
        overrides: impl Iterator<Item = &'a str>,
        servers: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Unfit> {
        let mut all = sections(corefile.unwrap_or_default())?;
        let mut more = Vec::new();
        for text in overrides {
            more.extend(directives(text)?);
        }
        for text in servers {
            all.extend(sections(text)?);
        }
        let written = all.iter().filter(|section| !section.zones[0].starts_with('('));
        let mut written = written.flat_map(|section| &section.directives).chain(&more);
        if let Some(unfit) = written.find(|directive| !fits(&directive.words)) {
            return Err(Unfit::Directive(unfit.words.join(" ")));
        }
        let mut plan = Self { blocks: Vec::new(), remarks: Vec::new() };
        for section in all {
            plan.add(&section, &more);
        }
        if !plan.blocks.iter().any(|block| block.zone.is_root()) {
            let mut root = Block::root();
            for directive in &more {
                plan.directive(&mut root, directive);
            }
            plan.blocks.push(root);
        }
        Ok(plan)
    }

    /// Takes out servers at these addresses, which are this one's own: it would ask itself again and again.
    pub(crate) fn leave_out(&mut self, own: &[IpAddr]) {
        for forward in self.blocks.iter_mut().flat_map(|block| &mut block.forwards) {
            let count = forward.to.len();
            forward.to.retain(|target| !matches!(target, Target::At(at) if own.contains(&at.ip())));
            if forward.to.len() < count {
                self.remarks.push(format!("forward {}: this server does not ask itself", forward.from));
            }
        }
    }

    /// The block that serves a name: the one of the longest zone, the first of several.
    pub(crate) fn block(&self, name: &Name) -> Option<usize> {
        let fitting = self.blocks.iter().enumerate().rev().filter(|(_, block)| block.zone.zone_of(name));
        fitting.max_by_key(|(_, block)| block.zone.num_labels()).map(|(index, _)| index)
    }

    /// Who is asked about a name in a block: the rule of the longest name, the first of several.
    pub(crate) fn forward_of<'a>(block: &'a Block, name: &Name) -> Option<&'a Forward> {
        let meant = |forward: &&Forward| {
            forward.from.zone_of(name) && !forward.except.iter().any(|except| except.zone_of(name))
        };
        block.forwards.iter().rev().filter(meant).max_by_key(|forward| forward.from.num_labels())
    }

    fn add(&mut self, section: &Section, overrides: &[Directive]) {
        for text in &section.zones {
            let Some(zone) = self.zone(text) else { continue };
            let mut block = Block {
                kubernetes: false,
                zone: zone.clone(),
                forwards: Vec::new(),
                hosts: Vec::new(),
                renames: Vec::new(),
            };
            let more = overrides.iter().filter(|_| zone.is_root());
            for directive in section.directives.iter().chain(more) {
                self.directive(&mut block, directive);
            }
            self.blocks.push(block);
        }
    }

    fn directive(&mut self, block: &mut Block, directive: &Directive) {
        let Some((kind, arguments)) = directive.words.split_first() else { return };
        match kind.as_str() {
            "forward" => self.forward(block, arguments, &directive.body),
            "hosts" => {
                // the first word is a file whatever it looks like, the others are zones
                let zones = arguments.get(1..).unwrap_or_default();
                let zones = zones.iter().filter_map(|zone| name(zone)).collect();
                let (mut hosts, unread) = Hosts::read(zones, &directive.body);
                if let Some(file) = arguments.first() {
                    hosts.know_in_part();
                    self.remarks.push(format!("hosts {file}: a file of another place is not read"));
                }
                self.remarks.extend(unread.into_iter().map(|line| format!("hosts: {line}: not understood")));
                block.hosts.push(hosts);
            }
            "rewrite" => match rename(arguments, &directive.body) {
                Some(rule) => block.renames.push(rule),
                None => self.remarks.push(format!("{}: not served", directive.words.join(" "))),
            },
            // `coredns-custom` is read whether it is named or not
            "import" if arguments.first().is_some_and(|file| file.ends_with(".override")) => {}
            known => {
                block.kubernetes |= known == "kubernetes";
                if !DONE_ANYWAY.contains(&known) {
                    self.remarks.push(format!("{known}: not served"));
                }
            }
        }
    }

    fn forward(&mut self, block: &mut Block, arguments: &[String], options: &[Vec<String>]) {
        let Some((from, servers)) = arguments.split_first() else { return };
        let Some(from) = name(from) else {
            return self.remarks.push(format!("forward {from}: no name"));
        };
        let mut forward = Forward { from, except: Vec::new(), to: Vec::new() };
        for server in servers {
            match target(server) {
                Some(target) => forward.to.push(target),
                // It must not be asked in another way than was meant, such as without encryption.
                None => self.remarks.push(format!("forward to {server}: not served")),
            }
        }
        for option in options {
            match option.split_first() {
                Some((key, zones)) if key == "except" => {
                    forward.except.extend(zones.iter().filter_map(|zone| name(zone)));
                }
                Some((key, _)) if key == "force_tcp" || key.starts_with("tls") => {
                    self.remarks.push(format!("forward: {key}: not served"));
                }
                _ => {}
            }
        }
        block.forwards.push(forward);
    }

    /// The zone of a section's head, where it is served at the usual port.
    fn zone(&mut self, text: &str) -> Option<Name> {
        let text = text.trim_end_matches(',');
        let plain = text.strip_prefix("dns://").unwrap_or(text);
        let (zone, port) = match plain.rsplit_once(':') {
            Some((zone, port)) => (zone, port.parse::<u16>().ok()),
            None => (plain, Some(PORT)),
        };
        let found = if zone == "." || zone.is_empty() { Some(Name::root()) } else { name(zone) };
        let found = found.filter(|_| port == Some(PORT) && !zone.contains('/'));
        if found.is_none() {
            self.remarks.push(format!("section {text}: not served"));
        }
        found
    }
}

/// Whether a directive can be believed: CoreDNS refuses `forward` without a server, or to what is none; snippets are not known here.
fn fits(words: &[String]) -> bool {
    let server = |text: &String| {
        let spoken_otherwise = text.contains("://") && !text.starts_with("dns://");
        text.starts_with('/') || text.contains('%') || spoken_otherwise || target(text).is_some()
    };
    match words {
        [kind, file] if kind == "import" => file.contains(['/', '*']),
        [kind, _, servers @ ..] if kind == "forward" => !servers.is_empty() && servers.iter().all(server),
        [kind] => kind != "forward",
        _ => true,
    }
}

/// Whom a word of `forward` means.
fn target(text: &str) -> Option<Target> {
    if text.starts_with('/') {
        return (text == NODE_FILE).then_some(Target::Node);
    }
    let text = text.strip_prefix("dns://").unwrap_or(text);
    let address = |text: &str| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    text.parse().ok().or_else(|| address(text)).map(Target::At)
}

/// What `rewrite` says of names: in its words, or in a line of its braces.
fn rename(words: &[String], body: &[Vec<String>]) -> Option<Rule> {
    let words = match words.split_first() {
        // No rule is looked at after one that fits, which is what `stop` says.
        Some((first, rest)) if first == "stop" => rest,
        _ => words,
    };
    let words: &[String] = if words.is_empty() {
        body.iter().find(|line| line.first().is_some_and(|w| w == "name"))?
    } else {
        words
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (exact, from, to) = match words.as_slice() {
        ["name", "exact", from, to] | ["name", from, to] => (true, *from, *to),
        ["name", "suffix", from, to, ..] => (false, from.trim_start_matches('.'), to.trim_start_matches('.')),
        _ => return None,
    };
    Some(Rule { exact, from: name(from)?, to: name(to)? })
}

#[cfg(test)]
mod tests;
