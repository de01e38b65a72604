//! `/logs/?query=...` (`enableSystemLogQuery`): the logs of a service, from the journal or from its file. Upstream:
//! `kubelet_server_journal.go`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::answer::{self, HttpResponse};
use super::query::Query;
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

const MOST_LINES: i64 = 100_000;
const MOST_SERVICES: usize = 4;
const LONGEST_NAME: usize = 256;
/// The journal may speak this long.
const DEADLINE: Duration = Duration::from_secs(30);
const KIND: &str = "text/plain;charset=UTF-8";
const FORMATS: [&str; 7] =
    ["cat", "json", "short", "short-iso", "short-iso-precise", "short-precise", "short-unix"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum LogQuery {
    /// What the path names.
    Path,
    /// A file, by its path below the directory of logs.
    File(PathBuf),
    /// Logs of services, and what the journal is asked beside their names.
    Services { names: Vec<String>, options: Vec<String> },
}

/// Answers a query; `None`: what the path names is asked for.
pub async fn serve(root: &Path, path: &str, query: &Query) -> Option<HttpResponse> {
    match wanted(path, query) {
        Ok(LogQuery::Path) => None,
        Ok(LogQuery::File(file)) => Some(match open(root, &file) {
            Ok(_) => {
                let named = format!("/{}", file.display()).replace('%', "%25");
                Box::pin(super::system_logs::serve(Some(root), &named)).await
            }
            Err(error) => {
                let text = format!("query: Invalid value: [{:?}]: {error}", file.display().to_string());
                answer::refused(StatusCode::NOT_ACCEPTABLE, text)
            }
        }),
        Ok(LogQuery::Services { names, options }) => Some(Box::pin(of_services(root, names, options)).await),
        Err((status, faults)) => Some(answer::refused(status, aggregate(&faults))),
    }
}

/// Several errors as one text.
fn aggregate(faults: &[String]) -> String {
    match faults {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

fn invalid(field: &str, value: &str, why: &str) -> String {
    format!("{field}: Invalid value: {value:?}: {why}")
}

/// Reads and checks a query.
fn wanted(path: &str, query: &Query) -> Result<LogQuery, (StatusCode, Vec<String>)> {
    let (queries, units) = (query.all("query"), query.all("unit"));
    let (asked, mut names) = ([&queries, &units].iter().any(|l| !l.is_empty()), Vec::new());
    let (files, plain): (Vec<String>, Vec<String>) =
        queries.into_iter().partition(|q| q.contains(['/', '\\']));
    names.extend(plain.into_iter().chain(units).filter(|name| !name.trim().is_empty()));
    let mut faults = Vec::new();
    if asked && files.is_empty() && names.is_empty() {
        faults.push(invalid("unit", "", "unit cannot be empty"));
    }
    let mut time = |name: &str| {
        let text = query.get(name)?;
        let read = text.parse::<Timestamp>().ok();
        if read.is_none() {
            faults.push(invalid(name, text, "invalid time format"));
        }
        read
    };
    let (since_time, until_time) = (time("sinceTime"), time("untilTime"));
    let mut number = |names: &[&str]| {
        let (name, text) = names.iter().find_map(|name| Some((names.first()?, query.get(name)?)))?;
        let read = text.parse::<i64>().ok();
        if read.is_none() {
            faults.push(invalid(name, text, &format!("strconv.Atoi: parsing {text:?}: invalid syntax")));
        }
        read
    };
    let (boot, lines) = (number(&["boot"]), number(&["tailLines", "tail"]));
    let pattern = query.get("pattern").or_else(|| query.get("grep"));
    let (since, until, format) = (query.get("since"), query.get("until"), query.get("output"));
    if !faults.is_empty() {
        return Err((StatusCode::BAD_REQUEST, faults));
    }

    for name in &names {
        if name.len() > LONGEST_NAME {
            faults.push(invalid("query", name, &format!("length must be less than {LONGEST_NAME}")));
        } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b)) {
            faults.push(invalid("query", name, "input contains unsupported characters"));
        }
    }
    if names.len() > MOST_SERVICES {
        let many = format!("query: Too many: {}: must have at most {MOST_SERVICES} items", names.len());
        faults.push(many);
    }
    let options = since_time.is_some()
        || until_time.is_some()
        || boot.is_some()
        || lines.is_some()
        || [pattern, since, until, format].iter().any(Option::is_some);
    let of_files = |why: &str| format!("query: Invalid value: {files:?}: {why}");
    match files.len() {
        0 => {}
        _ if !names.is_empty() => faults.push(of_files("cannot specify a file and service")),
        1 if options => faults.push(of_files("cannot specify file with options")),
        1 => {}
        _ => faults.push(of_files("cannot specify more than one file")),
    }
    if let (Some(since), Some(until)) = (since_time, until_time)
        && since > until
    {
        faults.push(invalid("untilTime", &until.to_string(), "must be after `sinceTime`"));
    }
    if let Some(boot) = boot.filter(|boot| *boot > 0) {
        faults.push(format!("boot: Invalid value: {boot}: must be less than 1"));
    }
    if let Some(lines) = lines.filter(|lines| !(0..=MOST_LINES).contains(lines)) {
        faults.push(format!(
            "tailLines: Invalid value: {lines}: must be between 0 and {MOST_LINES}, inclusive"
        ));
    }
    for (name, at) in [("sinceTime", since_time), ("untilTime", until_time)] {
        if at.is_some() && (since.is_some() || until.is_some()) {
            faults.push(format!("{name}: Forbidden: `since or until` and `{name}` cannot be specified"));
        }
    }
    for (name, text) in [("since", since), ("until", until)] {
        if let Some(text) = text.filter(|text| !is_date(text)) {
            faults.push(invalid(name, text, "date must be a relative time of the form '(+|-)[0-9]+(s|m|h|d)' or a date in 'YYYY-MM-DD HH:MM:SS' form"));
        }
    }
    if let Some(format) = format.filter(|format| !FORMATS.contains(format)) {
        let known: Vec<String> = FORMATS.iter().map(|format| format!("{format:?}")).collect();
        faults.push(format!("output: Unsupported value: {format:?}: supported values: {}", known.join(", ")));
    }
    if !faults.is_empty() {
        return Err((StatusCode::NOT_ACCEPTABLE, faults));
    }
    if let Some(file) = files.into_iter().next() {
        let file = file.replace('\\', "/");
        return Ok(LogQuery::File(PathBuf::from(file.trim_start_matches('/'))));
    }
    if names.is_empty() && !matches!(path, "/journal" | "/journal/") {
        return Ok(LogQuery::Path);
    }
    let date = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut of_journal = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        of_journal.extend(value.map(|value| format!("--{name}={value}")));
    };
    add("since", since.map(str::to_owned).or_else(|| since_time.map(date)));
    add("until", until.map(str::to_owned).or_else(|| until_time.map(date)));
    add("lines", lines.map(|lines| lines.to_string()));
    add("grep", pattern.map(str::to_owned));
    add("case-sensitive", pattern.map(|_| query.flag(&["case-sensitive"]).to_string()));
    add("boot", boot.map(|boot| boot.to_string()));
    add("output", format.map(str::to_owned));
    Ok(LogQuery::Services { names, options: of_journal })
}

