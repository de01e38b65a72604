//! Whose a front is where several services ask for the same one: an address in two services' `externalIPs`, or one that is another's
//! cluster IP. A map of the kernel holds each front once, and one service that asks for another's must not keep all of them out. Pure.
//!
//! A cluster IP was given to its service by the API server and comes before what people wrote; then the older service keeps its front. The
//! others are served where they stand alone, and come into their own once the owner goes.

use crate::model::Front;
use crate::service::Service;
use crate::service::ServiceName;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A service that asks for fronts; the smallest wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    created: Timestamp,
    name: ServiceName,
}

/// Whether a front is anything but the service's own cluster IP, and who asks for it.
type Claim = (bool, Arc<Claimant>);

/// Who a service is, and which fronts it asks for.
type Asked = (Arc<Claimant>, Box<[(Front, bool)]>);

/// Who asks for which front.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// The first is the owner.
    by_front: HashMap<Front, Vec<Claim>>,
    by_service: HashMap<ServiceName, Asked>,
}

impl Claims {
    /// What `name` asks for now. Gives the services that won or lost a front by it, not `name` itself.
    pub(crate) fn set(&mut self, name: &ServiceName, service: Option<&Service>) -> BTreeSet<ServiceName> {
        let wanted = service.map(|service| (service.created, service.fronts()));
        if let Some((claimant, fronts)) = self.by_service.get(name)
            && let Some((created, wanted)) = &wanted
            && claimant.created == *created
            && wanted.iter().map(|(front, written)| (*front, *written)).eq(fronts.iter().copied())
        {
            return BTreeSet::new();
        }
        let mut affected = BTreeSet::new();
        if let Some((claimant, fronts)) = self.by_service.remove(name) {
            for (front, _) in &fronts {
                let Some(claims) = self.by_front.get_mut(front) else { continue };
                claims.retain(|(_, other)| *other != claimant);
                affected.extend(claims.first().map(|(_, owner)| owner.name.clone()));
                if claims.is_empty() {
                    self.by_front.remove(front);
                }
            }
        }
        let Some((created, wanted)) = wanted else { return affected };
        let claimant = Arc::new(Claimant { created, name: name.clone() });
        for (front, written) in &wanted {
            let claims = self.by_front.entry(*front).or_default();
            let claim = (*written, claimant.clone());
            let at = claims.partition_point(|other| *other < claim);
            affected.extend(claims.first().map(|(_, owner)| owner.name.clone()));
            claims.insert(at, claim);
            if let [(_, owner), others @ ..] = claims.as_slice()
                && !others.is_empty()
            {
                tracing::warn!(
                    ?front,
                    owner = ?owner.name,
                    also = ?others.iter().map(|(_, other)| &other.name).collect::<Vec<_>>(),
                    "several services ask for one address and port; the owner alone is served there"
                );
            }
        }
        self.by_service.insert(name.clone(), (claimant, wanted.into_iter().collect()));
        affected
    }

    /// Whether the front is `name`'s.
    pub(crate) fn owns(&self, name: &ServiceName, front: &Front) -> bool {
        self.by_front
            .get(front)
            .and_then(|claims| claims.first())
            .is_some_and(|(_, owner)| owner.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Port, Protocol};

    fn service(created: i64, cluster: &str, external: &[&str]) -> Service {
        Service {
            created: Timestamp::from_second(created).unwrap(),
            cluster_ips: vec![cluster.parse().unwrap()],
            external_ips: external.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
            ..Service::default()
        }
    }

    fn name(name: &str) -> ServiceName {
        ("default".into(), name.into())
    }

    fn front(ip: &str) -> Front {
        Front::Address(ip.parse().unwrap(), Protocol::Tcp, 80)
    }

    fn owner<'a>(claims: &Claims, ip: &str, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|one| claims.owns(&name(one), &front(ip))).collect()
    }

    #[test]
    fn an_external_address_must_not_take_a_cluster_ip_however_old_its_service_is() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(&name("old"), Some(&service(1, "10.96.0.9", &["10.96.0.1"]))), BTreeSet::new());
        assert_eq!(owner(&claims, "10.96.0.1", &["old", "kubernetes"]), ["old"]);
        let lost = claims.set(&name("kubernetes"), Some(&service(2, "10.96.0.1", &[])));
        assert_eq!(lost, BTreeSet::from([name("old")]));
        assert_eq!(owner(&claims, "10.96.0.1", &["old", "kubernetes"]), ["kubernetes"]);
    }

    #[test]
    fn a_front_must_not_have_two_owners_nor_be_lost_with_the_first() {
        let mut claims = Claims::default();
        let all = ["a", "b", "c"];
        for (index, one) in (10..).zip(all) {
            claims.set(&name(one), Some(&service(index, &format!("10.96.0.{index}"), &["198.51.100.1"])));
        }
        assert_eq!(owner(&claims, "198.51.100.1", &all), ["a"]);
        assert_eq!(claims.set(&name("a"), None), BTreeSet::from([name("b")]), "who comes into it");
        assert_eq!(owner(&claims, "198.51.100.1", &all), ["b"]);
        assert_eq!(owner(&claims, "10.96.0.11", &all), ["b"]);
        claims.set(&name("b"), Some(&service(11, "10.96.0.11", &[])));
        assert_eq!(owner(&claims, "198.51.100.1", &all), ["c"]);
        claims.set(&name("b"), None);
        claims.set(&name("c"), None);
        assert!(claims.by_front.is_empty() && claims.by_service.is_empty());
    }
}
