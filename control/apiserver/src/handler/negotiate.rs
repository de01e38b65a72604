//! What the client wants back: media type, shape and looks.

use crate::audit::Level;
use crate::context::Context;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use machinery::status::Status;

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    Proto,
}

impl Media {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Proto => PROTOBUF,
        }
    }
}

/// What an answer is made into before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Full,
    /// `meta.k8s.io` Table, in this version.
    Table(&'static str),
    /// `meta.k8s.io` PartialObjectMetadata (or its list), in this version.
    Partial(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub media: Media,
    pub shape: Shape,
    pub pretty: bool,
    pub gzip: bool,
    /// How much of the answer the audit log wants.
    pub audit: Level,
}

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const OFFERED: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];
const OFFERED_STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// One clause of an Accept header.
fn clause(text: &str, watch: bool) -> Option<(f32, Media, Shape)> {
    let mut parts = text.split(';').map(str::trim);
    let media = match parts.next()?.to_ascii_lowercase().as_str() {
        "" | "*/*" | "application/*" | "application/json" => Media::Json,
        "application/yaml" if !watch => Media::Yaml,
        PROTOBUF => Media::Proto,
        _ => return None,
    };
    let (mut quality, mut kind, mut version, mut group) = (1.0, "", "v1", "meta.k8s.io");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q", q)) => quality = q.parse().ok()?,
            Some(("as", k)) => kind = k,
            Some(("v", v)) => version = v,
            Some(("g", g)) => group = g,
            _ => {}
        }
    }
    let version = match version {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    let shape = match (kind, group) {
        ("", _) => Shape::Full,
        // Protobuf has no form for a table's cells.
        ("Table", "meta.k8s.io") if media != Media::Proto => Shape::Table(version),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => Shape::Partial(version),
        _ => return None,
    };
    Some((quality, media, shape))
}

/// The clause a client wants most of those that are served; nothing asked for is JSON.
pub(super) fn best(
    header: &str,
    watch: bool,
    serves: impl Fn(Media, Shape) -> bool,
) -> Option<(Media, Shape)> {
    let mut best: Option<(f32, Media, Shape)> = None;
    let served = header.split(',').filter_map(|c| clause(c.trim(), watch)).filter(|c| serves(c.1, c.2));
    for candidate in served {
        if best.as_ref().is_none_or(|b| candidate.0 > b.0) {
            best = Some(candidate);
        }
    }
    best.map(|(_, media, shape)| (media, shape))
}

/// Chooses among what `serves` lets through, or 406.
pub(crate) fn accept(
    headers: &HeaderMap,
    context: &Context,
    watch: bool,
    serves: impl Fn(Media, Shape) -> bool,
) -> Result<Accept, Status> {
    let header = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some((media, shape)) = best(header, watch, serves) else {
        return Err(Status::not_acceptable(if watch { &OFFERED_STREAMS } else { &OFFERED }));
    };
    let gzip = headers
        .get(ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|e| e.split(';').next().unwrap_or_default().trim() == "gzip"));
    let pretty = pretty(context.query("pretty"), &context.user_agent);
    Ok(Accept { media, shape, pretty, gzip, audit: context.audit.level() })
}

/// Is the answer for a person's eyes?
pub(super) fn pretty(asked: Option<&str>, user_agent: &str) -> bool {
    match asked.filter(|text| !text.is_empty()) {
        Some(text) => text != "0" && text != "false",
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|b| user_agent.starts_with(b)),
    }
}

/// The media type of a request body, or 415.
pub(crate) fn content_type(header: &str) -> Result<Media, Status> {
    match header.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Proto),
        _ => Err(Status::unsupported_media_type(&OFFERED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept_header: &str) -> Result<(Media, Shape), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept_header.parse().unwrap());
        accept(&headers, &Context::default(), false, |_, _| true)
            .map(|a| (a.media, a.shape))
            .map_err(|s| s.code)
    }

    #[test]
    fn the_clients_order_and_quality_decide() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(choose(kubectl), Ok((Media::Json, Shape::Table("v1"))));
        assert_eq!(
            choose("application/vnd.kubernetes.protobuf,application/json"),
            Ok((Media::Proto, Shape::Full))
        );
        assert_eq!(choose("application/json;q=0.5, application/yaml"), Ok((Media::Yaml, Shape::Full)));
        assert_eq!(choose("text/html, */*;q=0.8"), Ok((Media::Json, Shape::Full)));
        assert_eq!(choose("text/html"), Err(406));
        assert_eq!(
            choose("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json"),
            Ok((Media::Json, Shape::Full))
        );
    }
}
