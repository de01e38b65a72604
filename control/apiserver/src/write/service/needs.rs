//! What a Service needs that is taken for it: pure. Upstream: `core/service/storage/alloc.go`.

use super::{held, invalid, is_headless, port_number, ports_of, service_type, spec};
use machinery::access::{Get as _, list_at, remove_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::net::IpAddr;

/// An address that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressNeed {
    /// Its place among the Service's.
    pub(super) place: usize,
    pub(super) ipv4: bool,
    pub(super) asked: Option<IpAddr>,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// The port at this place, and the number it asks for.
    Port(usize),
    Health,
}

/// Everything that is wanted, and where it goes.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) addresses: Vec<AddressNeed>,
    /// By number, or any.
    pub(super) ports: Vec<Option<u16>>,
    uses: Vec<For>,
    /// A port's place, and the need that fills it.
    fills: Vec<(usize, usize)>,
    /// The Service's addresses as far as they are known; empty where they are to be found.
    ips: Vec<String>,
}

impl Needs {
    /// What a new Service needs, or a changed one beyond what it had. Sets what follows from the Service's type alone.
    pub(super) fn of(service: &mut Value, old: Option<&Value>) -> Result<Self, Status> {
        let mut needs = Self::default();
        needs.addresses(service, old)?;
        if matches!(service_type(service), "NodePort" | "LoadBalancer") {
            match old {
                None => needs.new_ports(service),
                Some(old) => needs.changed_ports(service, old),
            }
        }
        if needs_health_check(service) && !old.is_some_and(needs_health_check) {
            needs.port(port_number(service.present("spec.healthCheckNodePort")), For::Health);
        }
        Ok(needs)
    }

    /// Nothing is to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }

