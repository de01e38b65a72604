//! `/statusz` and `/flagz`: what runs here, and what it was told. Upstream: `apiserver/pkg/server/{statusz,flagz}`.
//!
//! A text for people, or an object of `config.k8s.io` for those who name its kind in `Accept`
//! (`application/json;as=Statusz;v=v1beta1;g=config.k8s.io`).

use super::answer::{self, HttpResponse};
use http::StatusCode;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use jiff::Timestamp;
use machinery::release::{MAJOR_MINOR as EMULATED, RELEASE as VERSION};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

const COMPONENT: &str = "kubelet";
/// The first parts of the paths that are not routed by method, as upstream lists them; `/debug` is not served.
const PATHS: [&str; 4] = ["/configz", "/flagz", "/healthz", "/metrics"];

/// In what a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json(&'static str),
    Yaml(&'static str),
}

pub(super) fn flagz(headers: &HeaderMap, flags: &BTreeMap<String, String>) -> HttpResponse {
    let text = || {
        let lines = flags.iter().map(|(name, value)| format!("{name}={value}\n"));
        heading("flagz") + &lines.collect::<String>()
    };
    let fields = || Map::from_iter([("flags".to_owned(), json!(flags))]);
    page(headers, "Flagz", text, fields)
}

/// `/statusz` of a process that started at `start`.
pub(super) fn statusz(headers: &HeaderMap, start: Timestamp, now: Timestamp) -> HttpResponse {
    let up = now.duration_since(start).as_secs().max(0);
    let compiler = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
    let text = || {
        let started = start.strftime("%a %b %e %H:%M:%S UTC %Y");
        let span = format!("{} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60);
        let mut text = heading("statusz");
        let paths = PATHS.join(" ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nStarted: {started}\nUp: {span}\nGo version: {compiler}\nBinary version: {VERSION}\n\
             Emulation version: {EMULATED}\nPaths: {paths}\n"
        );
        text
    };
    let fields = || {
        let start = Timestamp::from_second(start.as_second()).unwrap_or(start).to_string();
        let fields = [
            ("startTime", json!(start)),
            ("uptimeSeconds", json!(up)),
            ("goVersion", json!(compiler)),
            ("binaryVersion", json!(VERSION)),
            ("emulationVersion", json!(EMULATED)),
            ("paths", json!(PATHS)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    page(headers, "Statusz", text, fields)
}

fn heading(page: &str) -> String {
    format!(
        "\n{COMPONENT} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting \
         compatibility guarantees and is for debugging purposes only.\n"
    )
}

fn page(
    headers: &HeaderMap,
    kind: &str,
    text: impl FnOnce() -> String,
    fields: impl FnOnce() -> Map<String, Value>,
) -> HttpResponse {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let object = |version: &str| {
        let mut object = fields();
        object.insert("kind".to_owned(), json!(kind));
        object.insert("apiVersion".to_owned(), json!(format!("config.k8s.io/{version}")));
        object.insert("metadata".to_owned(), json!({"name": COMPONENT}));
        Value::Object(object)
    };
    let (mut answer, version) = match form(accept, kind) {
        Some(Form::Text) => return answer::text(StatusCode::OK, text()),
        Some(Form::Json(version)) => (answer::json(&object(version)), version),
        Some(Form::Yaml(version)) => {
            let written = serde_saphyr::to_string(&object(version));
            let answer = written.map_or_else(
                |error| answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                |text| answer::typed(StatusCode::OK, "application/yaml", text),
            );
            (answer, version)
        }
        None => return not_acceptable(),
    };
    if version == "v1alpha1" {
        let page = kind.to_lowercase();
        let text = format!(
            "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
        );
        answer
            .headers_mut()
            .extend(HeaderValue::from_str(&text).ok().map(|text| (http::header::WARNING, text)));
    }
    answer
}

/// The first form that is accepted, the most wanted first; `None` when there is none.
fn form(accept: &str, kind: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    let mut clauses: Vec<(f32, Vec<&str>)> = accept
        .split(',')
        .map(|clause| {
            let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
            let weight = parts.iter().find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok());
            (weight.unwrap_or(1.0), parts)
        })
        .collect();
    clauses.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    clauses.iter().find_map(|(_, parts)| {
        let parameter = |name: &str| parts.iter().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let asked = (parameter("as"), parameter("v"), parameter("g"));
        let version = match asked {
            (None, None, None) => None,
            (Some(named), Some(version @ ("v1alpha1" | "v1beta1")), Some("config.k8s.io"))
                if named == kind =>
            {
                Some(if version == "v1beta1" { "v1beta1" } else { "v1alpha1" })
            }
            _ => return None,
        };
        match (*parts.first()?, version) {
            ("text/plain" | "text/*" | "*/*", None) => Some(Form::Text),
            ("application/json" | "application/*" | "*/*", Some(version)) => Some(Form::Json(version)),
            ("application/yaml", Some(version)) => Some(Form::Yaml(version)),
            _ => None,
        }
    })
}

fn not_acceptable() -> HttpResponse {
    let mut answer = answer::json(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 406, "reason": "NotAcceptable",
        "message": "only the following media types are accepted: application/json, application/yaml, text/plain",
    }));
    *answer.status_mut() = StatusCode::NOT_ACCEPTABLE;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const JSON: &str = "application/json;as=Statusz;v=v1beta1;g=config.k8s.io";

    async fn ask(accept: &'static str) -> (u16, HeaderMap, String) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let start = Timestamp::from_second(1_767_225_600).unwrap();
        let answer = statusz(&headers, start, Timestamp::from_second(1_767_225_600 + 3725).unwrap());
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn people_get_a_text_and_programs_the_object_they_name() {
        for accept in ["", "*/*", "text/plain", "image/png, text/*;q=0.5"] {
            let (code, headers, text) = ask(accept).await;
            assert_eq!(
                (code, &headers["content-type"]),
                (200, &HeaderValue::from_static("text/plain; charset=utf-8"))
            );
            assert!(text.starts_with("\nkubelet statusz\nWarning: "), "{text}");
            assert!(
                text.contains("\nStarted: Thu Jan  1 00:00:00 UTC 2026\nUp: 1 hr 02 min 05 sec\n"),
                "{text}"
            );
        }
        let (code, headers, text) = ask(JSON).await;
        assert_eq!((code, headers.get("warning")), (200, None));
        let object: Value = serde_json::from_str(&text).unwrap();
        let want = json!({
            "kind": "Statusz", "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": "kubelet"},
            "startTime": "2026-01-01T00:00:00Z", "uptimeSeconds": 3725,
            "goVersion": concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
            "binaryVersion": "1.36.0", "emulationVersion": "1.36", "paths": PATHS,
        });
        assert_eq!(object, want);
    }

    #[tokio::test]
    async fn an_old_version_must_warn_and_a_strange_form_must_be_refused() {
        let (code, headers, _) = ask("application/json;as=Statusz;v=v1alpha1;g=config.k8s.io").await;
        assert_eq!(code, 200);
        assert!(
            headers["warning"].to_str().unwrap().starts_with("299 - \"This version of the statusz endpoint")
        );
        for accept in ["application/json", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io", "image/png"]
        {
            assert_eq!(ask(accept).await.0, 406, "{accept}");
        }
        let yaml = ask("application/yaml;as=Statusz;v=v1beta1;g=config.k8s.io").await.2;
        assert!(yaml.contains("uptimeSeconds: 3725"), "{yaml}");
    }

    #[tokio::test]
    async fn flags_are_told_by_name() {
        let flags = BTreeMap::from([
            ("root-dir".to_owned(), "/r".to_owned()),
            ("node-ip".to_owned(), "1.2.3.4".to_owned()),
        ]);
        let bytes = flagz(&HeaderMap::new(), &flags).into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.ends_with(b"\nnode-ip=1.2.3.4\nroot-dir=/r\n"));
    }
}
