//! Long work of a request that other tasks of its thread need not wait for.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work of milliseconds and more, or waits for it. Where there is one thread only, the others wait.
pub(crate) fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread) {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}
