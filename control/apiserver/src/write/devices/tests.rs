use super::*;
use serde_json::json;

fn on_node(node: &str, devices: Value) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    json!({"status": {"devices": devices, "allocation": {"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}}}})
}

#[test]
fn a_driver_must_not_speak_for_devices_of_other_nodes_by_its_own_nodes_right() {
    let account = |node: &str| User {
        name: "system:serviceaccount:d:driver".into(),
        extra: [(NODE_NAME.to_owned(), vec![node.to_owned()])].into(),
        ..User::default()
    };
    let claim = on_node("n1", json!([]));
    assert_eq!(
        driver_verbs("update", &account("n1"), &claim),
        ["associated-node:update", "arbitrary-node:update"]
    );
    assert_eq!(driver_verbs("patch", &account("n2"), &claim), ["arbitrary-node:patch"]);
    let person = User { name: "alice".into(), ..account("n1") };
    assert_eq!(driver_verbs("patch", &person, &claim), ["arbitrary-node:patch"]);
    assert_eq!(driver_verbs("patch", &account("n1"), &json!({"status": {}})), ["arbitrary-node:patch"]);
}

#[test]
fn a_device_that_is_not_touched_must_not_ask_for_its_drivers_right() {
    let device = |driver: &str, ready: bool| json!({"driver": driver, "pool": "p", "device": "d", "data": {"ready": ready}});
    let old = on_node("n", json!([device("a", true), device("b", true), device("c", true)]));
    let new = on_node("n", json!([device("a", true), device("b", false), device("e", true)]));
    assert_eq!(changed_drivers(&new, &old).into_iter().collect::<Vec<_>>(), ["b", "c", "e"]);
    assert!(changed_drivers(&old, &old).is_empty());
}
