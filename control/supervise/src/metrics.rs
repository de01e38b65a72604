//! What supervisors count, in Prometheus' text format.

use crate::supervisor::{Report, Supervisor};
use std::fmt::{self, Write};

type Column = (&'static str, &'static str, fn(&Report) -> u64);

const COLUMNS: [Column; 2] = [
    ("windlass_task_panics", "Panics caught in a task or a kind of work.", |report| report.panics),
    ("windlass_task_restarts", "Lives of a task after its first.", |report| report.restarts),
];

/// What is counted: the name without `_total`, its help, and each series' label and value.
pub type Counted = (&'static str, &'static str, Vec<(String, u64)>);

/// What is counted of each task and kind of work, by name.
#[must_use]
pub fn counted(supervisor: &Supervisor) -> Vec<Counted> {
    let reports = supervisor.reports();
    let series = |value: fn(&Report) -> u64| {
        reports.iter().map(|report| (report.name.to_string(), value(report))).collect()
    };
    COLUMNS.map(|(name, help, value)| (name, help, series(value))).into()
}

/// Writes the counters of each task.
///
/// # Errors
/// `out` refuses.
pub fn write(out: &mut impl Write, supervisor: &Supervisor) -> fmt::Result {
    for (name, help, series) in counted(supervisor) {
        writeln!(out, "# HELP {name}_total {help}\n# TYPE {name}_total counter")?;
        series.iter().try_for_each(|(task, value)| writeln!(out, "{name}_total{{task={task:?}}} {value}"))?;
    }
    Ok(())
}
