//! Requests that become streams: admitted by the options they were made with, then carried out by the front.

use crate::admission::{self, Attributes, Operation, Seen};
use crate::context::{Context, Request, Response};
use crate::handler::respond;
use crate::registry::call::{Call, Warnings};
use crate::registry::kind::Kind;
use crate::registry::options::WriteOptions;
use crate::write::Writer;
use machinery::object::Gvk;
use machinery::status::Status;
use serde_json::{Map, Value, json};

/// Is this subresource a stream to the node?
pub(in super::super) fn connects(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward" | "log" | "proxy")
}

/// Hands a streaming request to the front with the object it is about.
pub(in super::super) async fn connect(
    writer: &Writer,
    kind: &Kind,
    mut context: Context,
    request: Request,
) -> Result<Response, Status> {
    // The name of a proxied object may carry a scheme and a port: `https:web:8443`.
    let name = match context.info.name.split(':').collect::<Vec<_>>().as_slice() {
        [_, name, _] | [name, _] | [name] if context.info.subresource == "proxy" => (*name).to_owned(),
        _ => context.info.name.clone(),
    };
    let namespace = if kind.resource.namespaced { context.info.namespace.clone() } else { String::new() };
    let warnings = Warnings::default();
    // A log is read, not connected to.
    if context.info.subresource != "log"
        && let Some(changed) = admit(writer, kind, &context, &namespace, &warnings).await?
    {
        context.query = changed;
    }
    let target = writer.registry.read_required(kind, &namespace, &name).await?;
    let mut response = writer.registry.front()?.connect(context, request, target).await;
    respond::warn(&mut response, &warnings.lock());
    Ok(response)
}

/// Asks webhooks and policies; the query to go on with where they changed the options.
async fn admit(
    writer: &Writer,
    kind: &Kind,
    context: &Context,
    namespace: &str,
    warnings: &Warnings,
) -> Result<Option<Vec<(String, String)>>, Status> {
    let info = &context.info;
    let Some(subresource) = kind.resource.subresource(&info.subresource) else { return Ok(None) };
    let gvk = Gvk::new("", "v1", subresource.kind);
    let options = options(context, &gvk);
    let call = Call {
        context,
        kind: *kind,
        namespace: namespace.to_owned(),
        name: info.name.clone(),
        subresource: &info.subresource,
        options: WriteOptions::default(),
        warnings: warnings.clone(),
        seen: Seen::default(),
    };
    let mut attributes =
        Attributes::of_sent(&writer.admission, &call, Operation::Connect, gvk, options.clone());
    admission::sent(&writer.registry, &mut attributes).await?;
    let admitted = attributes.object.take().unwrap_or_default();
    Ok((admitted != options).then(|| query(&context.query, &admitted)))
}

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// The request's query as the object upstream decodes it to.
fn options(context: &Context, gvk: &Gvk) -> Value {
    let mut options = Map::new();
    let all = |name: &str| {
        context.query.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>()
    };
    match context.info.subresource.as_str() {
        "exec" | "attach" => {
            for flag in FLAGS {
                if matches!(context.query(flag), Some("1" | "true" | "")) {
                    options.insert(flag.to_owned(), true.into());
                }
            }
            if let Some(container) = context.query("container").filter(|c| !c.is_empty()) {
                options.insert("container".to_owned(), container.into());
            }
            let command = all("command");
            if context.info.subresource == "exec" {
                options.insert("command".to_owned(), json!(command));
            }
        }
        "portforward" => {
            let ports: Vec<i32> =
                all("ports").iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            if !ports.is_empty() {
                options.insert("ports".to_owned(), json!(ports));
            }
        }
        _ => {
            let rest = context.info.parts.get(3..).unwrap_or_default().join("/");
            options.insert("path".to_owned(), format!("/{rest}").into());
        }
    }
    let mut options = Value::Object(options);
    machinery::object::set_gvk(&mut options, gvk);
    options
}

/// The query with what `options` say in place of what it said.
fn query(before: &[(String, String)], options: &Value) -> Vec<(String, String)> {
    let known = |name: &str| FLAGS.contains(&name) || matches!(name, "container" | "command" | "ports");
    let mut query: Vec<_> = before.iter().filter(|(name, _)| !known(name)).cloned().collect();
    for (name, value) in options.as_object().into_iter().flatten().filter(|(name, _)| known(name)) {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        query.extend(
            values
                .iter()
                .map(|value| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
        );
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::RequestInfo;

    fn context(subresource: &str, url_query: &str) -> Context {
        let info = RequestInfo { subresource: subresource.into(), ..RequestInfo::default() };
        Context { info, query: crate::query::parse(url_query), ..Context::default() }
    }

    #[test]
    fn the_options_are_what_the_query_says() {
        let context = context("exec", "command=ls&command=-l&stdout=true&tty=0&container=c");
        let gvk = Gvk::new("", "v1", "PodExecOptions");
        let mut object = options(&context, &gvk);
        let expected = json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls", "-l"],
            "stdout": true, "container": "c"});
        assert_eq!(object, expected);
        object["container"] = "d".into();
        let changed = query(&context.query, &object);
        assert_eq!(options(&Context { query: changed, ..context }, &gvk), object);
    }
}
