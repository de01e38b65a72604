//! The ranges of the node's pods, which the runtime is told.

use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::{Deadlines, Runtime};
use kubelet::Recorder;
use kubelet::node::{self, Reported, Sources};
use serde_json::{Value, json};
use supervise::{Scope, Supervisor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, within};
use crate::runtime::Trap;

/// Nothing takes longer, on however busy a machine.
const LONGEST: Duration = Duration::from_secs(60);

fn ranges(ranges: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "node"},
        "spec": {"podCIDRs": ranges}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_was_not_told_the_range_of_pods_must_be_told_again_and_one_that_was_must_not() {
    // The first call fails.
    let node = Node::with(Trap::Fail { act: 0, done: false });
    let socket = format!("unix://{}", node.path("socket").display());
    let runtime = Runtime::connect(&socket, Deadlines::default()).unwrap();
    let scope = Arc::new(Scope::new(&Supervisor::default(), "kubelet/", &CancellationToken::new()));
    let (_health, health) = watch::channel(node::Health::default());
    let (_reported, reported) = watch::channel(Reported::default());
    let (events, writer) = Recorder::new(Some(node.api.client()), "node");
    scope.keep(writer.task("events"));
    let config = node::Config {
        check_period: Duration::from_millis(20),
        ..node::Config::new("node", vec!["192.0.2.1".parse().unwrap()], "/".into())
    };
    let sources = Sources { runtime, health, reported, events };
    node::keep(&scope, config, node.api.client(), sources, watch::Sender::new(None));
    let told = || node.fake.log();
    node.api.put("nodes", ranges(&["10.244.1.0/24", "fd00:1::/64"]));
    let first = "use ranges 10.244.1.0/24,fd00:1::/64";
    assert!(within(LONGEST, || told() == [first, first]).await, "{:?}", told());
    // Many looks later, another one.
    let reads = node.api.asked(&http::Method::GET, "/nodes/node").len();
    assert!(within(LONGEST, || node.api.asked(&http::Method::GET, "/nodes/node").len() > reads + 3).await);
    assert_eq!(told(), [first, first]);
    node.api.put("nodes", ranges(&["10.244.2.0/24"]));
    assert!(within(LONGEST, || told().len() == 3).await);
    assert_eq!(told()[2], "use ranges 10.244.2.0/24");
    scope.stop().cancel();
    scope.ended().await;
}
