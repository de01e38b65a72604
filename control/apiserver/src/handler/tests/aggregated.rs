//! A real server behind this one: its API reached, found and described through this one.

use super::definitions::until;
use super::webhooks::{endpoint, service};
use super::*;
use crate::aggregation::Aggregator;
use crate::discovery::{Catalog, CustomResources, Discovery, Source};
use crate::openapi::OpenApi;
use crate::paths::Documents as _;
use crate::tasks::Tasks;
use ::extension::{Extension, GROUP, Settings, VERSIONS};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pki::{Authority, Leaf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const SERVICE: &str = "/api/v1/namespaces/default/services/things";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

struct World {
    s: Server,
    aggregator: Arc<Aggregator>,
    catalog: Arc<Catalog>,
    theirs: Extension,
    _stop: DropGuard,
}

fn things(version: &str) -> String {
    format!("/apis/{GROUP}/{version}/namespaces/default/things")
}

fn thing(name: &str) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Thing", "metadata": {"name": name}, "spec": {"size": 3}})
}

/// A server, and another behind its Service `things`, with no APIService yet.
async fn world(old: bool) -> World {
    let s = Server::start().await;
    let now = jiff::Timestamp::now();
    let front = Authority::generate("front-proxy", now).unwrap();
    let shown = front.issue(&Leaf::client("front-proxy-client", &[]), now).unwrap();
    let names = vec!["things.default.svc".to_owned()];
    let settings = Settings { names, front: front.cert_pem(), old, ..Settings::default() };
    let theirs = Extension::start(settings).await.unwrap();
    let identity = (shown.cert_pem, shown.key_pem);
    let aggregator = Aggregator::new(s.writer.clone(), Tasks::default(), identity);
    let stop = CancellationToken::new();
    aggregator.start(&stop);
    let sources: Vec<Arc<dyn Source>> =
        vec![Arc::new(CustomResources(s.registry.clone())), aggregator.clone()];
    let catalog = Arc::new(Catalog::new(sources));
    World { s, aggregator, catalog, theirs, _stop: stop.drop_guard() }
}

impl World {
    async fn register(&self, version: &str, trust: &Value) {
        let mut object = json!({"metadata": {"name": format!("{version}.{GROUP}")}, "spec": {"group": GROUP, "version": version,
            "groupPriorityMinimum": 100, "versionPriority": 10, "service": {"namespace": "default", "name": "things"}}});
        for (field, value) in trust.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        self.s.ok("POST", API_SERVICES, object).await;
    }

    /// Everything there is to an API of theirs.
    async fn aggregated(old: bool) -> Self {
        let world = world(old).await;
        service(&world.s, "things").await;
        endpoint(&world.s, "things", world.theirs.address().port()).await;
        for version in VERSIONS {
            world.register(version, &json!({"caBundle": world.theirs.bundle()})).await;
        }
        for version in VERSIONS {
            world.becomes(version, "Passed").await;
        }
        world
    }

