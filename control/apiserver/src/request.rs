//! What a request is about: path, method and query to [`RequestInfo`].
//! Upstream: `apiserver/pkg/endpoints/request/requestinfo.go`.

use crate::facts::RequestInfo;
use crate::query;
use http::Method;
use machinery::fields::FieldSelector;

/// Path verbs of old that stand before the resource: `/api/v1/watch/pods`.
const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];
/// What may follow a namespace's name and still be about the namespace itself.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];
/// Subresources whose requests may last forever.
const LONG_RUNNING_SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

/// The path cannot be understood; upstream answers 500 with this text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {0}")]
pub struct UnknownPath(pub String);

/// Parses a request line. `path` is the raw path of the URL, `query` its decoded parameters.
pub fn parse(method: &Method, path: &str, query: &[(String, String)]) -> Result<RequestInfo, UnknownPath> {
    let decoded = query::decode(path).ok_or_else(|| UnknownPath(path.to_owned()))?;
    let mut info = RequestInfo { verb: method.as_str().to_lowercase(), ..RequestInfo::default() };
    let mut parts: Vec<&str> = match decoded.trim_matches('/') {
        "" => Vec::new(),
        trimmed => trimmed.split('/').collect(),
    };
    let grouped = match parts.first().copied() {
        Some("api") if parts.len() >= 3 => false,
        Some("apis") if parts.len() >= 3 => true,
        _ => {
            info.path = decoded;
            return Ok(info);
        }
    };
    info.api_prefix = parts.remove(0).to_owned();
    if grouped {
        if parts.len() < 3 {
            info.path = decoded;
            return Ok(info);
        }
        info.group = parts.remove(0).to_owned();
    }
    info.is_resource = true;
    info.version = parts.remove(0).to_owned();

    if SPECIAL_VERBS.contains(&parts[0]) {
        if parts.len() < 2 {
            return Err(UnknownPath(path.to_owned()));
        }
        info.verb = parts.remove(0).to_owned();
    } else {
        info.verb = resource_verb(method).to_owned();
    }

    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace = parts[1].to_owned();
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            parts.drain(..2);
        }
    }
    info.resource = parts[0].to_owned();
    info.name = parts.get(1).copied().unwrap_or_default().to_owned();
    if info.verb != "proxy" {
        info.subresource = parts.get(2).copied().unwrap_or_default().to_owned();
    }
    info.parts = parts.into_iter().map(str::to_owned).collect();
    info.path = decoded;

    if info.name.is_empty() && info.verb == "get" {
        info.verb = if query::flag(query, "watch") { "watch" } else { "list" }.to_owned();
        if let Some(name) = query::first(query, "fieldSelector").and_then(exact_name) {
            info.name = name;
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".to_owned();
    }
    Ok(info)
}

fn resource_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Whether the request may last forever, so that neither timeout nor in-flight limit applies.
#[must_use]
pub fn is_long_running(info: &RequestInfo) -> bool {
    if !info.is_resource {
        return info.path.starts_with("/debug/pprof/");
    }
    matches!(info.verb.as_str(), "watch" | "proxy")
        || LONG_RUNNING_SUBRESOURCES.contains(&info.subresource.as_str())
}

/// Whether the request reads only, as the in-flight limits see it.
#[must_use]
pub fn is_read_only(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "get" | "list" | "watch")
}

