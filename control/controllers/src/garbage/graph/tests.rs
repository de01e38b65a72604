use super::*;

fn identity(uid: &str, kind: &str, namespace: &str) -> Identity {
    Identity {
        api_version: "apps/v1".into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: format!("name-{uid}"),
        uid: uid.into(),
    }
}

fn node(uid: &str, owners: &[(&str, bool)]) -> Node {
    let owner = |(uid, blocks): &(&str, bool)| Owner {
        uid: (*uid).into(),
        api_version: "apps/v1".into(),
        kind: "ReplicaSet".into(),
        name: format!("name-{uid}"),
        blocks: *blocks,
    };
    Node {
        identity: identity(uid, "ReplicaSet", "default"),
        version: "1".into(),
        owners: owners.iter().map(owner).collect(),
        deleting: false,
        foreground: false,
        orphan: false,
    }
}

fn elsewhere(uid: &str, owners: &[(&str, bool)]) -> Node {
    Node { identity: identity(uid, "ReplicaSet", "elsewhere"), ..node(uid, owners) }
}

#[test]
fn dependents_are_woken_when_their_owner_goes() {
    let mut graph = Graph::default();
    assert_eq!(graph.observe(node("owner", &[])), Outcome::default());
    assert_eq!(graph.observe(node("child", &[("owner", true)])), Outcome::default(), "its owner is there");
    let gone = graph.remove("owner");
    assert_eq!((gone.woken, gone.absent), (vec!["child".to_owned()], Some(node("owner", &[]).identity)));
    assert_eq!(graph.observe(node("late", &[("owner", true)])).woken, ["late"], "its owner is not known");
}

#[test]
fn a_waiting_owner_is_woken_by_its_last_dependent() {
    let mut graph = Graph::default();
    graph.observe(node("owner", &[]));
    graph.observe(node("child", &[("owner", true)]));
    let waiting = Node { deleting: true, foreground: true, ..node("owner", &[]) };
    assert_eq!(graph.observe(waiting).woken, ["owner"]);
    assert_eq!(graph.remove("child").woken, ["owner"]);
    assert!(graph.dependents("owner").is_empty());
}

#[test]
fn a_circle_is_seen_and_its_owner_woken_once_it_is_open() {
    let mut graph = Graph::default();
    for (uid, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
        graph.observe(node(uid, &[(owner, true)]));
    }
    let last = graph.get("c").unwrap();
    assert!(!closes_a_circle(&last, &graph.dependents("c")));
    for (uid, owner) in [("a", "c"), ("b", "a")] {
        graph.observe(Node { deleting: true, foreground: true, ..node(uid, &[(owner, true)]) });
    }
    assert!(closes_a_circle(&last, &graph.dependents("c")));
    let opened = node("c", &[("b", false)]);
    assert!(!closes_a_circle(&opened, &graph.dependents("c")));
    assert!(graph.observe(opened).woken.contains(&"b".to_owned()), "its owner may go now");
}

#[test]
fn an_object_that_a_list_no_longer_shows_is_gone() {
    let mut graph = Graph::default();
    graph.observe(node("a", &[]));
    graph.observe(node("b", &[("a", false)]));
    let kind = ("apps".to_owned(), "ReplicaSet".to_owned());
    assert_eq!(graph.keep_only(&kind, &HashSet::from(["b".to_owned()])), ["b"]);
    assert!(graph.get("a").is_none());
}

#[test]
fn a_dependent_elsewhere_is_looked_at_and_reported_whichever_is_seen_first() {
    let misplaced = |outcome: Outcome| -> Vec<String> {
        assert_eq!(outcome.woken, ["child"]);
        outcome.misplaced.into_iter().map(|(dependent, _)| dependent.identity.uid).collect()
    };
    let mut graph = Graph::default();
    graph.observe(node("owner", &[]));
    assert_eq!(misplaced(graph.observe(elsewhere("child", &[("owner", true)]))), ["child"]);
    let again = graph.observe(elsewhere("child", &[("owner", true)]));
    assert_eq!((again.woken, again.misplaced), (vec!["child".to_owned()], Vec::new()), "reported once");

    let mut graph = Graph::default();
    graph.observe(elsewhere("child", &[("owner", true)]));
    graph.observe(node("true-child", &[("owner", true)]));
    assert_eq!(misplaced(graph.observe(node("owner", &[]))), ["child"]);
}

#[test]
fn a_dependent_naming_another_kind_of_this_uid_is_looked_at_without_a_report() {
    let mut graph = Graph::default();
    graph.observe(node("child", &[("owner", true)]));
    let seen = Node { identity: identity("owner", "Deployment", "default"), ..node("owner", &[]) };
    let outcome = graph.observe(seen);
    assert_eq!((outcome.woken, outcome.misplaced), (vec!["child".to_owned()], Vec::new()));
}
