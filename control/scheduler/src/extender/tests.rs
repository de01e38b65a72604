use super::*;
use crate::attempt::Attempt;
use crate::extended::Extended;
use crate::model::Snapshot;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use std::sync::Mutex;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An extender that answers by `answer`, of the verb and the question; and what it was asked.
fn extender(config: Config, answer: fn(&str, &Value) -> (u16, Value)) -> (Extender, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let noted = noted.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let question: Value = serde_json::from_slice(&body).unwrap();
            let (code, said) = answer(path.trim_start_matches("/x/"), &question);
            noted.lock().unwrap().push((path, question));
            let body = Body::from(said.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let config = Config { url: "http://e/x".into(), timeout: TIMEOUT, ..config };
    (Extender::for_test(config, kube::Client::new(service, "default")), asked)
}

fn pod(name: &str, priority: i32, node: Option<&str>) -> Value {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "600m", "a.b/c": "1"}}});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"containers": [container], "priority": priority},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

fn parsed(pod: &Value) -> Arc<Pod> {
    let mut pod = Pod::new(&serde_json::from_value(pod.clone()).unwrap());
    pod.requests.scalar.clear();
    Arc::new(pod)
}

/// Three nodes of one CPU, each with a pod `p-NODE` where `full`.
fn cluster(full: bool) -> (Snapshot, Raw) {
    let (raw, mut cluster) = (Raw::default(), crate::cache::Cluster::default());
    for name in ["a", "b", "c"] {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}},
        });
        cluster.set_node(NodeInfo::new(&serde_json::from_value(node.clone()).unwrap()));
        raw.set_node(name, Arc::new(node));
        if full {
            let pod = pod(&format!("p-{name}"), 0, Some(name));
            cluster.set_pod(parsed(&pod));
            raw.set_pod(&format!("p-{name}"), Arc::new(pod));
        }
    }
    (cluster.snapshot(HashMap::new()), raw)
}

async fn attempt(extenders: &[&Extender], full: bool) -> Result<Attempt, String> {
    let (snapshot, raw) = cluster(full);
    let pod = pod("new", 10, None);
    raw.set_pod("new", Arc::new(pod.clone()));
    let extended = Extended { extenders: extenders.to_vec(), raw: &raw };
    extended.attempt(&snapshot, &parsed(&pod), 1).await
}

fn placed(outcome: Result<Attempt, String>) -> String {
    match outcome.unwrap() {
        Attempt::Placed(node) => node,
        other => panic!("{other:?}"),
    }
}

fn filters(cached: bool) -> Config {
    Config { filter: "filter".into(), cached, ..Config::default() }
}

#[tokio::test]
async fn a_node_that_an_extender_refuses_must_not_get_the_pod() {
    // One that knows nodes by name, with names of fields in another case, and one that wants whole nodes.
    let (named, asked) =
        extender(filters(true), |_, _| (200, json!({"nodenames": ["b", "c"], "failedNodes": {"a": "no"}})));
    let (whole, wholly) = extender(filters(false), |verb, question| {
        assert_eq!(verb, "filter");
        let items = question["Nodes"]["items"].as_array().unwrap().clone();
        (
            200,
            json!({"Nodes": {"items": items.into_iter().filter(|n| n["metadata"]["name"] != "b").collect::<Vec<_>>()}}),
        )
    });
    assert_eq!(placed(attempt(&[&named, &whole], false).await), "c");
    let (path, question) = asked.lock().unwrap()[0].clone();
    assert_eq!(
        (path.as_str(), &question["NodeNames"], &question["Nodes"]),
        ("/x/filter", &json!(["a", "b", "c"]), &Value::Null)
    );
    assert_eq!(question["Pod"]["metadata"]["name"], "new");
    assert_eq!(wholly.lock().unwrap()[0].1["Nodes"]["items"].as_array().unwrap().len(), 2);
    let (none, _) = extender(filters(true), |_, _| {
        (
            200,
            json!({"NodeNames": [], "FailedNodes": {"a": "x"}, "FailedAndUnresolvableNodes": {"b": "y", "c": "y"}}),
        )
    });
    let Attempt::Failed { error, .. } = attempt(&[&none], false).await.unwrap() else { panic!("placed") };
    assert!(error.to_string().starts_with("0/3 nodes are available: 1 x, 2 y."), "{error}");
    assert_eq!(error.plugins(), [Plugin::Extender]);
}

type Answer = fn(&str, &Value) -> (u16, Value);

