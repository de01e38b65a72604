use super::*;

fn read(rules: Value) -> Policy {
    Policy::parse(&json!({"apiVersion": API_VERSION, "kind": KIND, "rules": rules}).to_string()).unwrap()
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

/// `verb group resource/subresource namespace name`, or `verb /path`; a dash for nothing.
fn request(text: &str) -> RequestInfo {
    let words: Vec<&str> = text.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    match words.as_slice() {
        [verb, path] => RequestInfo { verb: (*verb).into(), path: (*path).into(), ..RequestInfo::default() },
        [verb, group, resource, namespace, name] => {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            RequestInfo {
                is_resource: true,
                verb: (*verb).into(),
                group: (*group).into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: (*namespace).into(),
                name: (*name).into(),
                ..RequestInfo::default()
            }
        }
        _ => panic!("{text}"),
    }
}

/// Of upstream's `checker_test.go`, and more: a rule, and which requests of user `tim` in group `humans` it means.
#[test]
fn a_rule_means_what_upstreams_means() {
    let pods = |resources: Value| json!({"resources": [{"resources": resources}]});
    let table = [
        (json!({}), vec!["get - pods default p", "get /logs"], vec![]),
        (json!({"users": ["tim"]}), vec!["get /logs"], vec![]),
        (json!({"users": ["tom"]}), vec![], vec!["get /logs", "get - pods default p"]),
        (json!({"userGroups": ["humans", "robots"]}), vec!["get /logs"], vec![]),
        (json!({"userGroups": ["robots"]}), vec![], vec!["get /logs"]),
        (json!({"users": ["tim"], "userGroups": ["robots"]}), vec![], vec!["get /logs"]),
        (json!({"verbs": ["get"]}), vec!["get - pods default p", "get /logs"], vec!["list - pods default -"]),
        (
            json!({"namespaces": ["default"]}),
            vec!["get - pods default p"],
            vec!["get - pods kube-system p", "get /logs", "get - nodes - n"],
        ),
        (
            json!({"namespaces": [""]}),
            vec!["get - nodes - n", "list - pods - -"],
            vec!["get - pods default p", "get /logs"],
        ),
        (
            json!({"nonResourceURLs": ["/logs*", "/healthz*"]}),
            vec!["get /logs", "get /logs/all", "get /healthz/etcd"],
            vec!["get /metrics", "get - pods default p"],
        ),
        (json!({"nonResourceURLs": ["*"]}), vec!["get /logs"], vec!["get - pods default p"]),
        (json!({"nonResourceURLs": ["/metrics"]}), vec!["get /metrics"], vec!["get /metrics/slis"]),
        (
            json!({"resources": [{"group": ""}]}),
            vec!["get - pods default p", "get - pods/log default p"],
            vec!["get apps deployments default d", "get /logs"],
        ),
        (
            json!({"resources": [{"group": "*"}]}),
            vec!["get apps deployments default d", "get - pods default p"],
            vec!["get /logs"],
        ),
        (
            pods(json!(["pods"])),
            vec!["get - pods default p"],
            vec!["get - pods/log default p", "get apps pods default p"],
        ),
        (
            pods(json!(["pods/log"])),
            vec!["get - pods/log default p"],
            vec!["get - pods default p", "get - pods/exec default p"],
        ),
        (
            pods(json!(["*"])),
            vec!["get - pods default p", "get - pods/log default p"],
            vec!["get apps deployments default d"],
        ),
        (
            pods(json!(["pods/*"])),
            vec!["get - pods/log default p", "get - pods default p"],
            vec!["get - nodes/proxy - n"],
        ),
        (
            pods(json!(["*/log"])),
            vec!["get - pods/log default p"],
            vec!["get - pods default p", "get - pods/exec default p"],
        ),
        (
            json!({"resources": [{"resources": ["pods", "nodes"], "resourceNames": ["p"]}]}),
            vec!["get - pods default p"],
            vec!["get - pods default q", "list - pods default -"],
        ),
        (
            json!({"resources": [{"group": "apps", "resources": ["x"]}, {"resources": ["pods"]}], "verbs": ["get"]}),
            vec!["get - pods default p"],
            vec!["delete - pods default p"],
        ),
    ];
    let tim = user("tim", &["humans"]);
    for (mut rule, meant, others) in table {
        rule["level"] = "Metadata".into();
        let policy = read(json!([rule]));
        for (requests, expected) in [(meant, Level::Metadata), (others, Level::None)] {
            for text in requests {
                let level = policy.scope(Some(&tim), &request(text)).level;
                assert_eq!(level, expected, "{rule} {text}");
            }
        }
    }
}

#[test]
fn the_first_rule_that_means_a_request_holds() {
    let policy = read(json!([
        {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"]},
        {"level": "RequestResponse", "resources": [{"resources": ["pods"]}]},
        {"level": "Metadata"},
    ]));
    let level = |name: &str, text: &str| policy.scope(Some(&user(name, &[])), &request(text)).level;
    assert_eq!(level("system:kube-proxy", "watch - pods - -"), Level::None);
    assert_eq!(level("tim", "watch - pods - -"), Level::RequestResponse);
    assert_eq!(level("tim", "get /version"), Level::Metadata);
    // Nobody is nobody's user.
    let nobody = policy.scope(None, &request("watch - pods - -")).level;
    assert_eq!(nobody, Level::RequestResponse);
}

#[test]
fn what_is_omitted_everywhere_is_omitted_by_each_rule() {
    let text = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: p}
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
  verbs: [get]
  omitStages: [Panic]
  omitManagedFields: false
- level: Request
"#;
    let policy = Policy::parse(text).unwrap();
    let scope = |text: &str| policy.scope(None, &request(text));
    let (get, list) = (scope("get /x"), scope("list /x"));
    let omitted = |scope: Scope| Stage::ALL.map(|(_, stage)| scope.omitted.contains(stage));
    assert_eq!(omitted(get), [true, false, false, true]);
    assert_eq!(omitted(list), [true, false, false, false]);
    assert_eq!((get.without_managed_fields, list.without_managed_fields), (false, true));
}

#[test]
fn what_is_wrong_is_refused_in_upstreams_words() {
    let policy = |rest: Value| {
        let mut policy = json!({"apiVersion": API_VERSION, "kind": KIND});
        policy.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Policy::parse(&policy.to_string())
    };
    let rule = |rule: Value| policy(json!({"rules": [rule]}));
    for (read, why) in [
        (policy(json!({})), "loaded illegal policy with 0 rules"),
        (policy(json!({"rules": null})), "loaded illegal policy with 0 rules"),
        (rule(json!({})), "rules[0].level: Required value"),
        (
            rule(json!({"level": "Some"})),
            r#"rules[0].level: Unsupported value: "Some": supported values: "Metadata", "None", "Request", "RequestResponse""#,
        ),
        (
            rule(json!({"level": "None", "nonResourceURLs": ["logs"]})),
            r#"rules[0].nonResourceURLs[0]: Invalid value: "logs": non-resource URL rules must begin with a '/' character"#,
        ),
        (
            rule(json!({"level": "None", "nonResourceURLs": ["/a*b"]})),
            r#"rules[0].nonResourceURLs[0]: Invalid value: "/a*b": non-resource URL wildcards '*' must be the final character of the rule"#,
        ),
        (
            rule(json!({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["x"]})),
            r#"rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#,
        ),
        (
            rule(json!({"level": "None", "resources": [{"resourceNames": ["x"]}]})),
            r#"rules[0].resources.resourceNames: Invalid value: ["x"]: using resourceNames requires at least one resource"#,
        ),
        (
            policy(json!({"rules": [{"level": "None"}], "omitStages": ["Later"]})),
            r#"omitStages[0]: Invalid value: "Later": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"#,
        ),
        (
            Policy::parse("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]"),
            r#"failed decoding: no kind "Policy" is registered for version "audit.k8s.io/v1beta1" in scheme"#,
        ),
        (Policy::parse("rules: []"), "failed decoding: couldn't get version/kind; Object 'Kind' is missing"),
    ] {
        assert_eq!(read.unwrap_err(), why);
    }
    assert!(
        rule(json!({"level": "None", "resources": [{"group": "No Group"}]}))
            .unwrap_err()
            .contains("rules[0].resources.group")
    );
    let both = rule(json!({"level": "x", "omitStages": ["y"]})).unwrap_err();
    assert!(both.starts_with('[') && both.contains(", rules[0].omitStages[0]: "), "{both}");
    assert!(rule(json!({"level": 1})).unwrap_err().starts_with("failed decoding: "));
    // An unknown field is warned of, as upstream warns of it.
    assert!(rule(json!({"level": "None", "leve": "x"})).is_ok());
}
