//! The lease store against a model, with the process killed between any two file operations.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    fields::Fields,
    ipam::{files::Disk, range::Range},
};

/// Real files, until the fuse has burnt: then every operation fails, as a killed process's would never have been.
struct Fused {
    left: Cell<u32>,
}

impl Fused {
    fn burn(&self) -> io::Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other("killed")),
        }
    }
}

impl Files for Fused {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.burn()?;
        Disk.read(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // The one operation that is not atomic: killed in the middle of it, half is there.
        if self.burn().is_err() {
            Disk.write(path, &content[..content.len() / 2])?;
            return Err(io::Error::other("killed"));
        }
        Disk.write(path, content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.burn()?;
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        Disk.remove(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.burn()?;
        Disk.names(directory)
    }
}

fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join(ATTACHMENTS)).unwrap();
    directory
}

fn sets() -> Vec<RangeSet> {
    // Five addresses each.
    [("192.0.2.0/29", "192.0.2.6"), ("2001:db8::/125", "2001:db8::6")]
        .into_iter()
        .map(|(subnet, last)| {
            let mut fields = Fields::of("", json!({ "subnet": subnet, "rangeEnd": last })).unwrap();
            RangeSet::new("", vec![Range::read(&mut fields).unwrap()]).unwrap()
        })
        .collect()
}

fn owner(number: u8) -> Owner {
    Owner { container: format!("c{number}"), interface: "eth0".into() }
}

fn store(directory: &TempDir, boot: u8) -> Store<Disk> {
    Store::new(directory.path().to_owned(), Disk, format!("boot{boot}"))
}

fn addresses(grants: &[Grant]) -> Vec<IpAddr> {
    grants.iter().map(|grant| grant.address.addr()).collect()
}

