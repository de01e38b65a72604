//! Paths of the port.

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/healthz`, or one of its checks.
    Health(&'a str),
    Pods,
    Configz,
    Statusz,
    Flagz,
    Metrics,
    ResourceMetrics,
    /// `/metrics/cadvisor`
    ContainerMetrics,
    ProbeMetrics,
    /// `/metrics/slis`
    Indicators,
    /// `/stats/summary`
    Summary,
    /// `/containerLogs/NAMESPACE/POD/CONTAINER`
    ContainerLogs {
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    },
    /// `/checkpoint/NAMESPACE/POD/CONTAINER`
    Checkpoint {
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    },
    RunningPods,
    /// `/logs/PATH`: the machine's own, by the path below their directory.
    SystemLogs(&'a str),
    /// `/exec`, `/attach` and `/run`, by `NAMESPACE/POD[/UID]/CONTAINER`.
    Container {
        /// What to do in it.
        action: Action,
        target: Target<'a>,
        container: &'a str,
    },
    /// `/portForward/NAMESPACE/POD[/UID]`
    PortForward(Target<'a>),
    Unknown,
}

/// What is done in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A command with streams.
    Exec,
    /// The container's own streams.
    Attach,
    /// A command whose output is the answer.
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    /// Its UID, when it must be that one.
    pub uid: Option<&'a str>,
}

impl<'a> Route<'a> {
    pub fn of(path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix("/logs")
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return Self::SystemLogs(rest);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        if parts.iter().skip(1).any(|part| part.is_empty()) {
            return Self::Unknown;
        }
        let container = |action, rest: &[&'a str]| match *rest {
            [namespace, pod, container] => {
                Self::Container { action, target: Target { namespace, pod, uid: None }, container }
            }
            [namespace, pod, uid, container] => {
                Self::Container { action, target: Target { namespace, pod, uid: Some(uid) }, container }
            }
            _ => Self::Unknown,
        };
        match parts.as_slice() {
            ["healthz", ..] => {
                let check = path.trim_start_matches('/').strip_prefix("healthz").unwrap_or_default();
                Self::Health(check.trim_matches('/'))
            }
            ["pods"] => Self::Pods,
            ["runningpods"] => Self::RunningPods,
            ["configz"] => Self::Configz,
            ["statusz"] => Self::Statusz,
            ["flagz"] => Self::Flagz,
            ["metrics"] => Self::Metrics,
            ["metrics", "resource"] => Self::ResourceMetrics,
            ["metrics", "cadvisor"] => Self::ContainerMetrics,
            ["metrics", "probes"] => Self::ProbeMetrics,
            ["metrics", "slis"] => Self::Indicators,
            ["stats", "summary"] => Self::Summary,
            &["containerLogs", namespace, pod, container] => {
                Self::ContainerLogs { namespace, pod, container }
            }
            &["checkpoint", namespace, pod, container] => Self::Checkpoint { namespace, pod, container },
            ["exec", rest @ ..] => container(Action::Exec, rest),
            ["attach", rest @ ..] => container(Action::Attach, rest),
            ["run", rest @ ..] => container(Action::Run, rest),
            &["portForward", namespace, pod] => Self::PortForward(Target { namespace, pod, uid: None }),
            &["portForward", namespace, pod, uid] => {
                Self::PortForward(Target { namespace, pod, uid: Some(uid) })
            }
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let target = |uid| Target { namespace: "n", pod: "p", uid };
        for (path, want) in [
            ("/healthz", Route::Health("")),
            ("/healthz/syncloop", Route::Health("syncloop")),
            ("/healthz/watch/pods/", Route::Health("watch/pods")),
            ("/pods/", Route::Pods),
            ("/containerLogs/n/p/c", Route::ContainerLogs { namespace: "n", pod: "p", container: "c" }),
            ("/containerLogs/n/p/", Route::Unknown),
            ("/checkpoint/n/p/c", Route::Checkpoint { namespace: "n", pod: "p", container: "c" }),
            ("/checkpoint/n/p", Route::Unknown),
            ("/exec/n/p/c", Route::Container { action: Action::Exec, target: target(None), container: "c" }),
            (
                "/attach/n/p/u/c",
                Route::Container { action: Action::Attach, target: target(Some("u")), container: "c" },
            ),
            ("/portForward/n/p/u", Route::PortForward(target(Some("u")))),
            ("/exec/n//c", Route::Unknown),
            ("/logs/x", Route::SystemLogs("/x")),
            ("/logs", Route::SystemLogs("")),
            ("/logsx", Route::Unknown),
            ("/runningpods/", Route::RunningPods),
            ("/stats/summary", Route::Summary),
            ("/metrics/resource", Route::ResourceMetrics),
            ("/metrics/x", Route::Unknown),
            ("/metrics/slis", Route::Indicators),
            ("/statusz", Route::Statusz),
            ("/", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), want, "{path}");
        }
    }
}
