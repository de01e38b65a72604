//! What tests wait for.

use std::time::Duration;

/// How long something may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits until it is done; one that is not, in time, fails the test as `what`.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let look = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LONGEST, look).await.is_ok(), "{what}");
}
