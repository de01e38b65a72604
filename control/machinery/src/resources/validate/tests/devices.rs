use serde_json::{Value, json};

use super::{by_group_resource, created, subresource_update, updated};

fn claim(request: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {"devices": {"requests": [request]}}})
}

#[test]
fn a_claim_must_not_ask_for_what_no_driver_could_give() {
    let refused = |request: Value| created("resource.k8s.io", "resourceclaims", claim(request));
    let gpu = json!({"deviceClassName": "gpu.example.com"});
    assert_eq!(refused(json!({"name": "a", "exactly": gpu})), [""; 0]);
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    assert_eq!(
        refused(json!({"name": "a"})),
        [format!("spec.devices.requests[0]: Required value: {either}")]
    );
    let mut sub = gpu.clone();
    sub["name"] = json!("s");
    assert_eq!(
        refused(json!({"name": "a", "exactly": gpu, "firstAvailable": [sub]})),
        [format!("spec.devices.requests[0]: Invalid value: null: {either}, but multiple fields are set")]
    );
    assert_eq!(
        refused(
            json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com", "allocationMode": "All", "count": 2}})
        ),
        [
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"
        ]
    );
    let mut two = claim(json!({"name": "a", "exactly": gpu}));
    let again = two["spec"]["devices"]["requests"][0].clone();
    two["spec"]["devices"]["requests"].as_array_mut().unwrap().push(again);
    assert_eq!(
        created("resource.k8s.io", "resourceclaims", two),
        ["spec.devices.requests[1]: Duplicate value: \"a\""]
    );
}

#[test]
fn a_claim_must_not_change_its_mind() {
    let old = claim(json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com"}}));
    let changed = updated("resource.k8s.io", "resourceclaims", &old, |new| {
        new["spec"]["devices"]["requests"][0]["name"] = json!("b");
    });
    assert!(
        changed.len() == 1
            && changed[0].starts_with("spec: Invalid value: {")
            && changed[0].ends_with(": field is immutable"),
        "{changed:?}"
    );
}

#[test]
fn a_slice_must_not_be_reached_from_nowhere_nor_move() {
    let slice = |more: Value| {
        let mut spec = json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "s"}, "spec": spec})
    };
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let refused = |more: Value| created("resource.k8s.io", "resourceslices", slice(more));
    assert_eq!(refused(json!({"nodeName": "n", "devices": [{"name": "g"}]})), [""; 0]);
    assert_eq!(refused(json!({})), [format!("spec: Required value: {one}")]);
    assert_eq!(
        refused(json!({"nodeName": "n", "allNodes": true})),
        [format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set")]
    );
    let moved = updated("resource.k8s.io", "resourceslices", &slice(json!({"nodeName": "n"})), |new| {
        new["spec"]["nodeName"] = json!("m");
    });
    assert_eq!(moved, ["spec.nodeName: Invalid value: \"m\": field is immutable"]);
}

/// What is wrong with a status somebody writes of a claim that had `before`.
fn status(before: Value, after: Value) -> Vec<String> {
    let resource = by_group_resource("resource.k8s.io", "resourceclaims").unwrap();
    let mut old = claim(
        json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com", "count": 1, "allocationMode": "ExactCount"}}),
    );
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    (old["status"], new["status"]) = (before, after);
    subresource_update(resource, "status", &new, &old).iter().map(ToString::to_string).collect()
}

fn given(request: &str, device: &str) -> Value {
    json!({"devices": {"results": [{"request": request, "driver": "d.example.com", "pool": "p", "device": device}]}})
}

