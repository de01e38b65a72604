//! Generic netlink: families that the kernel numbers as it loads them.

use crate::attribute::{Writer, find};
use crate::message::Request;
use crate::socket::{Error, Socket};

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`
pub(crate) const FIXED: usize = 4;

/// A request of a family's `command`, of its first version.
pub(crate) fn request(family: u16, command: u8, attributes: impl FnOnce(&mut Writer)) -> Request {
    Request::new(family, 0, &[command, 1, 0, 0], attributes)
}

/// The number of a family; `None`: the kernel has none of that name.
///
/// # Errors
/// The kernel's.
pub(crate) fn family(socket: &mut Socket, name: &str) -> Result<Option<u16>, Error> {
    match socket.get(request(CONTROL, GET_FAMILY, |w| w.text(FAMILY_NAME, name))) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| read(reply))),
        Err(error) if error.errno() == nix::libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(body: &[u8]) -> Option<u16> {
    let id = find(body.get(FIXED..)?, FAMILY_ID)?;
    Some(u16::from_ne_bytes(id.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Protocol;

    #[test]
    fn the_control_family_finds_itself_and_no_other() {
        let mut socket = Socket::open(Protocol::Generic).unwrap();
        assert_eq!(family(&mut socket, "nlctrl").unwrap(), Some(CONTROL));
        assert_eq!(family(&mut socket, "no such family").unwrap(), None);
    }
}
