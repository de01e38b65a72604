//! The newest revision, asked for once for all who want it at the same time.

use crate::{Error, Revision};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// Questions by number; an answer serves everybody who came before its question was put.
#[derive(Default)]
pub(super) struct Newest {
    /// The number of the last question put.
    put: AtomicU64,
    /// The last question that was answered, and its answer.
    answered: Mutex<(u64, Revision)>,
}

impl Newest {
    /// An answer to a question put after the call.
    pub(super) async fn get<F>(&self, ask: impl FnOnce() -> F) -> Result<Revision, Error>
    where
        F: Future<Output = Result<Revision, Error>>,
    {
        let before = self.put.load(Ordering::SeqCst);
        let mut answered = self.answered.lock().await;
        if answered.0 > before {
            return Ok(answered.1);
        }
        let number = self.put.fetch_add(1, Ordering::SeqCst) + 1;
        let revision = ask().await?;
        *answered = (number, revision);
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test]
    async fn an_answer_must_not_serve_who_came_after_its_question() {
        let (newest, asked) = (Newest::default(), AtomicUsize::new(0));
        let revision = AtomicU64::new(0);
        let ask = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            let seen = revision.load(Ordering::SeqCst);
            // Writes go on while the question is on its way.
            revision.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(seen)
        };
        let one = || async {
            let floor = revision.load(Ordering::SeqCst);
            let got = newest.get(ask).await;
            got.is_ok_and(|got| got >= floor)
        };
        let fresh = join_all((0..100).map(|_| one())).await;
        assert!(fresh.into_iter().all(|fresh| fresh));
        assert!(asked.load(Ordering::SeqCst) <= 2, "a hundred at once asked {asked:?} times");
    }
}
