//! Ports that somebody listens on, and who.

use crate::check::facts::{Holder, Taken};
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub(super) fn of(ports: &[u16]) -> Vec<Taken> {
    let taken = ports.iter().copied().filter(|port| is_taken(*port));
    taken.map(|port| Taken { port, by: holder(port) }).collect()
}

fn is_taken(port: u16) -> bool {
    let bound = supervise::listen::bind((Ipv4Addr::UNSPECIFIED, port).into());
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Who has the socket that listens on a port; of several that share it, the oldest.
fn holder(port: u16) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(super::text);
    let sockets = tables.iter().flat_map(|table| inodes(table, port));
    let links: Vec<PathBuf> = sockets.map(|inode| format!("socket:[{inode}]").into()).collect();
    let has = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| links.contains(&link))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.filter(has).min()?;
    let unit = unit(&super::text(format!("/proc/{pid}/cgroup")));
    Some(Holder { pid, program: super::word(format!("/proc/{pid}/comm")), unit })
}

/// Inodes of the sockets that listen on a port, in the form of `/proc/net/tcp`.
fn inodes(table: &str, port: u16) -> Vec<&str> {
    fn of(line: &str, port: u16) -> Option<&str> {
        const LISTENS: &str = "0A";
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTENS;
        fields.get(9).copied().filter(|_| is_it)
    }
    table.lines().filter_map(|line| of(line, port)).collect()
}

/// The service that a process is part of, by its cgroups.
fn unit(cgroups: &str) -> Option<String> {
    let mut parts =
        cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    let last = parts.rfind(|part| part.ends_with(".service") && !part.starts_with("user@"));
    last.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_somebody_listens_on_is_taken_by_them() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = of(&[port]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].by.as_ref().map(|by| by.pid), Some(std::process::id()));
        drop(listener);
        assert!(of(&[port]).is_empty());
    }

    #[test]
    fn a_connection_must_not_be_taken_for_a_listener() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 00000000:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
                     1: 0100007F:280A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n\
                     2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1\n";
        assert_eq!(inodes(table, 10250), ["111"]);
        assert_eq!(inodes(table, 22), ["333"]);
        assert!(inodes(table, 6443).is_empty());
    }

    #[test]
    fn the_unit_of_a_process_is_read_from_its_cgroups() {
        assert_eq!(unit("0::/system.slice/kubelet.service\n"), Some("kubelet.service".into()));
        let first = "12:memory:/system.slice/k3s.service/x\n1:name=systemd:/system.slice/k3s.service\n";
        assert_eq!(unit(first), Some("k3s.service".into()));
        assert_eq!(unit("0::/user.slice/user-0.slice/user@0.service/init.scope\n"), None);
        assert_eq!(unit("0::/init.scope\n"), None);
    }
}
