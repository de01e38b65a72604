//! The kernel's word that a link, address or route changed: that it came, never what it said.
//!
//! The socket is its own. The kernel drops what a listener does not read in time, and on a socket shared with requests it drops their
//! answers too, for which the asker then waits forever. That something was dropped counts as a change: whoever listens looks at
//! everything anyway.

use std::{future::poll_fn, io, task::ready};

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// A subscription; it begins when it is made.
pub struct Changes(TokioSocket);

impl Changes {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// There is no netlink.
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        // A group's number is its bit, counted from one; all of these are of the first 32.
        let groups = GROUPS.into_iter().fold(0, |all, group| all | 1 << (group - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self(socket))
    }

    /// The next change; all that came until now counts as one. Cancel-safe.
    ///
    /// # Errors
    /// The socket cannot be read.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut changed = false;
        poll_fn(|cx| {
            loop {
                // The kernel cuts a message to the room there is, and the rest of it is not missed.
                let mut room = [0; 16];
                let received = match self.0.poll_recv(cx, &mut room.as_mut_slice()) {
                    std::task::Poll::Pending if changed => return std::task::Poll::Ready(Ok(())),
                    pending_or_not => ready!(pending_or_not),
                };
                match received {
                    Ok(()) => changed = true,
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => changed = true,
                    Err(error) => return std::task::Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn ip(command: &str) {
        let status = std::process::Command::new("sh").arg("-c").arg(command).status().unwrap();
        assert!(status.success(), "{command}");
    }

    #[test]
    fn a_flood_nobody_read_is_one_change_and_the_next_is_heard() {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut changes = Changes::subscribe().unwrap();
                changes.0.socket_ref().set_rx_buf_sz(4096_i32).unwrap();
                let silent = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
                assert!(silent.is_err(), "nothing changed");
                ip("for i in 1 2 3 4 5 6 7 8; do ip link set lo up; ip link set lo down; done");
                changes.next().await.unwrap();
                let quiet = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
                assert!(quiet.is_err(), "all of it was one change");
                ip("ip link set lo up");
                changes.next().await.unwrap();
            });
        })
        .join()
        .unwrap();
    }
}