/// The name a list or watch asks for by `metadata.name=`, where it may stand in a path.
fn exact_name(selector: &str) -> Option<String> {
    let selector = FieldSelector::parse(selector).ok()?;
    let name = selector.required("metadata.name")?;
    let fits = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(method: &str, url: &str) -> RequestInfo {
        let (path, q) = url.split_once('?').unwrap_or((url, ""));
        parse(&method.parse().unwrap(), path, &query::parse(q)).unwrap()
    }

    /// method, url, verb, prefix, group, version, namespace, resource, subresource, name
    const RESOURCES: [(&str, &str, [&str; 8]); 26] = [
        ("GET", "/api/v1/namespaces", ["list", "api", "", "v1", "", "namespaces", "", ""]),
        ("GET", "/api/v1/namespaces/other", ["get", "api", "", "v1", "other", "namespaces", "", "other"]),
        ("GET", "/api/v1/namespaces/other/pods", ["list", "api", "", "v1", "other", "pods", "", ""]),
        ("GET", "/api/v1/namespaces/other/pods/foo", ["get", "api", "", "v1", "other", "pods", "", "foo"]),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ["get", "api", "", "v1", "other", "pods", "", "foo"]),
        ("GET", "/api/v1/pods", ["list", "api", "", "v1", "", "pods", "", ""]),
        ("HEAD", "/api/v1/pods", ["list", "api", "", "v1", "", "pods", "", ""]),
        (
            "GET",
            "/api/v1/proxy/namespaces/other/pods/foo",
            ["proxy", "api", "", "v1", "other", "pods", "", "foo"],
        ),
        (
            "GET",
            "/api/v1/proxy/namespaces/other/pods/foo/a/b",
            ["proxy", "api", "", "v1", "other", "pods", "", "foo"],
        ),
        ("GET", "/api/v1/watch/pods", ["watch", "api", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch=true", ["watch", "api", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch=false", ["list", "api", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/watch/namespaces/other/pods", ["watch", "api", "", "v1", "other", "pods", "", ""]),
        ("GET", "/api/v1/namespaces/other/pods?watch=1", ["watch", "api", "", "v1", "other", "pods", "", ""]),
        (
            "GET",
            "/api/v1/namespaces/other/pods?fieldSelector=metadata.name%3Dfoo",
            ["list", "api", "", "v1", "other", "pods", "", "foo"],
        ),
        (
            "GET",
            "/api/v1/namespaces/other/pods?watch=1&fieldSelector=metadata.name%3Dfoo%2Ca%21%3Db",
            ["watch", "api", "", "v1", "other", "pods", "", "foo"],
        ),
        (
            "GET",
            "/api/v1/namespaces/other/pods?fieldSelector=metadata.name%3Dfoo%2Fbar",
            ["list", "api", "", "v1", "other", "pods", "", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/other/pods/foo/status",
            ["get", "api", "", "v1", "other", "pods", "status", "foo"],
        ),
        (
            "PUT",
            "/api/v1/namespaces/other/finalize",
            ["update", "api", "", "v1", "other", "namespaces", "finalize", "other"],
        ),
        (
            "PUT",
            "/api/v1/namespaces/other/status",
            ["update", "api", "", "v1", "other", "namespaces", "status", "other"],
        ),
        ("POST", "/api/v1/namespaces/other/pods", ["create", "api", "", "v1", "other", "pods", "", ""]),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/other/deployments/foo",
            ["patch", "apis", "apps", "v1", "other", "deployments", "", "foo"],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/other/pods",
            ["deletecollection", "api", "", "v1", "other", "pods", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/other",
            ["delete", "api", "", "v1", "other", "namespaces", "", "other"],
        ),
        (
            "POST",
            "/api/v1/namespaces/other/pods/foo/exec",
            ["create", "api", "", "v1", "other", "pods", "exec", "foo"],
        ),
        ("GET", "/api/v1/nodes/n1/proxy/logs/", ["get", "api", "", "v1", "", "nodes", "proxy", "n1"]),
    ];

    #[test]
    fn resource_paths_read_as_upstream() {
        for (method, url, expected) in RESOURCES {
            let i = info(method, url);
            let got = [
                &i.verb,
                &i.api_prefix,
                &i.group,
                &i.version,
                &i.namespace,
                &i.resource,
                &i.subresource,
                &i.name,
            ];
            assert!(i.is_resource, "{url}");
            assert_eq!(got, expected.each_ref(), "{method} {url}");
        }
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in [
            "/",
            "/api",
            "/apis",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/version",
            "/openapi/v2",
        ] {
            let i = info("GET", path);
            assert!(!i.is_resource && i.verb == "get" && i.path == path, "{path}");
        }
    }

    #[test]
    fn a_verb_without_a_resource_is_an_error() {
        assert_eq!(
            parse(&Method::GET, "/api/v1/watch", &[]).unwrap_err().to_string(),
            "unable to determine kind and namespace from url, /api/v1/watch"
        );
    }

    #[test]
    fn proxy_paths_keep_their_parts() {
        assert_eq!(
            info("GET", "/api/v1/namespaces/a/services/s:80/proxy/x/y").parts,
            ["services", "s:80", "proxy", "x", "y"]
        );
    }

    #[test]
    fn long_running_requests_are_known() {
        for url in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/namespaces/a/pods/p/exec",
            "/api/v1/nodes/n/proxy/",
        ] {
            assert!(is_long_running(&info("GET", url)), "{url}");
        }
        assert!(!is_long_running(&info("GET", "/api/v1/pods")) && !is_long_running(&info("GET", "/healthz")));
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/[a-z%.:]{0,9}){0,8}", watch in "[a-z0-9]{0,3}", selector in ".*") {
            let q = [("watch".to_owned(), watch), ("fieldSelector".to_owned(), selector)];
            let _ = parse(&Method::GET, &path, &q);
            let _ = parse(&Method::DELETE, &path, &[]);
        }

        #[test]
        fn no_resource_path_panics(rest in "(/(namespaces|watch|proxy|pods|x|)){0,7}") {
            for prefix in ["/api/v1", "/apis/g/v1"] {
                let _ = parse(&Method::GET, &format!("{prefix}{rest}"), &[]);
            }
        }
    }
}
