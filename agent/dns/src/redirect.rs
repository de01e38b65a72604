//! Questions to port 53 of the cluster DNS addresses, led to the sockets that answer them: the tables `windlass-dns`.
//!
//! ```text
//! table ip windlass-dns {
//!   map servers      { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   chain prerouting { type nat hook prerouting priority -102; dnat ip to ip daddr . meta l4proto . th dport map @servers }
//!   chain output     { type nat hook output priority -102;     the same }
//! }
//! ```
//!
//! The sockets have another port than 53, so that a DNS server of the host's own, which listens on that port of every address, and we do not
//! keep each other from it. The addresses are this machine's own, and a host port of a pod is on all of these: this translation comes before
//! those of host ports (-101) and services (-100), and a connection is translated once.

use netlink::conntrack::{self, Flow, UDP};
use netlink::nft::expression::{Base, Expression as E, Meta, Register};
use netlink::nft::{self, Batch, Bytes, Chain, Element, Family, Field, Hook, Set, Table, Value};
use netlink::{Kernel, Protocol, Socket};
use std::net::SocketAddr;

const NAME: &str = "windlass-dns";
const SERVERS: &str = "servers";
const TABLES: [&[Table]; 2] =
    [&[Table { family: Family::Ip, name: NAME }], &[Table { family: Family::Ip6, name: NAME }]];
const PRIORITY: i32 = Hook::DSTNAT - 2;
/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// Where questions go, and where they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) asked: SocketAddr,
    /// Both transports of it; of the same family.
    pub(crate) answers: SocketAddr,
    /// Answered over datagrams, too.
    pub(crate) datagrams: bool,
}

/// The redirection as it is to be in the kernel.
pub(crate) struct Redirect {
    servers: Vec<Server>,
    kernel: nft::Kernel,
}

impl Redirect {
    pub(crate) fn new(servers: Vec<Server>) -> Self {
        Self { servers, kernel: nft::Kernel::default() }
    }

    fn families(&self) -> impl Iterator<Item = bool> + use<> {
        let of = |ipv6| self.servers.iter().any(|server| server.asked.is_ipv6() == ipv6);
        [false, true].map(|ipv6| of(ipv6).then_some(ipv6)).into_iter().flatten()
    }

    /// Puts it in place, whatever was there before, and forgets the flows of those who asked before: their answers would be
    /// waited for elsewhere.
    pub(crate) async fn put(&mut self) -> Result<(), nft::Error> {
        let mut batch = Batch::default();
        for ipv6 in self.families() {
            table(&mut batch, ipv6, &self.servers);
        }
        self.kernel.commit(batch).await?;
        let servers = self.servers.clone();
        let astray = move |flow: &Flow| flow.protocol == UDP && is_astray(&servers, flow);
        let forget = move |socket: &mut Socket| conntrack::forget(socket, &astray);
        if let Err(error) = Kernel::of(Protocol::Netfilter).call(forget).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "flows of earlier questions time out");
        }
        Ok(())
    }

    /// Puts it in place again where somebody took it away, `nft flush ruleset` for one.
    pub(crate) async fn look_after(&mut self) -> Result<(), nft::Error> {
        for ipv6 in self.families() {
            if !self.kernel.has_tables(TABLES[usize::from(ipv6)]).await? {
                tracing::warn!("the nftables table {NAME} was taken away; put in place again");
                return self.put().await;
            }
        }
        Ok(())
    }
}

fn is_astray(servers: &[Server], flow: &Flow) -> bool {
    let end = |at: SocketAddr| (at.ip(), at.port());
    let asked = servers.iter().find(|server| end(server.asked) == flow.destination);
    asked.is_some_and(|server| end(server.answers) != flow.answers_from)
}