    /// Waits until the Available condition has a reason; gives its status and message.
    async fn becomes(&self, version: &str, reason: &str) -> (String, String) {
        let path = format!("{API_SERVICES}/{version}.{GROUP}");
        let mut last = Value::Null;
        for _ in 0..1000 {
            let object = self.s.get(&path).await;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            last = conditions.into_iter().find(|c| c["type"] == "Available").unwrap_or_default();
            if last["reason"] == reason {
                let text = |field: &str| last[field].as_str().unwrap().to_owned();
                return (text("status"), text("message"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{reason}: {last}");
    }

    /// Makes the server look at its APIServices again.
    async fn touch(&self, mark: &str) {
        let labels = json!({"metadata": {"labels": {"mark": mark}}});
        assert_eq!(self.s.patch(SERVICE, "merge-patch+json", labels).await.code, 200);
    }

    /// Asks as `alice`, who says that she is root.
    async fn ask(&self, method: &str, target: &str, body: &Value) -> Response {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let context = context(method, target);
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("authorization", "Bearer hers")
            .header("x-remote-user", "root")
            .header("x-remote-group", "system:masters");
        let request = request.body(full(bytes)).unwrap();
        match self.aggregator.serve(&context, request).await {
            Ok(response) => response,
            Err(_) => panic!("{target} is not theirs"),
        }
    }

    /// The same, and all of the answer.
    async fn text(&self, method: &str, target: &str, body: &Value) -> (u16, String) {
        let response = self.ask(method, target, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Waits for an answer that begins so.
    async fn answers(&self, target: &str, code: u16, start: &str) {
        let mut last = (0, String::new());
        for _ in 0..1000 {
            last = self.text("GET", target, &Value::Null).await;
            if last.0 == code && last.1.starts_with(start) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{target}: {last:?}");
    }

    /// Their group in the one document of discovery.
    async fn discovered(&self) -> Value {
        let discovery = Discovery::new(self.catalog.clone(), String::new());
        let headers = http::HeaderMap::from_iter([(http::header::ACCEPT, AGGREGATED.parse().unwrap())]);
        let document = answer(discovery.answer("/apis", &headers).unwrap()).await.body;
        let items = document["items"].as_array().unwrap();
        items.iter().find(|group| group["metadata"]["name"] == GROUP).cloned().unwrap_or_default()
    }

    async fn is_discovered(&self, what: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            let group = self.discovered().await;
            if what(&group) {
                return group;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}", self.discovered().await);
    }
}

fn context(method: &str, target: &str) -> Context {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = crate::query::parse(query);
    let info = crate::request::parse(&method.parse().unwrap(), path, &query).unwrap();
    let user = User { name: "alice".into(), groups: vec!["g".into()], ..User::default() };
    Context { info, user, query, user_agent: "test/1".into(), ..Context::default() }
}

#[tokio::test]
async fn an_api_service_says_what_its_server_lacks() {
    let world = world(false).await;
    world.register("v1", &json!({"caBundle": world.theirs.bundle()})).await;
    let no = |message: &str| ("False".to_owned(), message.to_owned());
    let missing = world.becomes("v1", "ServiceNotFound").await;
    assert_eq!(missing, no("service/things in \"default\" is not present"));
    world.answers(&things("v1"), 503, "service unavailable\n").await;
    service(&world.s, "things").await;
    let missing = world.becomes("v1", "EndpointsNotFound").await;
    assert_eq!(missing, no("cannot find endpointslices for service/things in \"default\""));
    endpoint(&world.s, "things", world.theirs.address().port()).await;
    let passed = world.becomes("v1", "Passed").await;
    assert_eq!(passed, ("True".to_owned(), "all checks passed".to_owned()));
    let port = json!([{"op": "add", "path": "/spec/service/port", "value": 444}]);
    let path = format!("{API_SERVICES}/v1.{GROUP}");
    assert_eq!(world.s.patch(&path, "json-patch+json", port).await.code, 200);
    let missing = world.becomes("v1", "ServicePortError").await;
    assert_eq!(missing, no("service/things in \"default\" is not listening on port 444"));
}

#[tokio::test]
async fn a_request_reaches_the_other_server_as_its_author_and_nobody_else() {
    let world = World::aggregated(false).await;
    world.answers(&things("v1"), 200, "{").await;
    let (code, made) = world.text("POST", &things("v1"), &thing("a")).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((code, &made["metadata"]["annotations"]["example.windlass.dev/by"]), (201, &json!("alice")));
    let seen = world.theirs.seen(&things("v1")).pop().unwrap();
    let said = |name: &str| {
        let all = seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned());
        all.collect::<Vec<_>>()
    };
    assert_eq!((said("x-remote-user"), said("x-remote-group")), (vec!["alice".into()], vec!["g".into()]));
    assert!(said("authorization").is_empty(), "her secret is nobody else's");
    assert_eq!(said("host"), ["things.default.svc:443"]);
    let (code, refused) = world.text("GET", &format!("{}/none", things("v1")), &Value::Null).await;
    assert_eq!(code, 404, "what they refuse is refused: {refused}");
    world.answers(&things("v1alpha1"), 200, "{\"apiVersion\":\"example.windlass.dev/v1alpha1\"").await;
    // A watch goes on while the answer is read.
    let mut watch = world.ask("GET", &format!("{}?watch=true", things("v1")), &Value::Null).await.into_body();
    let mut events = Vec::new();
    while events.len() < 2 {
        let frame = tokio::time::timeout(Duration::from_secs(5), watch.frame()).await.unwrap();
        let bytes = frame.unwrap().unwrap().into_data().unwrap();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            events.push((event["type"].clone(), event["object"]["metadata"]["name"].clone()));
        }
        if events.len() == 1 {
            world.text("POST", &things("v1"), &thing("b")).await;
        }
    }
    assert_eq!(events, [(json!("ADDED"), json!("a")), (json!("ADDED"), json!("b"))]);
}

#[tokio::test]
async fn a_request_that_leaves_http_goes_through() {
    let world = World::aggregated(false).await;
    world.answers(&things("v1"), 200, "{").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let aggregator = world.aggregator.clone();
    let front = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let aggregator = aggregator.clone();
            async move {
                let context = context(request.method().as_str(), request.uri().path());
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                let response = aggregator.serve(&context, request).await;
                Ok::<_, std::convert::Infallible>(response.unwrap_or_else(|_| panic!("it is theirs")))
            }
        });
        let serving = hyper::server::conn::http1::Builder::new();
        serving.serve_connection(TokioIo::new(stream), service).with_upgrades().await.unwrap();
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {}/a/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        things("v1")
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(client.read_u8().await.unwrap());
    }
    let got = String::from_utf8(got).unwrap().to_lowercase();
    assert!(got.starts_with("http/1.1 101") && got.contains("upgrade: echo"), "{got}");
    client.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"HELLO");
    drop(client);
    front.await.unwrap();
    let seen = world.theirs.seen(&format!("{}/a/echo", things("v1"))).pop().unwrap();
    assert_eq!(seen.headers["x-remote-user"], "alice");
}

#[tokio::test]
async fn another_servers_api_is_found_and_goes_stale_with_it() {
    let world = World::aggregated(false).await;
    let both = |group: &Value| group["versions"].as_array().is_some_and(|all| all.len() == VERSIONS.len());
    let group = world.is_discovered(both).await;
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let found = &group["versions"][index];
        assert_eq!((&found["version"], &found["freshness"]), (&json!(version), &json!("Current")));
        assert_eq!(found["resources"][0]["resource"], "things");
        assert_eq!(found["resources"][0]["subresources"][0]["subresource"], "echo");
    }
    world.theirs.set_healthy(false);
    world.touch("ill").await;
    let (status, message) = world.becomes("v1", "FailedDiscoveryCheck").await;
    let ip = world.s.get(SERVICE).await["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let url = format!("https://{ip}:443/apis/{GROUP}/v1");
    let why = format!("failing or missing response from {url}: bad status from {url}: 503");
    assert_eq!((status, message), ("False".to_owned(), why));
    world.answers(&things("v1"), 503, "service unavailable\n").await;
    world.is_discovered(|group| group["versions"][0]["freshness"] == "Stale").await;
    world.theirs.set_healthy(true);
    world.touch("well").await;
    world.becomes("v1", "Passed").await;
    world.is_discovered(|group| group["versions"][0]["freshness"] == "Current").await;
    world.answers(&things("v1"), 200, "{").await;
    world.s.ok("DELETE", &format!("{API_SERVICES}/v1alpha1.{GROUP}"), Value::Null).await;
    world.is_discovered(|group| group["versions"].as_array().is_some_and(|all| all.len() == 1)).await;
}

#[tokio::test]
async fn another_server_must_not_be_believed_unless_its_authority_is() {
    let world = world(false).await;
    service(&world.s, "things").await;
    endpoint(&world.s, "things", world.theirs.address().port()).await;
    let stranger = Authority::generate("stranger", jiff::Timestamp::now()).unwrap();
    use base64::Engine as _;
    let bundle = base64::engine::general_purpose::STANDARD.encode(stranger.cert_pem());
    world.register("v1", &json!({"caBundle": bundle})).await;
    let (_, message) = world.becomes("v1", "FailedDiscoveryCheck").await;
    assert!(message.ends_with("x509: certificate signed by unknown authority"), "{message}");
    let trusting = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    let path = format!("{API_SERVICES}/v1.{GROUP}");
    assert_eq!(world.s.patch(&path, "merge-patch+json", trusting).await.code, 200);
    world.becomes("v1", "Passed").await;
    world.answers(&things("v1"), 200, "{").await;
}

/// A document of the description.
async fn described(world: &World, path: &str) -> Value {
    let openapi = OpenApi::new(world.catalog.clone());
    let (parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
    let info = crate::context::RequestInfo { path: path.to_owned(), ..Default::default() };
    let context = Context { info, ..Context::default() };
    answer(openapi.answer(&context, &parts).unwrap()).await.body
}

#[tokio::test]
async fn what_another_server_says_of_itself_stands_in_the_clusters_description() {
    for old in [false, true] {
        let world = World::aggregated(old).await;
        let known = |version: &str| world.catalog.described(GROUP, version);
        let all = || VERSIONS.map(known).iter().all(|known| known.v2.is_some() && known.v3.is_some());
        until(all).await;
        let v2 = described(&world, "/openapi/v2").await;
        let item = format!("{}/{{name}}", things("v1").replace("default", "{namespace}"));
        assert_eq!(v2["paths"][&item]["get"]["operationId"], "readThingv1");
        assert!(v2["paths"]["/version/"].is_null(), "what is not the group version's is not theirs to say");
        let size =
            &v2["definitions"]["dev.windlass.example.v1.Thing"]["properties"]["spec"]["properties"]["size"];
        assert_eq!(size["description"], "How large it is.");
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        assert!(v2["definitions"][meta]["properties"]["uid"].is_object());
        assert!(v2["definitions"][format!("{meta}_v2")]["properties"]["uid"].is_null());
        let v3 = described(&world, &format!("/openapi/v3/apis/{GROUP}/v1")).await;
        let answer = &v3["paths"][&item]["get"]["responses"]["200"]["content"]["application/json"];
        let reference = "#/components/schemas/dev.windlass.example.v1.Thing";
        assert_eq!(answer["schema"]["$ref"], reference, "old: {old}");
        let listed = described(&world, "/openapi/v3").await;
        for version in VERSIONS {
            assert!(listed["paths"][format!("apis/{GROUP}/{version}")].is_object());
        }
        let asked = world.theirs.seen("/openapi/v2").pop().unwrap();
        assert_eq!(asked.headers["x-remote-user"], "system:aggregator");
    }
}
