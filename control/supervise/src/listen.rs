//! Where connections come to. An unspecified address of either family means every address of both, as it does to Go's programs
//! (`favoriteAddrFamily` of its package net): a node of two families is reached by both, one of IPv6 alone with `0.0.0.0` in its files.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// What Linux says where a family is not there at all, or has no address yet.
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

/// Opens `address` by `bind`: an unspecified one as `[::]`, which takes both families, or as `0.0.0.0` where there is no IPv6.
///
/// # Errors
/// Those of `bind`.
pub fn open<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    if !address.ip().is_unspecified() {
        return bind(address);
    }
    match bind((Ipv6Addr::UNSPECIFIED, address.port()).into()) {
        Err(error) if matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL)) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        done => done,
    }
}

/// Listens there without a runtime.
///
/// # Errors
/// The address is not to be had.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    open(address, std::net::TcpListener::bind)
}

/// Listens there.
///
/// # Errors
/// The address is not to be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::net::TcpStream;

    #[test]
    fn an_unspecified_address_must_not_leave_a_family_out() {
        for text in ["0.0.0.0:0", "[::]:0"] {
            let listener = bind(text.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "{text}");
            let there = bind("[::1]:0".parse().unwrap()).is_ok();
            assert_eq!(TcpStream::connect(("::1", port)).is_ok(), there, "{text}");
        }
    }

    #[test]
    fn only_where_there_is_no_ipv6_it_is_left_out() {
        let tried = |text: &str, errno: i32| {
            let tried = RefCell::new(Vec::new());
            let opened = open(text.parse().unwrap(), |address| {
                tried.borrow_mut().push(address.to_string());
                if address.is_ipv6() { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
            });
            (tried.into_inner(), opened.is_ok())
        };
        const EADDRINUSE: i32 = 98;
        let both = vec!["[::]:80".to_owned(), "0.0.0.0:80".to_owned()];
        assert_eq!(tried("0.0.0.0:80", EAFNOSUPPORT), (both.clone(), true));
        assert_eq!(tried("[::]:80", EADDRNOTAVAIL), (both.clone(), true));
        assert_eq!(tried("0.0.0.0:80", EADDRINUSE), (both[..1].to_vec(), false), "somebody else's");
        assert_eq!(tried("192.0.2.1:80", EADDRINUSE), (vec!["192.0.2.1:80".to_owned()], true), "itself");
        assert_eq!(tried("[fd00::1]:80", EAFNOSUPPORT), (vec!["[fd00::1]:80".to_owned()], false));
    }
}