fn table(batch: &mut Batch, ipv6: bool, servers: &[Server]) {
    let table = TABLES[usize::from(ipv6)][0];
    let address = if ipv6 { Field::Ipv6 } else { Field::Ipv4 };
    batch.replace_table(table);
    let key = [address, Field::Protocol, Field::Port];
    batch.add_set(table, &Set::new(SERVERS, &key).to(&[address, Field::Port]));
    let own = servers.iter().filter(|server| server.asked.is_ipv6() == ipv6);
    let elements: Vec<Element> = own.flat_map(elements).collect();
    batch.add_elements(table, SERVERS, &elements);
    for (name, number) in [("prerouting", Hook::PREROUTING), ("output", Hook::OUTPUT)] {
        let hook = Some(Hook { kind: "nat", number, priority: PRIORITY });
        batch.add_chain(table, &Chain { name: name.into(), hook });
        batch.add_rule(table, name, &rule(ipv6));
    }
}

fn elements(server: &Server) -> impl Iterator<Item = Element> + use<> {
    let Server { asked, answers, datagrams } = *server;
    let protocols = [Some(TCP), datagrams.then_some(UDP)];
    protocols.into_iter().flatten().map(move |protocol| {
        let to = Bytes::default().address(answers.ip()).port(answers.port());
        Element {
            value: Some(Value::Bytes(to)),
            ..Element::member(Bytes::default().address(asked.ip()).protocol(protocol).port(asked.port()))
        }
    })
}

fn rule(ipv6: bool) -> [E; 5] {
    let (offset, size, words) = if ipv6 { (24, 16, 4) } else { (16, 4, 1) };
    let first = Register(0);
    [
        E::Payload(first, Base::Network, offset, size),
        E::Meta(Register(words), Meta::Protocol),
        E::Payload(Register(words + 1), Base::Transport, 2, 2),
        E::Lookup(SERVERS.into(), first, first),
        E::Dnat { ipv6, address: first, port: Register(words) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::services;
    use tokio::net::UdpSocket;

    fn nft(words: &str) -> String {
        let output = std::process::Command::new("nft").args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_redirection_that_was_taken_away_must_not_stay_away() {
        services::in_network_namespace(|| async {
            let server = |asked: &str, answers: &str| Server {
                asked: asked.parse().unwrap(),
                answers: answers.parse().unwrap(),
                datagrams: asked.ends_with(":53"),
            };
            let mut redirect = Redirect::new(vec![
                server("127.0.0.53:53", "127.0.0.53:10053"),
                server("127.0.0.53:9153", "127.0.0.53:40000"),
                server("[fd00::a]:53", "[fd00::a]:10053"),
            ]);
            redirect.put().await.unwrap();
            let listed = nft("list ruleset");
            let both = [
                "tcp . 53 : 127.0.0.53 . 10053",
                "udp . 53 : 127.0.0.53 . 10053",
                "udp . 53 : fd00::a . 10053",
            ];
            for element in both {
                assert!(listed.contains(element), "{element}: {listed}");
            }
            assert!(!listed.contains("udp . 9153"), "{listed}");
            redirect.look_after().await.unwrap();
            nft("delete table ip6 windlass-dns");
            redirect.look_after().await.unwrap();
            assert_eq!(nft("list ruleset"), listed);
        });
    }

    #[test]
    fn a_client_that_goes_on_asking_must_not_be_led_to_the_port_before() {
        services::in_network_namespace(|| async {
            let to = |answers: &str| {
                Redirect::new(vec![Server {
                    asked: "127.0.0.53:53".parse().unwrap(),
                    answers: answers.parse().unwrap(),
                    datagrams: true,
                }])
            };
            to("127.0.0.53:10053").put().await.unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"?", "127.0.0.53:53").await.unwrap();
            let now = UdpSocket::bind("127.0.0.53:40000").await.unwrap();
            to("127.0.0.53:40000").put().await.unwrap();
            client.send_to(b"?", "127.0.0.53:53").await.unwrap();
            let mut buffer = [0; 8];
            let received =
                tokio::time::timeout(std::time::Duration::from_secs(5), now.recv_from(&mut buffer));
            assert_eq!(received.await.unwrap().unwrap().0, 1);
        });
    }
}
