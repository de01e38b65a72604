//! The socket kept open for tasks: calls run on a thread that may block, one after the other.

use crate::batch::Batch;
use crate::object::Table;
use crate::socket::{Error, Socket, Told};

/// The kernel's nftables, as one task sees them. Opened at the first call; opened anew after an answer was lost.
#[derive(Debug, Default)]
pub struct Kernel {
    socket: Option<Socket>,
}

impl Kernel {
    /// Does a transaction; an empty one costs nothing.
    ///
    /// # Errors
    /// See [`Socket::commit`].
    pub async fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        self.call(move |socket| socket.commit(batch)).await
    }

    /// Whether all of the tables are there.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn has_tables(&mut self, tables: &'static [Table]) -> Result<bool, Error> {
        self.call(move |socket| {
            for table in tables {
                if !socket.has_table(*table)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// The elements of several sets of a table, in their order; none for a set that is not there.
    ///
    /// # Errors
    /// See [`Socket::elements`].
    pub async fn elements(
        &mut self,
        table: Table,
        sets: &'static [&'static str],
    ) -> Result<Vec<Vec<Told>>, Error> {
        self.call(move |socket| sets.iter().map(|set| socket.elements(table, set)).collect()).await
    }

    async fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Socket) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let socket = self.socket.take();
        let worked = tokio::task::spawn_blocking(move || {
            let mut socket = match socket {
                Some(socket) => socket,
                None => Socket::open()?,
            };
            let result = work(&mut socket);
            // dropping a socket waits for the kernel: here, not on a task's thread
            let keep = !matches!(result, Err(Error::Talk { .. } | Error::Unsteady(_)));
            Ok((keep.then_some(socket), result))
        });
        let (socket, result) = worked.await.map_err(|_| Error::Task)??;
        self.socket = socket;
        result
    }
}
