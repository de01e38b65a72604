//! Probes and lifecycle hooks.

use crate::{names, resources::validate::cursor::Cursor};

/// Which way of acting a probe or hook has; each in upstream's order.
const PROBES: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

pub(super) fn lifecycle(lifecycle: Cursor<'_>, grace: Option<i64>) {
    for hook in ["postStart", "preStop"].into_iter().filter_map(|hook| lifecycle.field(hook).if_set()) {
        handler(hook, &HOOKS, grace);
    }
}

pub(super) fn probes(container: Cursor<'_>, grace: Option<i64>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.field(name).if_set() else { continue };
        handler(probe, &PROBES, grace);
        probe.plain(&[
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ]);
        let own = probe.field("terminationGracePeriodSeconds");
        if own.number().is_some_and(|seconds| seconds <= 0) {
            own.invalid("must be greater than 0");
        }
        if name == "readinessProbe" && own.is_set() {
            own.invalid("must not be set for readinessProbes");
        }
        if name != "readinessProbe" && probe.int("successThreshold") != 1 {
            probe.field("successThreshold").invalid("must be 1");
        }
    }
}

fn handler(handler: Cursor<'_>, kinds: &[&'static str], grace: Option<i64>) {
    let mut actions =
        kinds.iter().map(|kind| (*kind, handler.field(kind))).filter(|(_, action)| action.is_set());
    let Some((kind, action)) = actions.next() else { return handler.missing("must specify a handler type") };
    match kind {
        "exec" => {
            action.field("command").required();
        }
        "httpGet" => http_get(action),
        "tcpSocket" | "grpc" => action.field("port").port(),
        _ => sleep(action, grace),
    }
    actions.for_each(|(_, action)| action.forbidden("may not specify more than 1 handler type"));
}

fn http_get(action: Cursor<'_>) {
    action.field("path").required();
    action.field("port").port();
    action.field("scheme").enumerated();
    let headers = action.field("httpHeaders");
    for header in headers.items() {
        headers.format_of(header.text("name"), names::http_header_name);
    }
}

fn sleep(action: Cursor<'_>, grace: Option<i64>) {
    let seconds = action.int("seconds");
    if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_value(seconds, detail);
    }
}
