//! A store against the simplest thing that could be right: a map for each revision.

use crate::rig::Rig;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::{Error, Event, Expect};

#[derive(Clone, Debug)]
enum Op {
    /// Writes sent together: key, and whether the expectation is the true one.
    Put(Vec<(u8, bool)>),
    Delete(u8, bool),
    /// Lists as of a share of the history, after a key, with a limit.
    List(u8, Option<u8>, usize),
    Changes(u8),
    Compact(u8),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec((0..12u8, prop::bool::weighted(0.8)), 1..6).prop_map(Op::Put),
        3 => (0..12u8, prop::bool::weighted(0.8)).prop_map(|(k, t)| Op::Delete(k, t)),
        4 => (any::<u8>(), prop::option::of(0..12u8), 0..5usize).prop_map(|(a, k, l)| Op::List(a, k, l)),
        2 => any::<u8>().prop_map(Op::Changes),
        1 => any::<u8>().prop_map(Op::Compact),
        2 => Just(Op::Reopen),
    ]
}

type State = BTreeMap<String, (Bytes, u64, u64)>;

struct Model {
    /// The state after each revision; the first is empty.
    states: Vec<State>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }
    fn now(&self) -> &State {
        self.states.last().unwrap()
    }
    /// A revision picked by `share` of the history, at times just past either end.
    fn pick(&self, share: u8) -> u64 {
        (self.revision() + 1) * u64::from(share) / 250
    }
}

fn key(n: u8) -> String {
    format!("/registry/{}/ns/k{n:02}", if n.is_multiple_of(3) { "pods" } else { "nodes" })
}

