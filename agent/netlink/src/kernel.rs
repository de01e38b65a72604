//! A socket kept open for tasks: calls run on a thread that may block, one after the other.

use crate::socket::{Error, Protocol, Socket};

/// The kernel, as one task speaks to it. Opened at the first call, and opened again after an answer was lost.
#[derive(Debug)]
pub struct Kernel {
    protocol: Protocol,
    socket: Option<Socket>,
}

impl Kernel {
    /// The part of the kernel that speaks `protocol`.
    #[must_use]
    pub fn of(protocol: Protocol) -> Self {
        Self { protocol, socket: None }
    }

    /// Does `work` with the socket.
    ///
    /// # Errors
    /// What `work` returns, or there is no netlink.
    pub async fn call<T, E>(
        &mut self,
        work: impl FnOnce(&mut Socket) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (protocol, socket) = (self.protocol, self.socket.take());
        let worked = tokio::task::spawn_blocking(move || -> Result<_, E> {
            let mut socket = match socket {
                Some(socket) => socket,
                None => Socket::open(protocol)?,
            };
            let result = work(&mut socket);
            // Dropping a socket waits for the kernel: here, not on a task's thread.
            let keep = socket.is_in_step();
            Ok((keep.then_some(socket), result))
        });
        let (socket, result) = worked.await.map_err(|_| Error::Task)??;
        self.socket = socket;
        result
    }
}
