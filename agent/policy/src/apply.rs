//! What is in the kernel, and changing it: the only owner of the table `windlass-policy`.
//!
//! A change is one transaction of exactly what differs. After a failed transaction, or when the table was taken away, one transaction
//! makes everything anew: there is no moment without rules.

use crate::ruleset::Ruleset;
use crate::table::{self, TABLES};
use netlink::nft::{Batch, Error, Kernel};

/// Keeps the kernel's table equal to the rules it is given.
#[derive(Debug, Default)]
pub struct Applier {
    kernel: Kernel,
    in_step: bool,
    /// It was looked for, and taken away if it was there.
    absent: bool,
}

/// What one application did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing to do.
    Nothing,
    /// What differed was changed.
    Partly,
    /// Everything was made anew.
    Whole,
}

impl Applier {
    /// Brings the kernel to `rules`.
    ///
    /// # Errors
    /// The transaction failed: nothing was changed, and the next call makes everything anew.
    pub async fn apply(&mut self, rules: &mut Ruleset) -> Result<Applied, Error> {
        let mut batch = Batch::default();
        let applied = if self.in_step {
            let difference = rules.take_difference();
            table::change(&mut batch, &difference, rules);
            if batch.is_empty() { Applied::Nothing } else { Applied::Partly }
        } else {
            let whole = rules.whole();
            table::replace(&mut batch);
            table::change(&mut batch, &whole, rules);
            Applied::Whole
        };
        self.absent = false;
        self.in_step = false;
        self.kernel.commit(batch).await?;
        self.in_step = true;
        Ok(applied)
    }

    /// Takes the table away, unless that was done.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove(&mut self) -> Result<(), Error> {
        self.in_step = false;
        if self.absent {
            return Ok(());
        }
        let mut batch = Batch::default();
        table::remove(&mut batch);
        self.kernel.commit(batch).await?;
        self.absent = true;
        Ok(())
    }

    /// Whether the kernel holds what was given last.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Looks whether the table is still there; false: the next [`Applier::apply`] makes everything anew.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn audit(&mut self) -> Result<bool, Error> {
        if self.in_step {
            self.in_step = self.kernel.has_tables(TABLES).await?;
        }
        Ok(self.in_step)
    }
}

/// Takes the table away: policies are nobody's affair here.
///
/// # Errors
/// The kernel refuses.
pub async fn remove_table() -> Result<(), Error> {
    Applier::default().remove().await
}