/// `-5m`, or `2026-01-31 08:00:00`.
fn is_date(text: &str) -> bool {
    let span = text.trim_start_matches(['+', '-']);
    let number = span.strip_suffix(['s', 'm', 'h', 'd']);
    let relative = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (relative && text.len() - span.len() <= 1)
        || jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).is_ok()
}

/// Opens what is below the root, links included.
fn open(root: &Path, file: &Path) -> std::io::Result<std::fs::File> {
    let root = std::fs::File::open(root)?;
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat2(root, file, flags, Mode::empty(), ResolveFlags::BENEATH)?.into())
}

async fn of_services(root: &Path, names: Vec<String>, options: Vec<String>) -> HttpResponse {
    let known = Command::new("journalctl").args(["--field", "_SYSTEMD_UNIT"]).kill_on_drop(true).output();
    let known = match tokio::time::timeout(DEADLINE, known).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::new(),
    };
    let (native, others): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| known.contains(&format!("{name}.service")));
    if others.is_empty() {
        return of_journal(&native, options);
    }
    if !options.is_empty() {
        let list = others.join(" ");
        return answer::typed(
            StatusCode::OK,
            KIND,
            format!(
                "\noptions present and query resolved to log files for [{list}]\ntry without specifying options\n"
            ),
        );
    }
    let parts = others.iter().map(|name| {
        let found =
            [name.clone(), format!("{name}.log"), format!("{name}/{name}.log")].into_iter().find_map(|at| {
                let file = open(root, Path::new(&at)).ok()?;
                file.metadata().is_ok_and(|m| m.is_file()).then_some(file)
            });
        let (file, text) = match found {
            Some(file) => (Some(file), String::new()),
            None => (None, format!("\nlog not found for {name}\n")),
        };
        let text = futures::stream::iter((!text.is_empty()).then(|| Ok(bytes::Bytes::from(text))));
        let bytes = file.map(|file| {
            // As long as it is now: what is appended meanwhile is the next reader's.
            let length = file.metadata().map_or(0, |m| m.len());
            tokio_util::io::ReaderStream::new(tokio::fs::File::from_std(file).take(length))
        });
        text.chain(futures::stream::iter(bytes).flatten())
    });
    streamed(futures::stream::iter(parts.collect::<Vec<_>>()).flatten())
}

