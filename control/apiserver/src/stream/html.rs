//! Links in the HTML a proxied server sends, so that they lead through the proxy. Upstream:
//! `apimachinery/pkg/util/proxy/transport.go`. Pure, but for [`body`].
//!
//! A tag is rewritten only if one of its links changes; everything else passes as it came.

use super::rewrite::Links;
use crate::context::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http_body_util::{BodyExt as _, Full, StreamBody};
use std::io::{Read, Write};

/// The longest page that is looked at; a longer one passes as it is. Counted packed and unpacked.
const LONGEST: usize = 16 * 1024 * 1024;

/// Attributes with links, by tag.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags whose content is text up to their own end tag.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// Whether a response is a page this module can read.
pub(super) fn is_page(parts: &Parts) -> bool {
    let text = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let kind = text(CONTENT_TYPE).and_then(|v| v.split(';').next()).map(str::trim);
    let packing = text(CONTENT_ENCODING).unwrap_or_default();
    kind == Some("text/html") && matches!(packing, "" | "gzip" | "deflate")
}

/// Rewrites the links of a page; one that is too long, or not packed as it says, passes as it came.
pub(super) async fn body(parts: &mut Parts, mut body: Body, links: &Links<'_>) -> Body {
    let mut page = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => page.extend_from_slice(&data),
            Ok(Err(_trailers)) => continue,
            Err(error) => {
                let read = [Ok(http_body::Frame::data(page.freeze())), Err(error)];
                return StreamBody::new(futures::stream::iter(read)).boxed_unsync();
            }
        }
        if page.len() > LONGEST {
            let begun = futures::stream::iter([Ok(http_body::Frame::data(page.freeze()))]);
            let rest = http_body_util::BodyStream::new(body);
            return StreamBody::new(futures::StreamExt::chain(begun, rest)).boxed_unsync();
        }
    }
    let packing = parts.headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some(new) = repack(packing, &page, links) else { return whole(page.freeze()) };
    parts.headers.remove(CONTENT_LENGTH);
    whole(new.into())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// `None` when nothing changes or the page cannot be read.
fn repack(packing: &str, page: &[u8], links: &Links<'_>) -> Option<Vec<u8>> {
    let unpack = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
        reader.take(limit).read_to_end(&mut out).ok().filter(|_| out.len() <= LONGEST)?;
        Some(out)
    };
    match packing {
        "gzip" => {
            let new = page_links(&unpack(&mut GzDecoder::new(page))?, links)?;
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&new).ok()?;
            encoder.finish().ok()
        }
        "deflate" => {
            let new = page_links(&unpack(&mut DeflateDecoder::new(page))?, links)?;
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&new).ok()?;
            encoder.finish().ok()
        }
        _ => page_links(page, links),
    }
}

/// The page with its links rewritten; `None` when none is.
fn page_links(page: &[u8], links: &Links<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut changed = false;
    let mut at = 0;
    while let Some(open) = find(page, at, b"<") {
        out.extend_from_slice(&page[at..open]);
        let end = if page[open..].starts_with(b"<!--") {
            find(page, open + 4, b"-->").map(|end| end + 3)
        } else if page.get(open + 1).is_some_and(u8::is_ascii_alphabetic) {
            tag_end(page, open + 1)
        } else {
            Some(open + 1)
        };
        let Some(end) = end else {
            out.extend_from_slice(&page[open..]);
            return changed.then_some(out);
        };
        let raw = &page[open..end];
        at = end;
        if page.get(open + 1).is_some_and(u8::is_ascii_alphabetic) {
            let tag = Tag::read(raw);
            match tag.rewritten(links) {
                Some(new) => {
                    changed = true;
                    out.extend_from_slice(new.as_bytes());
                }
                None => out.extend_from_slice(raw),
            }
            if RAW.contains(&tag.name.as_str()) {
                let text_end = raw_end(page, end, &tag.name);
                out.extend_from_slice(&page[end..text_end]);
                at = text_end;
            }
        } else {
            out.extend_from_slice(raw);
        }
    }
    out.extend_from_slice(&page[at..]);
    changed.then_some(out)
}

fn find(page: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    page.get(from..)?.windows(what.len()).position(|w| w == what).map(|at| from + at)
}

/// The position after a tag's `>`, which quotes may hide.
fn tag_end(page: &[u8], from: usize) -> Option<usize> {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in page.iter().enumerate().skip(from) {
        match (quote, byte) {
            (Some(open), b) if b == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') if after_equals => quote = Some(byte),
            (None, b'>') => return Some(at + 1),
            (None, _) => {}
        }
        after_equals = *byte == b'=' || (after_equals && byte.is_ascii_whitespace());
    }
    None
}

/// Where the text of an element that holds only text ends: at its end tag.
fn raw_end(page: &[u8], from: usize, name: &str) -> usize {
    let mut at = from;
    while let Some(open) = find(page, at, b"</") {
        let rest = &page[open + 2..];
        let ends = rest.get(name.len()).is_none_or(|b| !b.is_ascii_alphanumeric());
        if rest.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes())) && ends {
            return open;
        }
        at = open + 2;
    }
    page.len()
}

