//! The controllers on a real API server and store, killed at their writes: whatever was written when they died, the next ones go on from it
//! to the same cluster, and nothing is made twice.
//!
//! [`leadership`]: of which only one works at a time. [`server`] is the API server, [`lives`] are the controllers with the writes that kill them, [`node`] plays the kubelets and the
//! scheduler, [`story`] is what users ([`user`]) do meanwhile and what must be there in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

mod leadership;
mod lives;
mod node;
mod server;
mod story;
mod user;

use lives::{Death, Lives};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_die_at_their_writes_must_not_make_another_cluster() {
    let undisturbed = story::run(Lives::undisturbed()).await;
    for death in [Death { write: 2, stored: true }, Death { write: 5, stored: false }] {
        let ended = story::run(Lives::ending_with(death)).await;
        assert!(ended.lives > 3, "{death:?}: only {} lives: nothing was tried", ended.lives);
        assert_eq!(ended.objects, undisturbed.objects, "{death:?}");
        assert_eq!(ended.pods_made, undisturbed.pods_made, "{death:?}: made, and not needed");
    }
}