/// `grouped`: writes sent together are committed in the order they are sent in.
async fn run(mut rig: Rig, grouped: bool, ops: Vec<Op>) {
    let mut model = Model { states: vec![State::new()], compacted: 0 };
    for (step, op) in ops.into_iter().enumerate() {
        match op {
            Op::Put(writes) => {
                // All in one group: later ones see the earlier ones, so the model goes first.
                let store = rig.store.clone();
                let mut calls = Vec::new();
                let mut wanted = Vec::new();
                for (i, (n, honest)) in writes.into_iter().enumerate() {
                    let key = key(n);
                    let current = model.now().get(&key).cloned();
                    let expect = match (&current, honest) {
                        (Some((_, _, at)), true) => Expect::At(*at),
                        (Some(_), false) => Expect::Absent,
                        (None, true) => Expect::Absent,
                        (None, false) => Expect::At(model.revision().max(1)),
                    };
                    let value = Bytes::from(format!("{step}.{i}"));
                    calls.push(store.put(&key, value.clone(), expect, None));
                    if honest {
                        let revision = model.revision() + 1;
                        let mut next = model.now().clone();
                        let create = current.map_or(revision, |c| c.1);
                        next.insert(key, (value, create, revision));
                        model.states.push(next);
                        wanted.push(Ok((create, revision)));
                    } else {
                        wanted.push(Err(current.map(|c| c.2)));
                    }
                }
                let answers = match grouped {
                    true => join_all(calls).await,
                    false => futures::stream::iter(calls).then(|call| call).collect().await,
                };
                let got: Vec<_> = answers
                    .into_iter()
                    .map(|r| match r {
                        Ok(e) => Ok((e.create_revision, e.mod_revision)),
                        Err(Error::Conflict { current, .. }) => Err(current.map(|c| c.mod_revision)),
                        Err(e) => panic!("{e}"),
                    })
                    .collect();
                assert_eq!(got, wanted);
            }
            Op::Delete(n, honest) => {
                let key = key(n);
                let current = model.now().get(&key).cloned();
                let at = current.as_ref().map_or(1, |c| if honest { c.2 } else { c.2 + 1 });
                match (rig.store.delete(&key, Expect::At(at)).await, current) {
                    (Ok((entry, revision)), Some(current)) if honest => {
                        assert_eq!((entry.value, entry.mod_revision), (current.0, current.2));
                        let mut next = model.now().clone();
                        next.remove(&key);
                        model.states.push(next);
                        assert_eq!(revision, model.revision());
                    }
                    (Err(Error::Conflict { current: got, .. }), current) if current.is_none() || !honest => {
                        assert_eq!(got.map(|g| g.value), current.map(|c| c.0));
                    }
                    (got, want) => panic!("delete {key}: {got:?}, the model has {want:?}"),
                }
            }
            Op::List(share, after, limit) => {
                let at = model.pick(share);
                let after = after.map(key);
                let got = rig.store.list("/registry/pods/", after.as_deref(), limit, Some(at)).await;
                if at > model.revision() {
                    assert!(matches!(got, Err(Error::Future { .. })), "{got:?}");
                    continue;
                }
                if at < model.compacted {
                    assert!(matches!(got, Err(Error::Compacted { .. })), "{got:?}");
                    continue;
                }
                let want: Vec<_> = model.states[at as usize]
                    .iter()
                    .filter(|(k, _)| {
                        k.starts_with("/registry/pods/") && after.as_ref().is_none_or(|a| *k > a)
                    })
                    .collect();
                let got = got.unwrap();
                let take = if limit == 0 { want.len() } else { limit.min(want.len()) };
                assert_eq!(got.remaining as usize, want.len() - take);
                assert_eq!(got.more, want.len() > take);
                assert_eq!(got.revision, at);
                assert_eq!(got.entries.len(), take);
                for (e, (k, v)) in got.entries.iter().zip(want) {
                    assert_eq!(
                        (&*e.key, &e.value, e.create_revision, e.mod_revision),
                        (k.as_str(), &v.0, v.1, v.2)
                    );
                }
            }
            Op::Changes(share) => {
                let from = model.pick(share).min(model.revision());
                let mut watch = rig.store.watch("/registry/", from).unwrap();
                if from < model.compacted {
                    assert!(matches!(watch.next().await, Some(Err(Error::Compacted { .. }))));
                    assert!(watch.next().await.is_none());
                    continue;
                }
                for revision in from + 1..=model.revision() {
                    let (before, after) =
                        (&model.states[revision as usize - 1], &model.states[revision as usize]);
                    match watch.next().await.unwrap().unwrap() {
                        Event::Put { entry, prev } => {
                            assert_eq!(entry.mod_revision, revision);
                            assert_eq!(entry.value, after[&*entry.key].0);
                            assert_eq!(prev.map(|p| p.value), before.get(&*entry.key).map(|b| b.0.clone()));
                        }
                        Event::Delete { prev, revision: at } => {
                            assert_eq!(at, revision);
                            assert_eq!(prev.value, before[&*prev.key].0);
                            assert!(!after.contains_key(&*prev.key));
                        }
                        Event::Progress { .. } => panic!("nobody asked"),
                    }
                }
            }
            Op::Compact(share) => {
                let at = model.pick(share);
                let done = rig.store.compact(at).await;
                if at > model.revision() {
                    assert!(matches!(done, Err(Error::Future { .. })));
                } else if at < model.compacted {
                    assert!(matches!(done, Err(Error::Compacted { .. })));
                } else {
                    done.unwrap();
                    model.compacted = at;
                }
            }
            Op::Reopen => rig.reopen().await,
        }
        assert_eq!(rig.store.revision(), model.revision());
    }
    for n in 0..12 {
        let got = rig.store.get(&key(n)).await.unwrap().map(|e| (e.value, e.create_revision, e.mod_revision));
        assert_eq!(got.as_ref(), model.now().get(&key(n)));
    }
}

fn block_on(what: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(what);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_embedded_store_is_its_model(ops in prop::collection::vec(op(), 1..70)) {
        block_on(run(Rig::embedded(), true, ops));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn etcd_is_its_model(ops in prop::collection::vec(op(), 1..70)) {
        block_on(async {
            if let Some(rig) = Rig::etcd().await {
                run(rig, false, ops).await;
            }
        });
    }
}
