//! A transaction over the socket, its answers, reading sets.

use super::batch::{Batch, Finished, GET_ELEMENT, GET_TABLE, question};
use super::element::Element;
use super::object::Table;
use crate::attribute::{attributes, find};
use crate::message::{ERROR, Refusal};
use crate::socket::Socket;
use std::io;
use std::ops::ControlFlow;

/// Why nftables was not changed, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not take or answer a message.
    #[error("{doing} nftables over netlink")]
    Talk {
        /// `change` or `list`.
        doing: &'static str,
        /// The socket's error.
        #[source]
        source: crate::Error,
    },
    /// The kernel refused the transaction; nothing of it is done.
    #[error("{subject}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The first message it did not like.
        subject: String,
        /// What else the kernel said.
        detail: Option<String>,
        /// The kernel's errno.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The errno of a refusal; 0 for anything else.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Talk { source, .. } => source.errno(),
            Self::Refused { source, .. } => source.raw_os_error().unwrap_or(0),
        }
    }
}

impl From<crate::Error> for Error {
    fn from(source: crate::Error) -> Self {
        talk("speak to")(source)
    }
}

fn talk(doing: &'static str) -> impl FnOnce(crate::Error) -> Error {
    move |source| Error::Talk { doing, source }
}

/// Does a transaction; an empty one costs nothing.
///
/// # Errors
/// The kernel refused it, and did nothing of it; or its answer is lost, and what it did is not known.
pub fn commit(socket: &mut Socket, batch: Batch) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let first = socket.number(batch.numbers());
    let finished = batch.finish(first);
    socket.send(&finished.bytes).map_err(talk("change"))?;
    let mut refused: Option<Refusal> = None;
    let read = socket.receive(|message| {
        let Some(index) = finished.index(message.sequence).filter(|_| message.kind == ERROR) else {
            return ControlFlow::Continue(());
        };
        if let Some(refusal) = message.refusal(index)
            && refused.as_ref().is_none_or(|known| index < known.request)
        {
            refused = Some(refusal);
        }
        if index == 0 || index == finished.last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match refused {
        // The answer that would follow may be lost or was never sent, but why is known.
        Some(refusal) => Err(explain(&finished, refusal)),
        None => read.map_err(talk("hear back from")),
    }
}

fn explain(finished: &Finished, refusal: Refusal) -> Error {
    Error::Refused {
        subject: finished.subject(refusal.request),
        detail: refusal.detail,
        source: refusal.error,
    }
}

/// Whether a table is there.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn has_table(socket: &mut Socket, table: Table) -> Result<bool, Error> {
    match socket.get(question(GET_TABLE, table, |w| w.text(1, table.name))) {
        Ok(replies) => Ok(!replies.is_empty()),
        Err(error) if error.errno() == nix::libc::ENOENT => Ok(false),
        Err(error) => Err(talk("ask about")(error)),
    }
}

/// The elements of a set; none when there is no such set.
///
/// # Errors
/// The kernel refuses, or the set changes all the time.
pub fn elements(socket: &mut Socket, table: Table, set: &str) -> Result<Vec<Element>, Error> {
    let request = question(GET_ELEMENT, table, |w| {
        w.text(1, table.name);
        w.text(2, set);
    });
    let found = socket.dump(&request, |body, found| {
        let list = body.get(4..).and_then(|body| find(body, 3));
        found.extend(list.into_iter().flat_map(attributes).filter_map(|(_, element)| Element::read(element)));
    });
    match found {
        Err(error) if error.errno() == nix::libc::ENOENT => Ok(Vec::new()),
        other => other.map_err(talk("list")),
    }
}