#[tokio::test]
async fn an_extender_that_fails_must_not_be_passed_over_unless_it_may_be() {
    let answers: [Answer; 3] = [
        |_, _| (500, Value::Null),
        |_, _| (200, json!({"Error": "down"})),
        |_, _| (200, json!({"NodeNames": ["nowhere"]})),
    ];
    let texts = [
        "failed filter with extender at URL http://e/x/filter, code 500",
        "down",
        "extender \"http://e/x\" claims a filtered node \"nowhere\" which is not found in the input node list",
    ];
    for (answer, text) in answers.into_iter().zip(texts) {
        assert_eq!(attempt(&[&extender(filters(true), answer).0], false).await.unwrap_err(), text);
        let ignorable = Config { ignorable: true, ..filters(true) };
        placed(attempt(&[&extender(ignorable, answer).0], false).await);
    }
}

#[tokio::test]
async fn an_extenders_scores_count_by_its_weight() {
    let scores = Config { prioritize: "p".into(), weight: 100, cached: true, ..Config::default() };
    let (one, _) = extender(scores.clone(), |_, _| {
        (200, json!([{"Host": "b", "Score": 10}, {"host": "c", "score": 1}]))
    });
    assert_eq!(placed(attempt(&[&one], false).await), "b");
    let (failing, asked) = extender(scores, |_, _| (500, Value::Null));
    placed(attempt(&[&failing], false).await);
    assert_eq!(asked.lock().unwrap().len(), 1, "scores are done without");
}

#[tokio::test]
async fn victims_must_not_go_where_an_extender_refuses() {
    let config = Config { preempt: "preempt".into(), cached: true, ..Config::default() };
    let (one, asked) = extender(config.clone(), |_, question| {
        let only = question["NodeNameToMetaVictims"]["b"].clone();
        (200, json!({"NodeNameToMetaVictims": {"b": only}}))
    });
    let Attempt::Failed { nominate, victims, .. } = attempt(&[&one], true).await.unwrap() else {
        panic!("placed")
    };
    assert_eq!((nominate.as_deref(), victims[0].name.as_str()), (Some("b"), "p-b"));
    assert_eq!(asked.lock().unwrap()[0].1["NodeNameToMetaVictims"].as_object().unwrap().len(), 3);
    let (nobody, _) = extender(config.clone(), |_, _| (200, json!({"NodeNameToMetaVictims": {}})));
    let Attempt::Failed { nominate, victims, .. } = attempt(&[&nobody], true).await.unwrap() else {
        panic!("placed")
    };
    assert!(nominate.is_none() && victims.is_empty());
    let (wrong, _) =
        extender(config, |_, _| (200, json!({"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "p-b"}]}}})));
    assert!(attempt(&[&wrong], true).await.unwrap_err().contains("the pod is not found on that node"));
    let whole = Config { preempt: "preempt".into(), ..Config::default() };
    let (whole, asked) =
        extender(whole, |_, _| (200, json!({"NodeNameToMetaVictims": {"c": {"Pods": [{"UID": "p-c"}]}}})));
    let Attempt::Failed { nominate, .. } = attempt(&[&whole], true).await.unwrap() else { panic!("placed") };
    assert_eq!(nominate.as_deref(), Some("c"));
    assert_eq!(asked.lock().unwrap()[0].1["NodeNameToVictims"]["a"]["Pods"][0]["metadata"]["name"], "p-a");
}

#[tokio::test]
async fn an_extender_binds_and_is_asked_about_its_pods_only() {
    let config =
        Config { bind: "bind".into(), managed: BTreeSet::from(["a.b/c".to_owned()]), ..Config::default() };
    let (one, asked) = extender(config, |_, question| match question["Node"] == "a" {
        true => (200, json!({})),
        false => (200, json!({"error": "no"})),
    });
    let new = pod("new", 0, None);
    let raw = Raw::default();
    raw.set_pod("new", Arc::new(new.clone()));
    raw.set_pod("plain", Arc::new(json!({"spec": {"containers": [{"name": "c"}]}})));
    assert!(one.is_interested(&raw, "new") && !one.is_interested(&raw, "plain"));
    one.bind(&parsed(&new), "a").await.unwrap();
    assert_eq!(one.bind(&parsed(&new), "b").await.unwrap_err(), "no");
    let wanted = json!({"PodName": "new", "PodNamespace": "n", "PodUID": "new", "Node": "a"});
    assert_eq!(asked.lock().unwrap()[0], ("/x/bind".to_owned(), wanted));
}
