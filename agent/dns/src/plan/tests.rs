use super::*;

/// What kubeadm 1.36 writes.
const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn read(text: &str) -> Plan {
    Plan::read(Some(text), std::iter::empty(), std::iter::empty()).unwrap()
}

fn at(text: &str) -> Target {
    Target::At(text.parse().unwrap())
}

/// The zone that serves a name.
fn zone(plan: &Plan, of: &str) -> String {
    plan.blocks[plan.block(&name(of).unwrap()).unwrap()].zone.to_ascii()
}

#[test]
fn what_kubeadm_writes_must_not_change_anything() {
    assert_eq!(read(KUBEADM), Plan::default());
    assert_eq!(Plan::read(None, std::iter::empty(), std::iter::empty()).unwrap(), Plan::default());
}

#[test]
fn stub_domains_and_other_resolvers_are_read_as_documented() {
    let text = KUBEADM.replace("/etc/resolv.conf", "172.16.0.1 dns://[fd00::1]:5353")
        + "consul.local:53 corp.example. {\n    errors\n    cache 30\n    forward . 10.150.0.1:8600 {\n      except www.corp.example\n    }\n}\n";
    let plan = read(&text);
    assert_eq!(plan.blocks[0].forwards[0].to, [at("172.16.0.1:53"), at("[fd00::1]:5353")]);
    let stub = &plan.blocks[1];
    assert_eq!(
        (stub.zone.to_ascii().as_str(), stub.kubernetes, stub.forwards[0].to.as_slice()),
        ("consul.local.", false, [at("10.150.0.1:8600")].as_slice())
    );
    assert_eq!(stub.forwards[0].except, [name("www.corp.example").unwrap()]);
    assert_eq!(
        ["a.consul.local", "corp.example", "example"].map(|of| zone(&plan, of)),
        ["consul.local.", "corp.example.", "."]
    );
    assert_eq!(plan.remarks, Vec::<String>::new());
}

#[test]
fn a_resolver_behind_encryption_must_not_be_asked_without() {
    let plan = read(". {\n forward . tls://1.1.1.1 /etc/other.conf\n}");
    assert!(plan.blocks[0].forwards[0].to.is_empty());
    assert_eq!(
        plan.remarks,
        ["forward to tls://1.1.1.1: not served", "forward to /etc/other.conf: not served"]
    );
}

#[test]
fn what_is_not_served_is_told_by_name() {
    let plan = read(
        ". {\n template ANY ANY { \n rcode NXDOMAIN\n }\n rewrite type ANY A\n}\na:5353 {\n}\n10.0.0.0/8 {\n}\n",
    );
    assert_eq!(
        plan.remarks,
        [
            "template: not served",
            "rewrite type ANY A: not served",
            "section a:5353: not served",
            "section 10.0.0.0/8: not served"
        ]
    );
    assert_eq!(plan.blocks.len(), 1);
    assert!(Plan::read(Some(". {"), std::iter::empty(), std::iter::empty()).is_err());
}

#[test]
fn rules_of_names_are_read_in_both_forms() {
    let plan = read(
        ". {\n rewrite name a.example b.example\n rewrite stop {\n  name suffix .old.example .new.example\n  answer auto\n }\n}",
    );
    let rules: Vec<(bool, String)> =
        plan.blocks[0].renames.iter().map(|rule| (rule.exact, rule.from.to_ascii())).collect();
    assert_eq!(rules, [(true, "a.example.".to_owned()), (false, "old.example.".to_owned())]);
}

#[test]
fn additions_reach_the_root_whether_it_is_written_or_not() {
    let overrides = "hosts {\n 192.0.2.1 git.example\n fallthrough\n}\nforward corp.example 10.0.0.1";
    let servers = "lab.example {\n forward . 10.0.0.2\n}";
    for corefile in [None, Some(KUBEADM)] {
        let plan = Plan::read(corefile, [overrides].into_iter(), [servers].into_iter()).unwrap();
        let root = &plan.blocks[plan.block(&name("git.example").unwrap()).unwrap()];
        assert_eq!((root.kubernetes, root.hosts.len(), root.forwards.len()), (true, 1, 2), "{corefile:?}");
        assert_eq!(zone(&plan, "a.lab.example"), "lab.example.");
    }
}
