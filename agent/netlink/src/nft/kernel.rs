//! nftables for asynchronous tasks, over a socket that stays open. A program that ends waits for the kernel's grace period when its
//! socket closes, many times what a small change takes.

use super::batch::Batch;
use super::element::Element;
use super::object::Table;
use super::transaction::{self, Error};
use crate::socket::Protocol;

/// The kernel's nftables, as one task speaks to it.
#[derive(Debug)]
pub struct Kernel(crate::Kernel);

impl Default for Kernel {
    fn default() -> Self {
        Self(crate::Kernel::of(Protocol::Netfilter))
    }
}

impl Kernel {
    /// Does a transaction; an empty one costs nothing.
    ///
    /// # Errors
    /// See [`transaction::commit`].
    pub async fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        self.0.call(move |socket| transaction::commit(socket, batch)).await
    }

    /// Whether all of the tables are there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn has_tables(&mut self, tables: &'static [Table]) -> Result<bool, Error> {
        self.0
            .call(move |socket| {
                for table in tables {
                    if !transaction::has_table(socket, *table)? {
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
    /// See [`transaction::elements`].
    pub async fn elements(
        &mut self,
        table: Table,
        sets: &'static [&'static str],
    ) -> Result<Vec<Vec<Element>>, Error> {
        let list = move |socket: &mut crate::Socket| {
            sets.iter().map(|set| transaction::elements(socket, table, set)).collect()
        };
        self.0.call(list).await
    }
}