#[test]
fn addresses_go_round_before_they_come_back() {
    let directory = directory();
    let store = store(&directory, 1);
    let mut seen = Vec::new();
    for number in 0..5 {
        seen.push(addresses(&store.grant(&owner(number), &sets()[..1], &[]).unwrap())[0]);
        store.release(&owner(number)).unwrap();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_full_range_says_so_and_leaves_nothing() {
    let directory = directory();
    let store = store(&directory, 1);
    for number in 0..5 {
        store.grant(&owner(number), &sets(), &[]).unwrap();
    }
    let error = store.grant(&owner(9), &sets(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "no IP addresses available in range set: 192.0.2.1-192.0.2.6");
    assert_eq!(store.held(&owner(9)).unwrap(), Vec::<IpAddr>::new());
}

#[test]
fn a_second_add_is_refused_and_the_first_keeps_its_address() {
    let directory = directory();
    let store = store(&directory, 1);
    let first = store.grant(&owner(1), &sets(), &[]).unwrap();
    let error = store.grant(&owner(1), &sets(), &[]).unwrap_err().to_string();
    assert_eq!(error, "192.0.2.2 has been allocated to c1, duplicate allocation is not allowed");
    assert_eq!(store.held(&owner(1)).unwrap(), addresses(&first));
}

#[test]
fn requested_addresses_are_granted_or_refused() {
    let directory = directory();
    let store = store(&directory, 1);
    let ask = |number, text: &str| store.grant(&owner(number), &sets(), &[text.parse().unwrap()]);
    assert_eq!(addresses(&ask(1, "192.0.2.5").unwrap())[0].to_string(), "192.0.2.5");
    assert!(matches!(ask(2, "192.0.2.5").unwrap_err(), StoreError::Taken { .. }));
    assert!(matches!(ask(2, "192.0.2.1").unwrap_err(), StoreError::Gateway(_)));
    assert!(matches!(ask(2, "198.51.100.1").unwrap_err(), StoreError::Outside(_)));
}

#[test]
fn upstreams_leases_are_respected_and_released() {
    let directory = directory();
    let store = store(&directory, 1);
    for (address, content) in
        [("192.0.2.2", "old\r\neth0"), ("192.0.2.3", "older"), ("192.0.2.4", ""), ("192.0.2.5", "c1\neth0")]
    {
        std::fs::write(directory.path().join(address), content).unwrap();
    }
    assert_eq!(addresses(&store.grant(&owner(7), &sets()[..1], &[]).unwrap())[0].to_string(), "192.0.2.4");
    assert_eq!(addresses(&store.grant(&owner(8), &sets()[..1], &[]).unwrap())[0].to_string(), "192.0.2.6");
    let held = |container: &str| Owner { container: container.into(), interface: "eth0".into() };
    for (container, address) in [("old", "192.0.2.2"), ("older", "192.0.2.3"), ("c1", "192.0.2.5")] {
        let released = store.release(&held(container)).unwrap();
        assert_eq!(released, [address.parse::<IpAddr>().unwrap()]);
        assert!(!directory.path().join(address).exists());
    }
}

#[test]
fn leases_of_another_boot_are_free_and_their_old_owner_cannot_release_the_new_one() {
    let directory = directory();
    for number in 0..5 {
        store(&directory, 1).grant(&owner(number), &sets(), &[]).unwrap();
    }
    let later = store(&directory, 2);
    // The same attachment may come again after the reboot, too.
    let mut granted = BTreeSet::new();
    for number in [3, 10, 11, 12, 13] {
        granted.extend(addresses(&later.grant(&owner(number), &sets(), &[]).unwrap()));
    }
    assert_eq!(granted.len(), 10);
    for number in [0, 1, 2, 4] {
        assert_eq!(later.release(&owner(number)).unwrap(), Vec::<IpAddr>::new());
    }
    for number in [3, 10, 11, 12, 13] {
        assert_eq!(later.held(&owner(number)).unwrap().len(), 2);
    }
}

#[test]
fn gc_keeps_the_valid_and_nothing_else() {
    let directory = directory();
    let store = store(&directory, 1);
    for number in 0..4 {
        store.grant(&owner(number), &sets(), &[]).unwrap();
    }
    assert_eq!(store.retain(&[owner(1), owner(2)]).unwrap().len(), 4);
    for (number, count) in [(0, 0), (1, 2), (2, 2), (3, 0)] {
        assert_eq!(store.held(&owner(number)).unwrap().len(), count);
    }
    assert_eq!(std::fs::read_dir(directory.path().join(ATTACHMENTS)).unwrap().count(), 2);
}

#[derive(Clone, Debug)]
enum Event {
    Add(u8, u32),
    Del(u8, u32),
    Gc(Vec<u8>, u32),
    Reboot,
}

fn event() -> impl Strategy<Value = Event> {
    // Half the calls live to the end, the others are killed after up to 30 file operations.
    let fuse = || prop_oneof![Just(u32::MAX), 0..30u32];
    prop_oneof![
        6 => (0..9u8, fuse()).prop_map(|(number, fuse)| Event::Add(number, fuse)),
        4 => (0..9u8, fuse()).prop_map(|(number, fuse)| Event::Del(number, fuse)),
        1 => (prop::collection::vec(0..9u8, 0..5), fuse()).prop_map(|(valid, fuse)| Event::Gc(valid, fuse)),
        1 => Just(Event::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is killed wherever: no address has two owners, an owner keeps what it was granted until it gives it
    /// back, and once every owner has given back, every address can be granted again.
    #[test]
    fn killed_anywhere_nothing_is_granted_twice_or_lost(events in prop::collection::vec(event(), 1..40)) {
        let directory = directory();
        let mut boot = 1;
        // What each owner was told is its own.
        let mut model: BTreeMap<u8, Vec<IpAddr>> = BTreeMap::new();
        // Owners whose last call was killed: the runtime calls DEL before it trusts them again.
        let mut unsure: BTreeSet<u8> = BTreeSet::new();
        for event in events {
            let fused = |left| Store::new(
                directory.path().to_owned(), Fused { left: Cell::new(left) }, format!("boot{boot}"));
            match event {
                Event::Add(number, fuse) => match fused(fuse).grant(&owner(number), &sets(), &[]) {
                    Ok(grants) => {
                        prop_assert!(!model.contains_key(&number));
                        let granted = addresses(&grants);
                        for (other, held) in &model {
                            prop_assert!(granted.iter().all(|address| !held.contains(address)), "{} {:?}", other, held);
                        }
                        model.insert(number, granted);
                        unsure.remove(&number);
                    }
                    Err(StoreError::Files { .. }) if !model.contains_key(&number) => { unsure.insert(number); }
                    Err(_) => {}
                },
                Event::Del(number, fuse) => {
                    match fused(fuse).release(&owner(number)) {
                        Ok(_) => { unsure.remove(&number); }
                        Err(_) => { unsure.insert(number); }
                    }
                    model.remove(&number);
                }
                Event::Gc(valid, fuse) => {
                    let kept: Vec<Owner> = valid.iter().copied().map(owner).collect();
                    let done = fused(fuse).retain(&kept).is_ok();
                    let gone: Vec<u8> = (0..9).filter(|number| !valid.contains(number)).collect();
                    for number in gone {
                        model.remove(&number);
                        if done { unsure.remove(&number); } else { unsure.insert(number); }
                    }
                }
                Event::Reboot => {
                    boot += 1;
                    model.clear();
                    unsure.clear();
                }
            }
            for (number, held) in &model {
                prop_assert_eq!(&store(&directory, boot).held(&owner(*number)).unwrap(), held);
            }
        }
        let store = store(&directory, boot);
        for number in model.keys().chain(&unsure) {
            store.release(&owner(*number)).unwrap();
        }
        for number in 100..105 {
            store.grant(&owner(number), &sets(), &[]).unwrap();
        }
    }
}