    fn addresses(&mut self, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let before = old.map(held).unwrap_or_default().ips;
        if service_type(service) == "ExternalName" {
            for field in ["clusterIP", "clusterIPs"] {
                // Validation refuses an address the client asked for; one the old type had goes.
                let had = |ip: &Value| {
                    ip.as_str().and_then(|ip| ip.parse().ok()).is_some_and(|ip| before.contains(&ip))
                };
                if service.at("spec").items(field).iter().all(had) {
                    remove_at(service, &format!("spec.{field}"));
                }
            }
            return Ok(());
        }
        if is_headless(service) {
            set_at(service, "spec.clusterIP", "None");
            set_at(service, "spec.clusterIPs", json!(["None"]));
            return Ok(());
        }
        let texts = |field: &str| -> Vec<String> {
            service.at("spec").items(field).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let (asked, families) = (texts("clusterIPs"), texts("ipFamilies"));
        for (place, wanted) in families.iter().enumerate() {
            let text = asked.get(place).cloned().unwrap_or_default();
            let ip: Option<IpAddr> = match text.is_empty() {
                true => None,
                false => Some(text.parse().map_err(|_| {
                    let value = json!(asked);
                    let error = FieldError::invalid(&spec("clusterIPs"), value, "must be a valid IP address");
                    invalid(object::name(service), error)
                })?),
            };
            if ip.is_none_or(|ip| !before.contains(&ip)) {
                let ipv4 = ip.map_or(wanted == "IPv4", |ip| ip.is_ipv4());
                self.addresses.push(AddressNeed { place, ipv4, asked: ip });
            }
            self.ips.push(text);
        }
        Ok(())
    }

    fn port(&mut self, asked: Option<u16>, use_: For) {
        if let For::Port(place) = use_ {
            self.fills.push((place, self.ports.len()));
        }
        self.ports.push(asked);
        self.uses.push(use_);
    }

    /// Ports of one number over several protocols share a node port.
    fn new_ports(&mut self, service: &Value) {
        let ports = ports_of(service);
        let mut shared: Vec<(u64, usize)> = Vec::new();
        for (place, port) in ports.iter().enumerate() {
            if port.node_port.is_none() && !allocates(service) {
                continue;
            }
            match shared.iter().find(|(number, _)| *number == port.number) {
                None => {
                    let same = ports.iter().filter(|other| other.number == port.number);
                    let asked = same.filter_map(|other| other.node_port).next();
                    shared.push((port.number, self.ports.len()));
                    self.port(asked, For::Port(place));
                }
                Some((_, need)) => {
                    let given = self.ports.get(*need).copied().flatten();
                    match port.node_port {
                        Some(other) if Some(other) != given => self.port(Some(other), For::Port(place)),
                        _ => self.fills.push((place, *need)),
                    }
                }
            }
        }
    }

    fn changed_ports(&mut self, service: &Value, old: &Value) {
        let before: Vec<u16> = ports_of(old).iter().filter_map(|port| port.node_port).collect();
        for (place, port) in ports_of(service).iter().enumerate() {
            match port.node_port {
                None if allocates(service) => self.port(None, For::Port(place)),
                Some(asked) if !before.contains(&asked) && !self.ports.contains(&Some(asked)) => {
                    self.port(Some(asked), For::Port(place));
                }
                _ => {}
            }
        }
    }

    /// The refusal of the port wanted at `at`.
    pub(super) fn refuse_port(&self, name: &str, at: usize, why: &str) -> Status {
        let asked = self.ports.get(at).copied().flatten();
        match (self.uses.get(at), asked) {
            (Some(For::Port(place)), Some(port)) => {
                let path: Path = spec("ports").index(*place).child("nodePort");
                invalid(name, FieldError::invalid(&path, port, why.to_owned()))
            }
            (Some(For::Health), Some(port)) => Status::internal_error(format!(
                "failed to allocate requested HealthCheck NodePort {port}: {why}"
            )),
            (Some(For::Health), None) => {
                Status::internal_error(format!("failed to allocate a HealthCheck NodePort 0: {why}"))
            }
            _ => Status::internal_error(format!("failed to allocate a nodePort: {why}")),
        }
    }

    /// The refusal of the address wanted at `place`; `full` where no other could be had.
    pub(super) fn refuse_address(&self, name: &str, place: usize, why: &str, full: bool) -> Status {
        let asked = self.ips.get(place).filter(|ip| !ip.is_empty());
        if full && asked.is_none() {
            return Status::internal_error(format!(
                "failed to allocate a serviceIP for Service {name:?}: {why}"
            ));
        }
        let why = match asked {
            Some(ip) => format!("failed to allocate IP {ip}: {why}"),
            None => format!("failed to allocate IP: {why}"),
        };
        invalid(name, FieldError::invalid(&spec("clusterIPs"), json!(self.ips), why))
    }

    /// Writes what was taken into the Service: an address and a port for each need.
    pub(super) fn fill(mut self, service: &mut Value, ips: &[IpAddr], ports: &[u16]) {
        for (need, ip) in self.addresses.iter().zip(ips) {
            if let Some(text) = self.ips.get_mut(need.place).filter(|text| text.is_empty()) {
                *text = ip.to_string();
            }
        }
        if let Some(first) = self.ips.first() {
            set_at(service, "spec.clusterIP", first.clone());
            set_at(service, "spec.clusterIPs", json!(self.ips));
        }
        for (place, need) in self.fills {
            let entry = list_at(service, "spec.ports").get_mut(place);
            if let (Some(entry), Some(port)) = (entry, ports.get(need)) {
                set_at(entry, "nodePort", *port);
            }
        }
        let health = self.uses.iter().position(|use_| *use_ == For::Health);
        if let Some(port) = health.and_then(|need| ports.get(need)) {
            set_at(service, "spec.healthCheckNodePort", *port);
        }
    }
}

/// What a dry run gives for wished ports: numbers above those there are (upstream: `portallocator/operation.go`). The place of one that
/// is taken, or asked for twice.
pub(super) fn imagine_ports(
    wishes: &[Option<u16>],
    is_taken: impl Fn(u16) -> bool,
) -> Result<Vec<u16>, usize> {
    let mut ports: Vec<u16> = Vec::new();
    for (at, wish) in wishes.iter().enumerate() {
        let port = match wish {
            Some(port) if is_taken(*port) || ports.contains(port) => return Err(at),
            Some(port) => *port,
            None => ports.iter().max().copied().unwrap_or(32768).saturating_add(1),
        };
        ports.push(port);
    }
    Ok(ports)
}

fn needs_health_check(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && service.text("spec.externalTrafficPolicy") == "Local"
}

fn allocates(service: &Value) -> bool {
    service_type(service) == "NodePort"
        || service.present("spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mut service: Value, old: Option<&Value>) -> (Value, Needs) {
        let needs = Needs::of(&mut service, old).unwrap();
        (service, needs)
    }

    fn ports(kind: &str, ports: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": {"type": kind, "clusterIP": "None", "ports": ports}})
    }

    fn wishes(service: Value) -> Vec<Option<u16>> {
        of(service, None).1.ports
    }

    #[test]
    fn ports_of_one_number_share_a_node_port() {
        let dns = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80}]);
        let (mut service, needs) = of(ports("NodePort", dns), None);
        assert_eq!(needs.ports, [None, None]);
        needs.fill(&mut service, &[], &[30001, 30002]);
        let got: Vec<_> = ports_of(&service).iter().map(|port| port.node_port).collect();
        assert_eq!(got, [Some(30001), Some(30001), Some(30002)]);
        // One of them asks for a number: both have it.
        let asked =
            json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "nodePort": 30053}]);
        assert_eq!(wishes(ports("NodePort", asked)), [Some(30053)]);
        let other =
            json!([{"port": 53, "nodePort": 30053}, {"port": 53, "protocol": "UDP", "nodePort": 30054}]);
        assert_eq!(wishes(ports("NodePort", other)), [Some(30053), Some(30054)]);
        // Another number with the same node port is refused by the allocation.
        let twice =
            json!([{"port": 53, "nodePort": 30053}, {"port": 54, "protocol": "UDP", "nodePort": 30053}]);
        assert_eq!(wishes(ports("NodePort", twice)), [Some(30053), Some(30053)]);
    }

    #[test]
    fn a_type_without_node_ports_must_not_take_any() {
        assert_eq!(wishes(ports("ClusterIP", json!([{"port": 80}]))), []);
        let mut without = ports("LoadBalancer", json!([{"port": 80}, {"port": 81, "nodePort": 30081}]));
        without["spec"]["allocateLoadBalancerNodePorts"] = false.into();
        assert_eq!(wishes(without), [Some(30081)]);
    }

    #[test]
    fn a_change_must_not_take_again_what_the_service_has() {
        let had = json!([{"port": 80, "nodePort": 30080}]);
        let mut old = ports("LoadBalancer", had);
        old["spec"]["externalTrafficPolicy"] = "Local".into();
        old["spec"]["healthCheckNodePort"] = 30090.into();
        let mut new = old.clone();
        new["spec"]["ports"] = json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30081}, {"port": 82, "nodePort": 30081}, {"port": 83}]);
        assert_eq!(of(new, Some(&old)).1.ports, [Some(30081), None]);
        let plain = ports("ClusterIP", json!([{"port": 80}]));
        assert_eq!(of(old.clone(), Some(&plain)).1.ports, [Some(30080), Some(30090)]);
    }

    #[test]
    fn refusals_say_what_was_wanted() {
        let mut local = ports("LoadBalancer", json!([{"port": 80}, {"port": 81, "nodePort": 30081}]));
        local["spec"]["externalTrafficPolicy"] = "Local".into();
        let needs = of(local, None).1;
        let refusal = |at| needs.refuse_port("s", at, "range is full");
        assert_eq!(
            refusal(0).message,
            "Internal error occurred: failed to allocate a nodePort: range is full"
        );
        assert_eq!(
            refusal(1).message,
            "Service \"s\" is invalid: spec.ports[1].nodePort: Invalid value: 30081: range is full"
        );
        assert_eq!(
            refusal(2).message,
            "Internal error occurred: failed to allocate a HealthCheck NodePort 0: range is full"
        );
        let full = needs.refuse_address("s", 0, "range is full", true);
        assert_eq!(
            full.message,
            "Internal error occurred: failed to allocate a serviceIP for Service \"s\": range is full"
        );
    }

    #[test]
    fn a_dry_run_names_ports_nobody_has() {
        assert_eq!(imagine_ports(&[None, Some(30000), None], |_| false), Ok(vec![32769, 30000, 32770]));
        assert_eq!(imagine_ports(&[Some(1), Some(1)], |_| false), Err(1));
        assert_eq!(imagine_ports(&[Some(1)], |port| port == 1), Err(0));
    }
}