#[test]
fn a_selector_that_cannot_be_read_must_not_be_stored() {
    let refused = |expression: &str| {
        let selector = json!({"cel": {"expression": expression}});
        let wish = json!({"deviceClassName": "gpu.example.com", "selectors": [selector]});
        created("resource.k8s.io", "resourceclaims", claim(json!({"name": "a", "exactly": wish})))
    };
    for fine in [
        "device.driver == 'd.example.com'",
        "device.attributes['d.example.com'].model == 'x'",
        "device.attributes['d.example.com'].healthy",
        "device.capacity['d.example.com'].memory.compareTo(quantity('10Gi')) >= 0",
        "device.allowMultipleAllocations",
        "cel.bind(dra, device.attributes['d.example.com'], dra.one && dra.other)",
        "device.driver == 'a' ? device.attributes['d.example.com'].x : 'a'",
        "'a' in device.attributes['d.example.com'].x",
        "duration(device.attributes['d.example.com'].x) > duration('1s')",
    ] {
        assert_eq!(refused(fine), [""; 0], "{fine}");
    }
    let at = "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value:";
    for odd in ["device.", "device.nothing == 1", "noSuchName", "device.driver.noSuchFunction()"] {
        let said = refused(odd);
        assert!(
            said.len() == 1 && said[0].starts_with(&format!("{at} \"{odd}\": compilation failed: ")),
            "{said:?}"
        );
    }
    assert_eq!(refused(&loops(3)), [""; 0]);
    assert_eq!(
        refused(&loops(7)),
        [
            "spec.devices.requests[0].exactly.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"
        ]
    );
    for (text, kind) in
        [("device.driver", "string"), ("dyn(true)", "dyn"), ("device.attributes['d.example.com'].a.b", "dyn")]
    {
        let why = "must evaluate to bool or the unknown type, not";
        assert_eq!(refused(text), [format!("{at} \"{text}\": {why} {kind}")]);
    }
    assert_eq!(
        refused("matches('a', '[')"),
        [
            "spec.devices.requests[0].exactly.selectors[0].cel.expression: Internal error: program instantiation failed: \
          error parsing regexp: missing closing ]: `[`"
        ]
    );
    let class = |expression: &str| json!({"metadata": {"name": "c"}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    let bad = created("resource.k8s.io", "deviceclasses", class("device."));
    assert!(bad.len() == 1 && bad[0].starts_with("spec.selectors[0].cel.expression: "), "{bad:?}");
}

#[test]
fn a_stored_selector_must_not_stay_once_it_is_no_expression() {
    let class = |expression: &str| json!({"metadata": {"name": "c"}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    let renewed = |expression: &str| {
        updated("resource.k8s.io", "deviceclasses", &class(expression), |new| {
            new["metadata"]["labels"] = json!({"a": "b"});
        })
    };
    assert_eq!(renewed("device.driver == 'a'"), [""; 0]);
    for (stored, why) in [
        ("device.", "Invalid value"),
        ("device.driver", "must evaluate to bool"),
        ("gone(device)", "undeclared reference"),
        (&*loops(7), "Forbidden: too complex, exceeds cost limit"),
    ] {
        let found = renewed(stored);
        assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
        assert!(found[0].starts_with("spec.selectors[0].cel.expression: "), "{found:?}");
    }
    // Parameters of a driver that were there before may be of any size.
    let mut large = class("true");
    large["spec"]["config"] =
        json!([{"opaque": {"driver": "d.example.com", "parameters": {"a": "x".repeat(11_000)}}}]);
    let kept = updated("resource.k8s.io", "deviceclasses", &large, |new| {
        new["metadata"]["labels"] = json!({"a": "b"})
    });
    assert_eq!(kept, [""; 0]);
}

/// So many loops in one another; seven cost more than a selector may.
fn loops(times: usize) -> String {
    let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    (0..times).fold("true".to_owned(), |body, at| format!("{ten}.all(x{at}, {body})"))
}

#[test]
fn a_claim_must_not_name_what_it_does_not_ask_for() {
    let refused = |more: Value| {
        let mut claim = claim(json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com"}}));
        claim["spec"]["devices"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        created("resource.k8s.io", "resourceclaims", claim)
    };
    let unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    assert_eq!(
        refused(json!({"constraints": [{"requests": ["b"], "matchAttribute": "numa"}]})),
        [
            format!("spec.devices.constraints[0].requests[0]: Invalid value: \"b\": {unknown}"),
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a domain and a \
             name separated by a slash"
                .to_owned(),
        ]
    );
    let opaque = |parameters: Value| json!({"config": [{"opaque": {"driver": "d.example.com", "parameters": parameters}}]});
    assert_eq!(refused(opaque(json!({"a": 1}))), [""; 0]);
    assert_eq!(
        refused(opaque(json!([1]))),
        [
            "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"
        ]
    );
    assert_eq!(
        refused(opaque(json!({"a": "x".repeat(10 * 1024)}))),
        ["spec.devices.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"]
    );
    let tolerating = json!({"deviceClassName": "gpu.example.com", "tolerations": [{"key": "k", "operator": "Exists", "value": "v"},
        {"operator": "Like"}]});
    assert_eq!(
        created("resource.k8s.io", "resourceclaims", claim(json!({"name": "a", "exactly": tolerating}))),
        [
            "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
            "spec.devices.requests[0].exactly.tolerations[1].operator: Unsupported value: \"Like\": supported values: \"Equal\", \
             \"Exists\"",
        ]
    );
}

#[test]
fn what_was_given_must_not_change_nor_be_of_another_claim() {
    let nothing = || json!({});
    assert_eq!(status(nothing(), json!({"allocation": given("a", "g")})), [""; 0]);
    let unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    assert_eq!(
        status(nothing(), json!({"allocation": given("b", "g")})),
        [format!("status.allocation.devices.results[0].request: Invalid value: \"b\": {unknown}")]
    );
    let moved = status(json!({"allocation": given("a", "g")}), json!({"allocation": given("a", "h")}));
    assert!(
        moved.len() == 1
            && moved[0].starts_with("status.allocation: Invalid value: {")
            && moved[0].ends_with(": field is immutable"),
        "{moved:?}"
    );
    assert_eq!(
        status(nothing(), json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]})),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    let twice = json!({"resource": "pods", "name": "p", "uid": "u"});
    assert_eq!(
        status(nothing(), json!({"allocation": given("a", "g"), "reservedFor": [twice, twice]})),
        ["status.reservedFor[1]: Duplicate value: \"u\""]
    );
}

#[test]
fn a_driver_must_not_speak_of_devices_that_were_not_given() {
    let told = |device: Value| status(json!({}), json!({"allocation": given("a", "g"), "devices": [device]}));
    let device = |more: Value| {
        let mut device = json!({"driver": "d.example.com", "pool": "p", "device": "g"});
        device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        device
    };
    assert_eq!(told(device(json!({"networkData": {"ips": ["10.9.8.7/24", "2001:db8::1/64"]}}))), [""; 0]);
    assert_eq!(
        told(device(json!({"device": "h"}))),
        ["status.devices[0]: Invalid value: \"d.example.com/p/h\": must be an allocated device in the claim"]
    );
    assert_eq!(
        told(device(json!({"networkData": {"ips": ["10.9.8.7", "2001:DB8::1/64"]}}))),
        [
            "status.devices[0].networkData.ips[0]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR form, (e.g. \
             10.9.8.7/24 or 2001:db8::1/64)",
            "status.devices[0].networkData.ips[1]: Invalid value: \"2001:DB8::1/64\": must be in canonical form \
             (\"2001:db8::1/64\")",
        ]
    );
    assert_eq!(
        told(device(json!({"data": 3}))),
        ["status.devices[0].data: Invalid value: \"<value omitted>\": must be a valid JSON object"]
    );
}

#[test]
fn a_slice_must_not_hold_devices_nobody_could_choose_by() {
    let refused = |device: Value| {
        let spec = json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
            "nodeName": "n", "devices": [device]});
        created("resource.k8s.io", "resourceslices", json!({"metadata": {"name": "s"}, "spec": spec}))
    };
    let with = |attributes: Value| refused(json!({"name": "g", "attributes": attributes}));
    assert_eq!(with(json!({"model": {"string": "x"}, "d.example.com/v": {"version": "1.2.3"}})), [""; 0]);
    for (attributes, wanted) in [
        (
            json!({"a": {}}),
            "spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified",
        ),
        (
            json!({"a": {"version": "1.2"}}),
            "spec.devices[0].attributes[a].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
        ),
        (
            json!({"a": {"string": "x".repeat(65)}}),
            "spec.devices[0].attributes[a].string: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"/a": {"int": 1}}),
            "spec.devices[0].attributes: Invalid value: \"\": the domain must not be empty",
        ),
    ] {
        assert_eq!(with(attributes), [wanted]);
    }
    let many: Value =
        (0..33).map(|i| (format!("a{i}"), json!({"int": i}))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(
        with(many),
        [
            "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"
        ]
    );
    assert_eq!(
        refused(json!({"name": "g", "allNodes": true})),
        [
            "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
             `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        ]
    );
    assert_eq!(
        refused(json!({"name": "g", "bindingConditions": ["a"]})),
        [
            "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use \
             bindingConditions"
        ]
    );
    assert_eq!(
        refused(json!({"name": "g", "taints": [{"key": "k", "effect": "Never"}]})),
        [
            "spec.devices[0].taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \
             \"None\""
        ]
    );
}

#[test]
fn a_capacity_must_not_be_had_in_parts_that_do_not_add_up() {
    let refused = |shared: bool, policy: Value| {
        let capacity = json!({"memory": {"value": "10Gi", "requestPolicy": policy}});
        let device = json!({"name": "g", "allowMultipleAllocations": shared, "capacity": capacity});
        let spec = json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
            "nodeName": "n", "devices": [device]});
        created("resource.k8s.io", "resourceslices", json!({"metadata": {"name": "s"}, "spec": spec}))
    };
    let at = "spec.devices[0].capacity[memory].requestPolicy";
    let range = |more: Value| {
        let mut range = json!({"min": "1Gi", "step": "1Gi"});
        range.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"default": "2Gi", "validRange": range})
    };
    assert_eq!(refused(true, range(json!({"max": "4Gi"}))), [""; 0]);
    assert_eq!(
        refused(false, range(json!({}))),
        [format!("{at}: Forbidden: allowMultipleAllocations must be true")]
    );
    assert_eq!(
        refused(true, range(json!({"max": "20Gi"}))),
        [format!("{at}.validRange.max: Invalid value: \"20Gi\": max is larger than capacity value: 10Gi")]
    );
    assert_eq!(
        refused(true, json!({"default": "2Gi", "validValues": ["4Gi", "3Gi"]})),
        [
            format!("{at}.validValues[1]: Invalid value: \"3Gi\": values must be sorted in ascending order"),
            format!(
                "{at}.validValues: Invalid value: \"2Gi\": default value is not valid according to the requestPolicy"
            ),
        ]
    );
    assert_eq!(
        refused(true, json!({"validValues": ["4Gi"]})),
        [format!("{at}.default: Required value: required when validValues is defined")]
    );
}

#[test]
fn a_rule_must_not_taint_devices_without_a_consequence() {
    let rule = |taint: Value| json!({"metadata": {"name": "r"}, "spec": {"deviceSelector": {"pool": "p/"}, "taint": taint}});
    let said = created("resource.k8s.io", "devicetaintrules", rule(json!({"key": "k"})));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("spec.deviceSelector.pool: Invalid value: \"\": a lowercase RFC 1123 subdomain"),
        "{said:?}"
    );
    assert_eq!(said[1], "spec.taint.effect: Required value");
    let fine = json!({"metadata": {"name": "r"}, "spec": {"taint": {"key": "k", "effect": "None"}}});
    assert_eq!(created("resource.k8s.io", "devicetaintrules", fine), [""; 0]);
}