/// A start tag: its name in lower case, its attributes with entities undone.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
    closes_itself: bool,
}

impl Tag {
    fn read(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw.get(1..raw.len() - 1).unwrap_or_default()).into_owned();
        let closes_itself = text.ends_with('/');
        let text = text.strip_suffix('/').unwrap_or(&text);
        let (name, mut rest) =
            text.split_at(text.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(text.len()));
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
            if rest.is_empty() {
                break;
            }
            let end =
                rest.find(|c: char| c.is_whitespace() || c == '=' || c == '/').unwrap_or(rest.len()).max(1);
            let (key, after) = rest.split_at(
                rest.char_indices().map(|(i, c)| i + c.len_utf8()).find(|i| *i >= end).unwrap_or(rest.len()),
            );
            rest = after.trim_start();
            let mut value = "";
            if let Some(after) = rest.strip_prefix('=') {
                let after = after.trim_start();
                let quote = after.chars().next().filter(|c| *c == '"' || *c == '\'');
                (value, rest) = match quote {
                    Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                    None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
                };
            }
            attributes.push((key.to_ascii_lowercase(), unescape(value)));
        }
        Self { name: name.to_ascii_lowercase(), attributes, closes_itself }
    }

    fn rewritten(&self, links: &Links<'_>) -> Option<String> {
        let (_, keys) = LINKS.iter().find(|(name, _)| *name == self.name)?;
        let mut changed = false;
        let mut out = format!("<{}", self.name);
        for (key, value) in &self.attributes {
            let new = if keys.contains(&key.as_str()) { links.rewrite(value) } else { None };
            changed |= new.is_some();
            out.push_str(&format!(" {key}=\"{}\"", escape(new.as_deref().unwrap_or(value))));
        }
        out.push_str(if self.closes_itself { "/>" } else { ">" });
        changed.then_some(out)
    }
}

const ENTITIES: &[(&str, &str)] = &[
    ("&amp;", "&"),
    ("&#39;", "'"),
    ("&apos;", "'"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&#34;", "\""),
    ("&quot;", "\""),
    ("&#13;", "\r"),
];

fn unescape(mut text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    while let Some(at) = text.find('&') {
        out.push_str(&text[..at]);
        text = &text[at..];
        let known = ENTITIES.iter().find(|(entity, _)| text.starts_with(entity));
        let (entity, plain) = known.copied().unwrap_or(("&", "&"));
        out.push_str(plain);
        text = &text[entity.len()..];
    }
    out.push_str(text);
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\r' => out.push_str("&#13;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINKS_OF: Links<'static> =
        Links { prefix: "/p/proxy", authority: "10.0.0.1:80", asked: Some("localhost:8001") };

    fn page(text: &str) -> Option<String> {
        page_links(text.as_bytes(), &LINKS_OF).map(|new| String::from_utf8(new).unwrap())
    }

    #[test]
    fn links_of_the_server_lead_through_the_proxy_and_others_stay() {
        for (from, to) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/proxy/rewriteme">test</a>"#),
            (r#"<pre><a href="/x/?a=1&amp;b#c">"#, r#"<pre><a href="/p/proxy/x/?a=1&amp;b#c">"#),
            ("<IMG class='a' SRC=/i.png />", r#"<img class="a" src="/p/proxy/i.png"/>"#),
            (r#"<a href="http://10.0.0.1:80/x">"#, r#"<a href="/p/proxy/x">"#),
            (r#"<a href="https://localhost:8001/x">"#, r#"<a href="/p/proxy/x">"#),
            (r#"<form action = "/go"><b title=">" >"#, r#"<form action="/p/proxy/go"><b title=">" >"#),
            (
                r#"<script src="/s.js">"<a href='/x'>"</script><a href="/y">"#,
                r#"<script src="/p/proxy/s.js">"<a href='/x'>"</script><a href="/p/proxy/y">"#,
            ),
        ] {
            assert_eq!(page(from).as_deref(), Some(to), "{from}");
        }
        for same in [
            r#"<a href="x">"#,
            r#"<a href="http://example.com/x">"#,
            r#"<a href="//example.com/x">"#,
            r#"<a href="/p/proxy/x">"#,
            r#"<b href="/x">"#,
            "<!-- <a href='/x'> -->",
            "<style><a href='/x'></style>",
            "<a href='/x",
            "1 < 2",
        ] {
            assert_eq!(page(same), None, "{same}");
        }
    }

    #[test]
    fn packed_pages_stay_packed() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"<a href='/x'>").unwrap();
        let packed = repack("gzip", &encoder.finish().unwrap(), &LINKS_OF).unwrap();
        let mut text = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"<a href="/p/proxy/x">"#);
        assert_eq!(repack("gzip", b"not packed", &LINKS_OF), None);
    }

    proptest! {
        #[test]
        fn any_page_is_read_to_an_end_and_read_again_is_the_same(text in "[<>/=\"' a-c&;!\\-é]{0,80}") {
            if let Some(new) = page(&text) {
                prop_assert_eq!(page(&new), None);
            }
        }
    }
}
