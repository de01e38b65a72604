//! The directory of a new member that is alone in its cluster, with a file that may be exchanged.
//!
//! etcd itself makes it: who is a member is written by whoever will read it, whatever its version. It is run for a moment with a log that is
//! snapshot after every entry. After that, a member that joins cannot be given the log from its beginning, in which what is put into the file
//! afterwards never was: it is given the file.

use super::place::Place;
use super::program::{Cluster, Member};
use crate::child::{self, Program};
use anyhow::{Context as _, anyhow, bail, ensure};
use etcd::v3::request_op::Request;
use etcd::v3::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use etcd::{Client, Repeat};
use std::time::Duration;
use tokio::time::Instant;

/// How long etcd may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Entries that make it take a snapshot of its log. They are not in the file afterwards.
const ENTRIES: usize = 8;

/// Makes the directory of `place`, which must be empty. On the main thread only, as all children.
pub(super) async fn make(member: &Member, place: &Place, client: &Client) -> anyhow::Result<()> {
    pki::files::create_private_dir(&place.data())?;
    let program = Program::other("etcd", &member.program, member.arguments(place, &Cluster::New, 1))?;
    let mut etcd = program.start()?;
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = client.range(RangeRequest { key: vec![0].into(), ..RangeRequest::default() });
        let answer = tokio::select! {
            answer = asked => answer,
            ended = etcd.wait() => bail!("etcd ended at its first start: {}", ended?),
        };
        match answer {
            Ok(_) => break,
            Err(failure) if Instant::now() > until => {
                return Err(failure).context("wait for etcd's first start");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    for _ in 0..ENTRIES {
        let put = PutRequest { key: "seed".into(), value: "".into(), lease: 0 };
        let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
        client.txn(TxnRequest { success, ..TxnRequest::default() }, Repeat::Always).await?;
    }
    child::stop(&mut etcd).await.ok_or_else(|| anyhow!("etcd does not stop"))??;
    let dir = place.data().join("member/snap");
    let mut files = std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
    let snapshot = files.any(|file| file.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "snap")));
    ensure!(snapshot, "etcd has made no snapshot of its log in {}", dir.display());
    Ok(())
}
