//! Processes that the kernel ended because the whole machine ran out of memory, told by events of the node (`SystemOOM`). Upstream:
//! `pkg/kubelet/oom`, and the parser of cAdvisor behind it.
//!
//! Woken by the kernel's log; reads what is written to it from now on. Those a cgroup's limit ended are told with their containers. Promises: a
//! machine whose log cannot be read loses these events and nothing else.

use crate::recorder::{Kind, Recorder, Subject};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use tokio::net::unix::pipe::Receiver;

const LOG: &str = "/dev/kmsg";
/// The longest record of the log (`CONSOLE_EXT_LOG_MAX`).
const LONGEST: usize = 8192;

/// Records an event for each; never ends.
pub(crate) async fn watch(node: String, recorder: Recorder) {
    let log = match open() {
        Ok(log) => log,
        Err(error) => {
            tracing::info!(%error, "the kernel's log cannot be read: processes it ends are not told of");
            return std::future::pending().await;
        }
    };
    let mut parser = Parser::default();
    loop {
        match next(&log).await {
            Ok(record) => {
                if let Some(victim) = parser.take(message(&record)) {
                    let subject = Subject::node(&node);
                    recorder.record(subject, Kind::Warning, "SystemOOM", victim.told());
                }
            }
            // Records were lost: the next one is read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => parser = Parser::default(),
            Err(error) => {
                tracing::info!(%error, "the kernel's log can no longer be read");
                return std::future::pending().await;
            }
        }
    }
}

fn open() -> io::Result<Receiver> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(LOG)?;
    file.seek(SeekFrom::End(0))?;
    // No pipe, but read and waited for like one.
    Receiver::from_file_unchecked(file)
}

async fn next(log: &Receiver) -> io::Result<String> {
    let mut buffer = vec![0; LONGEST];
    loop {
        log.readable().await?;
        // One read is one record.
        match log.try_read(&mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A record's text: what follows its numbers, in the first line.
fn message(record: &str) -> &str {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    text.lines().next().unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim {
    name: String,
    pid: u32,
}

impl Victim {
    fn told(&self) -> String {
        format!("System OOM encountered, victim process: {}, pid: {}", self.name, self.pid)
    }
}

/// Reads a log line by line.
#[derive(Debug, Default)]
struct Parser {
    /// The kernel is looking for a victim: in the whole machine, as far as is known.
    began: bool,
    in_cgroup: bool,
}

impl Parser {
    /// The victim that a line completes, where it is the machine's.
    fn take(&mut self, line: &str) -> Option<Victim> {
        if line.contains("invoked oom-killer:") {
            *self = Self { began: true, in_cgroup: false };
            return None;
        }
        if !self.began {
            return None;
        }
        // Which cgroup ran out of memory: newer kernels, then older ones.
        let newer = line.contains("oom-kill:constraint=").then(|| field(line, "oom_memcg=")).flatten();
        let older = line.split_once(" killed as a result of limit of ").map(|(_, cgroup)| cgroup);
        if let Some(cgroup) = newer.or(older) {
            self.in_cgroup = cgroup.trim() != "/";
        }
        let victim = killed(line)?;
        let counts = !self.in_cgroup;
        *self = Self::default();
        counts.then_some(victim)
    }
}

fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(name)?;
    rest.split(',').next()
}

/// `Killed process 123 (name)`
fn killed(line: &str) -> Option<Victim> {
    let (_, rest) = line.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(' ')?;
    let name = rest.strip_prefix('(')?.split_once(')')?.0;
    Some(Victim { name: name.to_owned(), pid: pid.trim_end_matches(',').parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victims(lines: &[&str]) -> Vec<String> {
        let mut parser = Parser::default();
        let records = lines.iter().map(|line| format!("6,1234,5678,-;{line}\n SUBSYSTEM=x\n"));
        records.filter_map(|record| parser.take(message(&record))).map(|victim| victim.told()).collect()
    }

    #[test]
    fn a_container_that_met_its_limit_must_not_be_told_of_as_the_machine() {
        let start = "stress invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0";
        let end = "Memory cgroup out of memory: Killed process 77 (stress) total-vm:1kB, anon-rss:1kB";
        let of_pod = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/kubepods/podx,task_memcg=/kubepods/podx/c,task=stress,pid=77,uid=0";
        assert!(victims(&[start, of_pod, end]).is_empty());
        let older = "Task in /kubepods/podx killed as a result of limit of /kubepods/podx";
        assert!(victims(&[start, older, end]).is_empty());
        let of_all = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/x,task=java,pid=42,uid=0";
        let killed = "Out of memory: Killed process 42 (java) total-vm:1kB";
        let told = "System OOM encountered, victim process: java, pid: 42";
        assert_eq!(victims(&["other", start, of_all, killed]), [told]);
        assert_eq!(
            victims(&[start, of_pod, end, start, of_all, killed, killed]),
            [told],
            "each is told once"
        );
        assert!(victims(&[killed]).is_empty(), "what began before is not known");
    }
}
