//! `/metrics`: the process and the kubelet, under upstream's names, in Prometheus' text format.

use super::answer::{self, HttpResponse};
use super::pods::View;
use crate::meters::Meters;
use crate::stats::collect::{Measured, boot_time};
use cri_proto::client::Runtime;
use cri_proto::v1::{ContainerState, PodSandboxState};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use supervise::Supervisor;

pub mod volumes;

/// Bytes of a page; the clock ticks of `/proc` are hundredths of a second wherever Linux runs.
const PAGE: u64 = 4096;
const TICKS: f64 = 100.0;

/// What is counted of one port.
#[derive(Debug)]
pub struct Metrics {
    /// `readwrite` or `readonly`.
    server: &'static str,
    /// Which features are on, as text.
    gates: String,
    /// By method, path, and whether they may last.
    requests: Mutex<BTreeMap<(&'static str, &'static str, bool), u64>>,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(server: &'static str, gates: String) -> Self {
        Self { server, gates, requests: Mutex::default() }
    }

    /// Counts a request, and gives the labels it is counted by. Paths are counted by their first part, and strange ones as `other`: clients choose paths.
    pub fn request(&self, method: &Method, path: &str) -> String {
        const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        const LASTING: [&str; 3] = ["exec", "attach", "portForward"];
        const KNOWN: &[&str] = &[
            "attach",
            "checkpoint",
            "configz",
            "containerLogs",
            "exec",
            "flagz",
            "healthz",
            "logs",
            "metrics",
            "pods",
            "portForward",
            "run",
            "runningpods",
            "stats",
            "statusz",
        ];
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let known = |list: &[&'static str], word: &str| list.iter().copied().find(|known| *known == word);
        let path = known(KNOWN, first).unwrap_or("other");
        let method = known(&METHODS, method.as_str()).unwrap_or("other");
        let lasting = LASTING.contains(&path);
        *self.requests.lock().entry((method, path, lasting)).or_default() += 1;
        self.labels(method, path, lasting)
    }

    fn labels(&self, method: &str, path: &str, lasting: bool) -> String {
        let server = self.server;
        format!("{{long_running=\"{lasting}\",method={method:?},path={path:?},server_type={server:?}}}")
    }

    /// Answers with everything.
    pub async fn serve(
        &self,
        node: &str,
        views: &[View],
        runtime: &Runtime,
        tasks: &Supervisor,
        (measured, meters): (&Measured, &Meters),
    ) -> HttpResponse {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.render(&mut out, node, views);
        let _ = process(&mut out);
        let _ = meters.write(&mut out);
        let _ = volumes::write(&mut out, measured);
        let _ = supervise::metrics::write(&mut out, tasks);
        out.push_str(&self.gates);
        let _ = family(
            &mut out,
            "windlass_unreadable_objects_total",
            "counter",
            "Objects of the API that could not be read, once a version.",
            &[(String::new(), client::decode::unreadable() as f64)],
        );
        match tokio::join!(
            runtime.list_pod_sandboxes(HashMap::new()),
            runtime.list_containers(HashMap::new())
        ) {
            (Ok(sandboxes), Ok(containers)) => {
                let ready =
                    sandboxes.iter().filter(|s| s.state == PodSandboxState::SandboxReady as i32).count();
                let mut states: BTreeMap<&str, usize> = BTreeMap::new();
                for container in &containers {
                    *states.entry(state(container.state)).or_default() += 1;
                }
                let states: Vec<_> = states
                    .into_iter()
                    .map(|(s, n)| (format!("{{container_state=\"{s}\"}}"), n as f64))
                    .collect();
                let _ = family(
                    &mut out,
                    "kubelet_running_pods",
                    "gauge",
                    "Number of pods that have a running pod sandbox",
                    &[(String::new(), ready as f64)],
                );
                let _ = family(
                    &mut out,
                    "kubelet_running_containers",
                    "gauge",
                    "Number of containers currently running",
                    &states,
                );
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "count what runs"),
        }
        answer::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out)
    }

    fn render(&self, out: &mut String, node: &str, views: &[View]) -> std::fmt::Result {
        let one = |labels: String, value: f64| [(labels, value)];
        family(
            out,
            "kubelet_node_name",
            "gauge",
            "The node's name. The count is always 1.",
            &one(format!("{{node={node:?}}}"), 1.0),
        )?;
        let version = crate::node::KUBELET_VERSION;
        let build = format!(
            "{{git_version={version:?},major=\"1\",minor=\"36\",platform=\"linux/{}\"}}",
            std::env::consts::ARCH
        );
        family(
            out,
            "kubernetes_build_info",
            "gauge",
            "A metric with a constant '1' value labeled by version.",
            &one(build, 1.0),
        )?;
        let (statics, others): (Vec<&View>, Vec<&View>) = views.iter().partition(|view| is_static(view));
        let desired = [("true", statics.len()), ("false", others.len())];
        let desired: Vec<_> =
            desired.into_iter().map(|(s, n)| (format!("{{static=\"{s}\"}}"), n as f64)).collect();
        family(
            out,
            "kubelet_desired_pods",
            "gauge",
            "The number of pods the kubelet is being instructed to run.",
            &desired,
        )?;
        let requests: Vec<_> = self
            .requests
            .lock()
            .iter()
            .map(|((method, path, lasting), count)| (self.labels(method, path, *lasting), *count as f64))
            .collect();
        family(
            out,
            "kubelet_http_requests_total",
            "counter",
            "Number of the http requests received since the server started",
            &requests,
        )
    }
}

fn is_static(view: &View) -> bool {
    let annotations = view.pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get("kubernetes.io/config.source")).is_some_and(|source| source != "api")
}

fn state(state: i32) -> &'static str {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "created",
        Ok(ContainerState::ContainerRunning) => "running",
        Ok(ContainerState::ContainerExited) => "exited",
        _ => "unknown",
    }
}

pub(super) fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    series: &[(String, f64)],
) -> std::fmt::Result {
    if series.is_empty() {
        return Ok(());
    }
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    series.iter().try_for_each(|(labels, value)| writeln!(out, "{name}{labels} {value}"))
}

/// What the kernel says of this process; what it does not say is left out.
fn process(out: &mut String) -> std::fmt::Result {
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| match value {
        Some(value) => family(out, name, kind, help, &[(String::new(), value)]),
        None => Ok(()),
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, which may hold anything, ends at the last parenthesis.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
    gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu)?;
    let resident = field(24).map(|pages| pages * PAGE as f64);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)?;
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23))?;
    let boot = boot_time().map(|boot| boot.as_second() as f64);
    let start = field(22).zip(boot).map(|(ticks, boot)| boot + ticks / TICKS);
    gauge(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        start,
    )?;
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_upstream_counts_them_by() {
        let metrics = Metrics::new("readwrite", String::new());
        for (method, path) in
            [(Method::GET, "/exec/n/p/c"), (Method::GET, "/exec/x"), (Method::POST, "/strange")]
        {
            metrics.request(&method, path);
        }
        let mut out = String::new();
        metrics.render(&mut out, "node", &[]).unwrap();
        let lines: Vec<&str> = out.lines().filter(|l| l.starts_with("kubelet_http_requests_total")).collect();
        assert_eq!(
            lines,
            [
                "kubelet_http_requests_total{long_running=\"true\",method=\"GET\",path=\"exec\",server_type=\"readwrite\"} 2",
                "kubelet_http_requests_total{long_running=\"false\",method=\"POST\",path=\"other\",server_type=\"readwrite\"} 1",
            ]
        );
    }
}
