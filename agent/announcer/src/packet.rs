//! Packet sockets: frames of one protocol of one link, as they came and as they are to go. Opening one needs `CAP_NET_RAW`.
#![allow(unsafe_code, reason = "no safe binding binds a packet socket, or attaches a classic filter to it")]

use crate::frame::IPV6;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;

/// Lets pass what is neighbour solicitation or advertisement, from the Ethernet header on: load the next header's and the message's kind.
const NEIGHBOURS: [libc::sock_filter; 6] = [
    filter(0x30, 0, 0, 14 + 6),
    filter(0x15, 0, 3, 58),
    filter(0x30, 0, 0, 14 + 40),
    filter(0x15, 2, 0, 135),
    filter(0x15, 1, 0, 136),
    filter(0x06, 0, 0, 0),
];
/// The whole frame.
const PASS: libc::sock_filter = filter(0x06, 0, 0, 0xffff);

const fn filter(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// A socket of one link and protocol.
pub(crate) struct Packets(AsyncFd<OwnedFd>);

impl Packets {
    /// Frames of `protocol` (an `ETH_P_*`) that come by the link of this number; of IPv6, those of neighbour discovery only.
    ///
    /// # Errors
    /// The kernel's: no such link, no right to do it.
    pub(crate) fn open(link: u32, protocol: u16) -> io::Result<Self> {
        // Of no protocol: nothing comes before it is bound.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        if protocol == IPV6 {
            let mut program: Vec<libc::sock_filter> = NEIGHBOURS.to_vec();
            program.push(PASS);
            attach(&socket, &mut program)?;
        }
        bind(&socket, link, protocol)?;
        // SAFETY: the descriptor is the socket's own for as long as it lives, and nobody else closes it.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// The next frame's length in `room`, which cuts it.
    pub(crate) fn poll_receive(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let received =
                ready.try_io(|socket| Ok(recv(socket.get_ref().as_raw_fd(), room, MsgFlags::empty())?));
            if let Ok(received) = received {
                return Poll::Ready(received);
            }
        }
    }

    /// Sends a frame, or drops it where there is no room: it is said again.
    ///
    /// # Errors
    /// The link is down, or gone.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match send(self.0.get_ref().as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn attach(socket: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads `filter` and copies the `len` instructions behind its pointer before it returns; both live until then.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, link: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(link).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads a `sockaddr_ll` of just that length, which lives until it returns.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