/// What the journal says of services; of everything, where none is named.
fn of_journal(names: &[String], options: Vec<String>) -> HttpResponse {
    let mut command = Command::new("journalctl");
    command.args(["--utc", "--no-pager"]).args(names.iter().map(|name| format!("--unit={name}")));
    if !options.iter().any(|option| option.starts_with("--output=")) {
        command.arg("--output=short-precise");
    }
    command
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let spoken = command.spawn().ok().and_then(|mut child| {
        let (out, err) = (child.stdout.take()?, child.stderr.take()?);
        Some((child, out.chain(err)))
    });
    let Some((child, spoken)) = spoken else {
        return answer::typed(StatusCode::OK, KIND, "\nerror: journal output not available\n");
    };
    let bytes = tokio_util::io::ReaderStream::new(spoken).take_until(tokio::time::sleep(DEADLINE));
    streamed(bytes.map(move |piece| {
        // It ends with the answer.
        let _ = &child;
        piece
    }))
}

fn streamed(
    bytes: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
) -> HttpResponse {
    let mut answer = answer::typed(StatusCode::OK, KIND, "");
    *answer.body_mut() = StreamBody::new(bytes.map_ok(hyper::body::Frame::data)).boxed_unsync();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<LogQuery, (u16, String)> {
        wanted("/", &Query::new(Some(query)))
            .map_err(|(status, faults)| (status.as_u16(), aggregate(&faults)))
    }

    #[test]
    fn queries_are_read_and_refused_in_upstreams_words() {
        assert_eq!(of(""), Ok(LogQuery::Path));
        assert_eq!(of("query=/sub/a.log"), Ok(LogQuery::File("sub/a.log".into())));
        let options = vec!["--since=-5m".to_owned(), "--lines=3".to_owned()];
        assert_eq!(
            of("query=kubelet&tailLines=3&since=-5m"),
            Ok(LogQuery::Services { names: vec!["kubelet".to_owned()], options })
        );
        for (query, status, text) in [
            ("query=%20", 400, "unit: Invalid value: \"\": unit cannot be empty"),
            ("query=a&sinceTime=x", 400, "sinceTime: Invalid value: \"x\": invalid time format"),
            ("query=a;b", 406, "query: Invalid value: \"a;b\": input contains unsupported characters"),
            ("query=/a&tail=1", 406, "query: Invalid value: [\"/a\"]: cannot specify file with options"),
            (
                "query=/a&query=/b",
                406,
                "query: Invalid value: [\"/a\", \"/b\"]: cannot specify more than one file",
            ),
            ("query=a&boot=1", 406, "boot: Invalid value: 1: must be less than 1"),
            (
                "query=a&tailLines=-1",
                406,
                "tailLines: Invalid value: -1: must be between 0 and 100000, inclusive",
            ),
        ] {
            assert_eq!(of(query), Err((status, text.to_owned())), "{query}");
        }
        assert!(is_date("+10s") && is_date("2026-1-2 3:04:05") && !is_date("--5m") && !is_date("soon"));
    }

    async fn get(root: &Path, query: &str) -> (u16, String) {
        let answer = serve(root, "/", &Query::new(Some(query))).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_service_without_journal_is_read_from_its_file_and_nothing_outside_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("no-such-unit-b")).unwrap();
        std::fs::write(dir.path().join("secret"), "hidden").unwrap();
        std::fs::write(root.join("no-such-unit-a.log"), "one\n").unwrap();
        std::fs::write(root.join("no-such-unit-b/no-such-unit-b.log"), "two\n").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("no-such-unit-c")).unwrap();
        let both = get(&root, "query=no-such-unit-a&query=no-such-unit-b").await;
        assert_eq!(both, (200, "one\ntwo\n".to_owned()));
        assert_eq!(get(&root, "query=/no-such-unit-a.log").await, (200, "one\n".to_owned()));
        let none = get(&root, "query=no-such-unit-c").await;
        assert_eq!(none, (200, "\nlog not found for no-such-unit-c\n".to_owned()));
        for outside in ["query=/../secret", "query=/no-such-unit-c", "query=/absent"] {
            let (status, text) = get(&root, outside).await;
            assert!(status == 406 && !text.contains("hidden"), "{outside}: {status} {text}");
        }
    }
}
