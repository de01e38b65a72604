//! Who is asked about a name: the plan, with a pool of resolvers for each of its lists of servers.

use crate::answer::{answer, plain};
use crate::hosts::Found;
use crate::plan::{Block, Forward, Plan, Target};
use crate::rename::Renamed;
use crate::upstream::Upstream;
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The plan as it is followed now.
#[derive(Debug, Default)]
struct Table {
    plan: Plan,
    /// The node's own resolvers.
    node: Vec<SocketAddr>,
    /// By their servers: one that stays in the plan knows who answered last.
    pools: HashMap<Vec<SocketAddr>, Arc<Upstream>>,
}

/// What is to become of a question, as far as the plan says.
#[derive(Debug)]
pub(crate) enum Way {
    /// This is the answer.
    Known(Box<Message>),
    /// The plan gives the name to others, whatever the cluster knows.
    Elsewhere,
    /// It is the cluster's to answer, if it can.
    Cluster,
}

/// Whom to ask about what.
#[derive(Debug)]
pub(crate) struct Resolvers(RwLock<Arc<Table>>);

impl Resolvers {
    /// Everything is asked of these.
    pub(crate) fn new(node: Vec<SocketAddr>) -> Self {
        let resolvers = Self(RwLock::default());
        resolvers.set_node(node);
        resolvers
    }

    /// The node's own resolvers from now on. True when they are others than before.
    pub(crate) fn set_node(&self, node: Vec<SocketAddr>) -> bool {
        let table = self.0.read().clone();
        let changed = table.node != node || table.pools.is_empty();
        if changed {
            self.put(table.plan.clone(), node);
        }
        changed
    }

    /// The plan from now on. True when it is another than before.
    pub(crate) fn set_plan(&self, plan: Plan) -> bool {
        let table = self.0.read().clone();
        let changed = table.plan != plan;
        if changed {
            self.put(plan, table.node.clone());
        }
        changed
    }

    fn put(&self, plan: Plan, node: Vec<SocketAddr>) {
        let mut table = self.0.write();
        let forwards = plan.blocks.iter().flat_map(|block| &block.forwards);
        let pools = forwards.map(|forward| {
            let servers = servers(forward, &node);
            let known = table.pools.get(&servers).cloned();
            let pool = known.unwrap_or_else(|| Arc::new(Upstream::new(servers.clone())));
            (servers, pool)
        });
        *table = Arc::new(Table { pools: pools.collect(), plan, node });
    }

    /// Whoever is asked about a name; nobody where the plan gives it to none.
    pub(crate) fn pool(&self, name: &Name) -> Option<Arc<Upstream>> {
        let table = self.0.read().clone();
        let forward = Plan::forward_of(block(&table.plan, name)?, name)?;
        table.pools.get(&servers(forward, &table.node)).cloned()
    }

    /// Puts another name in the question's place, where the plan says so.
    pub(crate) fn rename(&self, request: &mut Message) -> Option<Renamed> {
        let table = self.0.read().clone();
        let name = request.queries.first()?.name();
        let rules = &block(&table.plan, name)?.renames;
        if rules.is_empty() { None } else { Renamed::apply(rules, request) }
    }

    /// What the plan says of a question; `domain` is the cluster's.
    pub(crate) fn way(&self, request: &Message, domain: &Name) -> Way {
        let Some(query) = plain(request) else { return Way::Cluster };
        let table = self.0.read().clone();
        let Some(block) = block(&table.plan, query.name()) else { return Way::Cluster };
        for hosts in &block.hosts {
            match hosts.find(query) {
                // whatever is said of names nobody knows, the cluster's are known
                Some(Found::Failure) if block.kubernetes && domain.zone_of(query.name()) => {}
                Some(found) => return Way::Known(Box::new(answer(request, query, found, hosts.ttl))),
                None => {}
            }
        }
        if block.kubernetes || block.zone.is_root() { Way::Cluster } else { Way::Elsewhere }
    }
}

fn block<'a>(plan: &'a Plan, name: &Name) -> Option<&'a Block> {
    plan.block(name).and_then(|index| plan.blocks.get(index))
}

/// The addresses a rule means.
fn servers(forward: &Forward, node: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for target in &forward.to {
        match target {
            Target::At(server) => all.push(*server),
            Target::Node => all.extend(node),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::name;
    use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::RecordType;

    const COREFILE: &str = ". {
        kubernetes cluster.local
        hosts {
            192.0.2.1 git.example
        }
        forward corp.example 10.0.0.1
        forward . /etc/resolv.conf {
            except secret.example
        }
    }
    in-addr.arpa { 
        kubernetes cluster.local
    }
    foreign.svc.cluster.local {
        forward . 10.0.0.3
    }";

    fn resolvers() -> Resolvers {
        let resolvers = Resolvers::new(vec!["192.0.2.53:53".parse().unwrap()]);
        let plan = Plan::read(Some(COREFILE), std::iter::empty(), std::iter::empty()).unwrap();
        assert!(resolvers.set_plan(plan.clone()) && !resolvers.set_plan(plan));
        resolvers
    }

    fn question(of: &str) -> Message {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name(of).unwrap(), RecordType::A));
        message
    }

    fn way(resolvers: &Resolvers, of: &str) -> String {
        match resolvers.way(&question(of), &name("cluster.local").unwrap()) {
            Way::Known(response) if response.metadata.response_code == ResponseCode::ServFail => {
                "nobody".into()
            }
            Way::Known(response) => response.answers[0].data.to_string(),
            Way::Elsewhere => "elsewhere".into(),
            Way::Cluster => "cluster".into(),
        }
    }

    #[test]
    fn the_clusters_names_must_not_be_lost_to_hosts_nor_to_a_section_of_its_own() {
        let resolvers = resolvers();
        let of = |text: &str| way(&resolvers, text);
        assert_eq!(of("git.example"), "192.0.2.1");
        assert_eq!(of("other.example"), "nobody", "as hosts without fallthrough has it");
        assert_eq!(of("web.default.svc.cluster.local"), "cluster");
        assert_eq!(of("1.0.96.10.in-addr.arpa"), "cluster");
        assert_eq!(of("web.foreign.svc.cluster.local"), "elsewhere");
    }

    #[test]
    fn each_name_is_asked_of_its_own_resolvers() {
        let resolvers = resolvers();
        let of = |text: &str| resolvers.pool(&name(text).unwrap()).map(|pool| format!("{pool:?}"));
        assert!(of("a.corp.example").unwrap().contains("10.0.0.1:53"));
        assert!(of("example.org").unwrap().contains("192.0.2.53:53"));
        assert!(of("web.foreign.svc.cluster.local").unwrap().contains("10.0.0.3:53"));
        assert_eq!(of("secret.example"), None);
    }

    #[test]
    fn a_pool_must_not_forget_who_answered_for_a_change_elsewhere() {
        let resolvers = resolvers();
        let before = resolvers.pool(&name("a.corp.example").unwrap()).unwrap();
        assert!(!resolvers.set_node(vec!["192.0.2.53:53".parse().unwrap()]), "the same");
        assert!(resolvers.set_node(vec!["192.0.2.54:53".parse().unwrap()]));
        let after = resolvers.pool(&name("a.corp.example").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&before, &after));
        let node = resolvers.pool(&name("example.org").unwrap()).unwrap();
        assert!(format!("{node:?}").contains("192.0.2.54:53"));
    }
}
