use super::super::ledger::{Entry, Ledger};
use super::*;
use crate::address_pools::read;
use proptest::prelude::*;

fn pools(text: &[(&str, &str)]) -> Vec<Pool> {
    read(&text.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()).unwrap()
}

fn holder(name: &str, created: i64, sharing: Option<&str>, port: i32) -> Holder {
    Holder {
        key: Key::new("n", name),
        created: Timestamp::from_second(created).unwrap(),
        sharing: sharing.map(str::to_owned),
        ports: [("TCP".to_owned(), port)].into(),
        local: false,
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What `who` gets, as text.
fn given(
    pools: &[Pool],
    wish: &Wish,
    who: &Holder,
    held: &[&str],
    taken: &Taken,
) -> Result<Vec<String>, String> {
    let Origin::Ranges(open) = origin(pools, wish).map_err(|why| why.to_string())? else {
        return Ok(vec!["nodes".to_owned()]);
    };
    let given = allocate(&open, wish, who, &ips(held), taken).map_err(|why| why.to_string())?;
    Ok(given.iter().map(ToString::to_string).collect())
}

fn v4() -> Wish {
    Wish { families: vec![false], ..Wish::default() }
}

#[test]
fn a_service_must_not_lose_what_it_has() {
    let pools = pools(&[("a", "ranges: [192.0.2.1-192.0.2.9]"), ("b", "ranges: [198.51.100.1]")]);
    let (who, nobody) = (holder("web", 5, None, 80), Taken::new());
    assert_eq!(given(&pools, &v4(), &who, &[], &nobody).unwrap(), ["192.0.2.1"]);
    assert_eq!(given(&pools, &v4(), &who, &["192.0.2.7"], &nobody).unwrap(), ["192.0.2.7"]);
    assert_eq!(
        given(&pools, &v4(), &who, &["203.0.113.1"], &nobody).unwrap(),
        ["203.0.113.1"],
        "of a pool that went"
    );
    let named = Wish { pool: Some("b".into()), ..v4() };
    assert_eq!(
        given(&pools, &named, &who, &["192.0.2.7"], &nobody).unwrap(),
        ["198.51.100.1"],
        "it asks for another"
    );
    let asks = Wish { addresses: ips(&["192.0.2.3"]), ..v4() };
    assert_eq!(given(&pools, &asks, &who, &["192.0.2.7"], &nobody).unwrap(), ["192.0.2.3"]);
    for (created, kept) in [(4, "192.0.2.1"), (6, "192.0.2.7")] {
        let twice = Taken::from([(ips(&["192.0.2.7"])[0], vec![holder("other", created, None, 80)])]);
        assert_eq!(
            given(&pools, &v4(), &who, &["192.0.2.7"], &twice).unwrap(),
            [kept],
            "of two the older has it"
        );
    }
}

#[test]
fn what_cannot_be_had_is_said() {
    let pools = pools(&[("a", "ranges: [192.0.2.1]"), ("z", "{ranges: [198.51.100.1], autoAssign: false}")]);
    let who = holder("web", 5, None, 80);
    let taken = Taken::from([(ips(&["192.0.2.1"])[0], vec![holder("db", 1, None, 80)])]);
    let fails = |wish: &Wish| given(&pools, wish, &who, &[], &taken).unwrap_err();
    assert_eq!(fails(&v4()), "no IPv4 address is free in pool a");
    assert_eq!(fails(&Wish { families: vec![true], ..v4() }), "no IPv6 address is free in any pool");
    assert_eq!(fails(&Wish { pool: Some("x".into()), ..v4() }), "there is no pool \"x\"");
    assert_eq!(fails(&Wish { addresses: ips(&["192.0.2.1"]), ..v4() }), "192.0.2.1 belongs to service n/db");
    assert_eq!(
        fails(&Wish { addresses: ips(&["192.0.2.2"]), ..v4() }),
        "192.0.2.2 is in no pool that this Service may use"
    );
    let named = Wish { pool: Some("z".into()), ..v4() };
    assert_eq!(given(&pools, &named, &who, &[], &taken).unwrap(), ["198.51.100.1"]);
    let node = Taken::from([(ips(&["192.0.2.1"])[0], vec![])]);
    let asks = Wish { addresses: ips(&["192.0.2.1"]), ..v4() };
    assert_eq!(given(&pools, &asks, &who, &[], &node).unwrap_err(), "192.0.2.1 belongs to a node");
}

#[test]
fn a_dual_service_gets_both_families_or_what_it_settles_for() {
    let both = pools(&[("a", "ranges: [192.0.2.1, '2001:db8::1']")]);
    let one = pools(&[("a", "ranges: [192.0.2.1]")]);
    let (who, nobody) = (holder("web", 5, None, 80), Taken::new());
    let required = Wish { families: vec![true, false], ..Wish::default() };
    assert_eq!(given(&both, &required, &who, &[], &nobody).unwrap(), ["2001:db8::1", "192.0.2.1"]);
    assert!(given(&one, &required, &who, &[], &nobody).is_err());
    let preferred = Wish { any_family: true, ..required };
    assert_eq!(given(&one, &preferred, &who, &[], &nobody).unwrap(), ["192.0.2.1"]);
}

#[test]
fn an_address_is_shared_only_by_those_who_both_say_so_and_want_no_port_twice() {
    let pools = pools(&[("a", "ranges: [192.0.2.1-192.0.2.2]")]);
    let with = |other: Holder| Taken::from([(ips(&["192.0.2.1"])[0], vec![other])]);
    let who = holder("web", 5, Some("k"), 80);
    let get = |other: Holder| given(&pools, &v4(), &who, &[], &with(other)).unwrap().remove(0);
    assert_eq!(get(holder("db", 1, Some("k"), 53)), "192.0.2.1");
    for other in [
        holder("db", 1, Some("k"), 80),
        holder("db", 1, Some("l"), 53),
        holder("db", 1, None, 53),
        Holder { local: true, ..holder("db", 1, Some("k"), 53) },
    ] {
        assert_eq!(get(other.clone()), "192.0.2.2", "{other:?}");
    }
}

#[test]
fn nodes_addresses_are_given_only_where_nothing_else_is_or_they_are_asked_for() {
    let nodes = pools(&[("n", "mode: nodes")]);
    let both = pools(&[("a", "ranges: [192.0.2.1]"), ("n", "mode: nodes")]);
    assert_eq!(origin(&nodes, &v4()), Ok(Origin::Nodes));
    assert_ne!(origin(&both, &v4()), Ok(Origin::Nodes));
    assert_eq!(origin(&both, &Wish { pool: Some("n".into()), ..v4() }), Ok(Origin::Nodes));
    let quiet = pools(&[("n", "{mode: nodes, autoAssign: false}")]);
    assert_ne!(origin(&quiet, &v4()), Ok(Origin::Nodes));
}

/// What happens to a cluster's Services.
#[derive(Clone, Debug)]
enum Step {
    /// A Service comes, or asks for something else: for an address, by a sharing key, on a port.
    Ask { name: u8, address: Option<u8>, key: Option<u8>, port: i32 },
    /// A Service goes.
    Delete(u8),
    /// The controller looks at a Service.
    Reconcile(u8),
    /// What was written to a Service is seen.
    See(u8),
    /// The controller starts again, and reads everything first.
    Restart,
    /// The pools are others.
    Pools(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..6_u8;
    prop_oneof![
        3 => (name.clone(), proptest::option::of(0..6_u8), proptest::option::of(0..2_u8), 80..82_i32)
            .prop_map(|(name, address, key, port)| Step::Ask { name, address, key, port }),
        1 => name.clone().prop_map(Step::Delete),
        6 => name.clone().prop_map(Step::Reconcile),
        3 => name.prop_map(Step::See),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Pools),
    ]
}

#[derive(Clone)]
struct Stored {
    entry: Entry,
    wish: Wish,
}

/// A cluster, and what the controller knows of it.
#[derive(Default)]
struct World {
    version: u64,
    stored: BTreeMap<u8, Stored>,
    seen: BTreeMap<u8, Stored>,
    ledger: Ledger,
}

impl World {
    fn reconcile(&mut self, name: u8, pools: &[Pool]) {
        let key = Key::new("n", &name.to_string());
        let Some(known) = self.seen.get(&name).cloned() else { return self.ledger.forget(&key) };
        if !self.ledger.is_seen(&key, known.entry.version) {
            return;
        }
        let entries: Vec<Entry> = self.seen.values().map(|s| s.entry.clone()).collect();
        let taken = self.ledger.taken(&entries, &key, []);
        let Ok(Origin::Ranges(open)) = origin(pools, &known.wish) else { return };
        let held = &known.entry.addresses;
        let Ok(given) = allocate(&open, &known.wish, &known.entry.holder, held, &taken) else { return };
        // A write goes to what was read, or fails.
        let Some(now) = self.stored.get_mut(&name).filter(|now| now.entry.version == known.entry.version)
        else {
            return;
        };
        if given != now.entry.addresses {
            self.version += 1;
            (now.entry.addresses, now.entry.version) = (given.clone(), self.version);
            self.ledger.wrote(&key, self.version, given);
        }
    }

    /// No address is with two that cannot share it. Who changes their mind about sharing loses it when they are looked at.
    fn check(&self) {
        let all: Vec<&Entry> = self.stored.values().map(|s| &s.entry).collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                let common = one.addresses.iter().find(|address| other.addresses.contains(address));
                assert!(
                    common.is_none() || one.holder.shares_with(&other.holder),
                    "{common:?} is with {} and {}",
                    one.holder.key,
                    other.holder.key
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn no_address_is_given_twice_whatever_happens(steps in proptest::collection::vec(step(), 1..120)) {
        let all = [
            pools(&[("a", "ranges: [192.0.2.0-192.0.2.3]")]),
            pools(&[("a", "ranges: [192.0.2.2-192.0.2.5]")]),
        ];
        let (mut world, mut pools) = (World::default(), &all[0]);
        for step in steps {
            match step {
                Step::Ask { name, address, key, port } => {
                    // Ports and sharing stay while a Service lives: a change of them is another test's.
                    world.version += 1;
                    let version = world.version;
                    let sharing = key.map(|key| key.to_string());
                    let created = Timestamp::from_second(i64::try_from(version).unwrap()).unwrap();
                    let fresh = Holder { created, ..holder(&name.to_string(), 0, sharing.as_deref(), port) };
                    let entry = Entry { holder: fresh, version, addresses: Vec::new() };
                    let stored = world.stored.entry(name).or_insert(Stored { entry, wish: v4() });
                    stored.entry.version = version;
                    stored.wish.addresses =
                        address.map(|last| IpAddr::from([192, 0, 2, last])).into_iter().collect();
                }
                // The controller's own finalizer has a Service stay until it has seen its end.
                Step::Delete(name) => {
                    world.stored.remove(&name);
                    world.seen.remove(&name);
                    world.reconcile(name, pools);
                }
                Step::Reconcile(name) => world.reconcile(name, pools),
                Step::See(name) => {
                    let stored = world.stored.get(&name).cloned();
                    world.seen.extend(stored.map(|stored| (name, stored)));
                }
                Step::Restart => {
                    world.seen = world.stored.clone();
                    world.ledger = Ledger::default();
                }
                Step::Pools(second) => pools = &all[usize::from(second)],
            }
            world.check();
        }
    }
}

#[test]
fn of_two_that_no_longer_share_the_younger_moves() {
    let pools = pools(&[("a", "ranges: [192.0.2.1-192.0.2.2]")]);
    let (older, younger) = (holder("a", 1, Some("k"), 80), holder("b", 2, None, 53));
    let taken = |other: &Holder| Taken::from([(ips(&["192.0.2.1"])[0], vec![other.clone()])]);
    assert_eq!(given(&pools, &v4(), &older, &["192.0.2.1"], &taken(&younger)).unwrap(), ["192.0.2.1"]);
    assert_eq!(given(&pools, &v4(), &younger, &["192.0.2.1"], &taken(&older)).unwrap(), ["192.0.2.2"]);
}
