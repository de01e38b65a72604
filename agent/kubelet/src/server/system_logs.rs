//! `/logs/`: files and directories of the machine's logs, as Go's file server shows them.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::answer::{self, HttpResponse};
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt;

/// Bytes by which a file's type is told, as Go does.
const SNIFFED: u64 = 512;

/// Answers for `path`, which follows `/logs` and is not decoded yet.
pub async fn serve(root: Option<&Path>, path: &str) -> HttpResponse {
    let Some(root) = root else {
        return answer::refused(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.");
    };
    if path.is_empty() {
        return moved("/logs/");
    }
    let decoded = decoded(path);
    let Some(inside) = inside(&decoded) else {
        return answer::refused(StatusCode::BAD_REQUEST, "invalid URL path");
    };
    match Box::pin(found(&root.join(inside), &decoded)).await {
        Ok(answer) => answer,
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                answer::refused(StatusCode::NOT_FOUND, "404 page not found")
            }
            ErrorKind::PermissionDenied => answer::refused(StatusCode::FORBIDDEN, "403 Forbidden"),
            _ => answer::refused(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error"),
        },
    }
}

/// A path with its escapes resolved; a plus is a plus.
fn decoded(path: &str) -> String {
    let form = path.replace('+', "%2B").replace('&', "%26");
    form_urlencoded::parse(format!("path={form}").as_bytes())
        .next()
        .map(|(_, path)| path.into())
        .unwrap_or_default()
}

/// The path below the root; `None` for one that leads out of it.
fn inside(path: &str) -> Option<PathBuf> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let plain = |part: &&str| *part != ".." && !part.contains('\0');
    parts.clone().all(|part| plain(&part)).then(|| parts.collect())
}

async fn found(at: &Path, path: &str) -> std::io::Result<HttpResponse> {
    let metadata = tokio::fs::metadata(at).await?;
    let name = at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match (metadata.is_dir(), path.ends_with('/')) {
        (true, true) => listing(at).await,
        (true, false) => Ok(moved(&format!("{}/", escaped(&name)))),
        (false, true) => Ok(moved(&format!("../{}", escaped(&name)))),
        // A pipe or a device would never end.
        (false, false) if !metadata.is_file() => Ok(answer::refused(StatusCode::FORBIDDEN, "403 Forbidden")),
        (false, false) => file(at, metadata.len()).await,
    }
}

fn moved(to: &str) -> HttpResponse {
    let mut answer = answer::typed(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", "");
    if let Ok(to) = HeaderValue::try_from(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

async fn listing(at: &Path) -> std::io::Result<HttpResponse> {
    let mut entries = tokio::fs::read_dir(at).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await.is_ok_and(|t| t.is_dir()) { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let mut page =
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        let shown =
            name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        // a String takes everything
        let _ = writeln!(page, "<a href=\"{}\">{shown}</a>", escaped(&name));
    }
    page.push_str("</pre>\n");
    Ok(answer::typed(StatusCode::OK, "text/html; charset=utf-8", page))
}

/// A name as part of a URL.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'/'
            | b'$'
            | b'+'
            | b','
            | b'@' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A file as it is long now: what is appended meanwhile is the next reader's.
async fn file(at: &Path, length: u64) -> std::io::Result<HttpResponse> {
    let mut start = Vec::new();
    let mut file = tokio::fs::File::open(at).await?;
    (&mut file).take(SNIFFED.min(length)).read_to_end(&mut start).await?;
    let binary = start.iter().any(|b| matches!(b, 0..=8 | 11 | 14..=26 | 28..=31));
    let kind = if binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    let rest = file.take(length.saturating_sub(start.len() as u64));
    let stream = tokio_util::io::ReaderStream::new(std::io::Cursor::new(start).chain(rest));
    let mut answer = Response::new(StreamBody::new(stream.map_ok(hyper::body::Frame::data)).boxed_unsync());
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(root: &Path, path: &str) -> (u16, String, String) {
        let answer = serve(Some(root), path).await;
        let status = answer.status().as_u16();
        let to = answer.headers().get(LOCATION).map(|to| to.to_str().unwrap().to_owned()).unwrap_or_default();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, to, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn files_and_directories_are_shown_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("a b+c.log"), "x".repeat(2000)).unwrap();
        std::fs::write(dir.path().join("secret"), "hidden").unwrap();
        assert_eq!(get(&root, "").await.1, "/logs/");
        let (status, _, page) = get(&root, "/").await;
        assert_eq!(status, 200);
        assert!(
            page.contains("<a href=\"a%20b+c.log\">a b+c.log</a>\n<a href=\"sub/\">sub/</a>\n"),
            "{page}"
        );
        assert_eq!(get(&root, "/a%20b+c.log").await, (200, String::new(), "x".repeat(2000)));
        assert_eq!(get(&root, "/sub").await.1, "sub/");
        assert_eq!(get(&root, "/a%20b+c.log/").await.1, "../a%20b+c.log");
        assert_eq!(get(&root, "/none").await.0, 404);
        for path in ["/../secret", "/%2e%2e/secret", "/sub/../../secret", "/..%2fsecret"] {
            let (status, _, text) = get(&root, path).await;
            assert!(status == 400 && !text.contains("hidden"), "{path}: {status} {text}");
        }
        assert_eq!(serve(None, "/").await.status(), 405);
    }
}
