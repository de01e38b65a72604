//! Everything a member keeps, taken while it serves.

use crate::client::{ATTEMPT, Client, kv, within};
use crate::v3::maintenance_client::MaintenanceClient;
use crate::v3::{RangeRequest, SnapshotRequest};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tonic::Status;

/// How long the next piece may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Behind the file comes its digest.
const DIGEST: usize = 32;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The member did not give it, or not whole.
    #[error("etcd: take a snapshot: {}", .0.message())]
    Member(#[source] Status),
    /// It could not be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What came is not what was sent.
    #[error("etcd: the snapshot is damaged: its digest is another")]
    Damaged,
}

impl Client {
    /// Writes the file of a member, the first one that begins to give it, to `path`, durably, checked by the digest that comes with it.
    /// Everything acknowledged before the call is in it: the member is asked for a fresh read first.
    ///
    /// # Errors
    /// As [`SnapshotError`] says; what was written until then is left.
    pub async fn snapshot(&self, path: &Path) -> Result<(), SnapshotError> {
        let begun = self.with_some_member(|channel, pin| async move {
            // A member that lags behind answers this only once it does no more.
            let fresh = RangeRequest { key: vec![0].into(), ..RangeRequest::default() };
            let answer = within(ATTEMPT, kv(channel.clone()).range(fresh)).await?;
            pin.check(answer.get_ref())?;
            let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
            within(PATIENCE, client.snapshot(SnapshotRequest {})).await
        });
        let mut stream = begun.await.map_err(SnapshotError::Member)?.into_inner();
        let failed = |source| SnapshotError::Write { path: path.to_owned(), source };
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        let (mut hash, mut tail) = (Sha256::new(), Vec::new());
        while let Some(piece) = within(PATIENCE, stream.message()).await.map_err(SnapshotError::Member)? {
            // The last bytes may be the digest: they wait for those behind them.
            tail.extend_from_slice(&piece.blob);
            let ready = tail.len().saturating_sub(DIGEST);
            hash.update(&tail[..ready]);
            file.write_all(&tail[..ready]).await.map_err(failed)?;
            tail.drain(..ready);
        }
        if hash.finalize().as_slice() != tail.as_slice() {
            return Err(SnapshotError::Damaged);
        }
        file.sync_all().await.map_err(failed)
    }
}
