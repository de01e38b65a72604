//! WATCH as a body: one frame an event, JSON lines or length-prefixed protobuf.

use super::negotiate::{Accept, Media, Shape};
use super::table;
use crate::context::{BoxError, Response};
use crate::registry::kind::Kind;
use crate::registry::watch::{Watch, WatchEvent};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use machinery::status::Status;
use machinery::{codec, object, schema};
use serde_json::{Value, json};

struct Stream {
    watch: Watch,
    kind: Kind,
    accept: Accept,
    include: table::Include,
    /// Columns are sent with the first table of a watch only.
    columns_sent: bool,
    ended: bool,
}

/// The answer to a watch that cannot begin where it was asked to: as upstream, a stream of one ERROR event.
pub(super) fn refusal(status: &Status, accept: &Accept) -> Result<Response, Status> {
    let frame = frame(accept.media, "ERROR", &status.to_value())?;
    let mut response = Response::new(crate::answer::body(frame));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type(accept.media)));
    Ok(response)
}

fn media_type(media: Media) -> &'static str {
    match media {
        Media::Proto => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    }
}

/// One event as its client reads it.
fn frame(media: Media, event: &str, object: &Value) -> Result<Bytes, Status> {
    match media {
        Media::Proto => {
            let object = codec::proto::encode(schema::builtin(), object).map_err(Status::internal_error)?;
            let frame = codec::proto::watch_frame(event, &object);
            let length = u32::try_from(frame.len()).map_err(Status::internal_error)?;
            let mut out = BytesMut::with_capacity(frame.len() + 4);
            out.put_u32(length);
            out.put_slice(&frame);
            Ok(out.freeze())
        }
        _ => {
            let mut out = codec::json::encode(&json!({"type": event, "object": object}));
            out.push(b'\n');
            Ok(out.into())
        }
    }
}

/// The answer that streams `watch`.
pub(super) fn response(watch: Watch, kind: Kind, accept: Accept, include: table::Include) -> Response {
    let state = Stream { watch, kind, accept, include, columns_sent: false, ended: false };
    let frames = stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let event = state.watch.next().await?;
        let frame = state.frame(event);
        Some((Ok::<_, BoxError>(Frame::data(frame)), state))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let media = HeaderValue::from_static(media_type(accept.media));
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

impl Stream {
    fn frame(&mut self, event: WatchEvent) -> Bytes {
        let encoded = match event {
            WatchEvent::Object(kind, bytes) => self.object(kind, &bytes),
            WatchEvent::Failed(status) => Err(status),
            WatchEvent::Bookmark(revision, initial) => {
                let object = self.bookmark(revision, initial);
                frame(self.accept.media, "BOOKMARK", &object)
            }
        };
        match encoded {
            Ok(bytes) => bytes,
            Err(status) => {
                self.ended = true;
                frame(self.accept.media, "ERROR", &status.to_value()).unwrap_or_default()
            }
        }
    }

    fn object(&mut self, event: &'static str, bytes: &Bytes) -> Result<Bytes, Status> {
        if self.accept.media == Media::Json && self.accept.shape == Shape::Full && self.kind.is_storage() {
            let mut out = BytesMut::with_capacity(bytes.len() + 40);
            out.put_slice(b"{\"type\":\"");
            out.put_slice(event.as_bytes());
            out.put_slice(b"\",\"object\":");
            out.put_slice(bytes);
            out.put_slice(b"}\n");
            return Ok(out.freeze());
        }
        let mut object = self.kind.decode_wire(bytes)?;
        let shaped = match self.accept.shape {
            Shape::Table(version) => {
                let meta = table::single_meta(&object);
                let mut table =
                    table::of(&self.kind, version, std::slice::from_ref(&object), meta, self.include);
                if std::mem::replace(&mut self.columns_sent, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
            Shape::Partial(version) => table::partial(version, &object),
            Shape::Full => {
                self.kind.to_client(&mut object);
                object
            }
        };
        frame(self.accept.media, event, &shaped)
    }

    fn bookmark(&self, revision: u64, initial: bool) -> Value {
        let mut bookmark = match self.accept.shape {
            Shape::Partial(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}")})
            }
            Shape::Table(_) | Shape::Full => {
                json!({"kind": self.kind.resource.kind, "apiVersion": self.kind.api_version()})
            }
        };
        bookmark["metadata"] = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial {
            object::set_annotation(&mut bookmark, "k8s.io/initial-events-end", Some("true"));
        }
        if let Shape::Table(version) = self.accept.shape {
            let meta = table::single_meta(&bookmark);
            return json!({
                "kind": "Table",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": meta,
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": bookmark}],
            });
        }
        bookmark
    }
}
