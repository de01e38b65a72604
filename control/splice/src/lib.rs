//! A client's stream and a server's as one: bytes go both ways until both directions have ended.
//!
//! The directions are independent. A server that ends its connection no longer takes what the client sends, and often
//! while megabytes of its answer are still in buffers: a write it refuses must not end the other direction. What the
//! client says then is read and dropped, because closing a socket with unread bytes makes the kernel reset the
//! connection, and the peer loses what it has not read yet.

#![warn(unreachable_pub)]

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

/// Bytes a direction holds.
const BUFFER: usize = 32 * 1024;
/// How long a client may take to read what is under way, and to end, after the server has ended. Upstream's default of
/// `streamingConnectionIdleTimeout`.
pub const LINGER: Duration = Duration::from_hours(4);

/// Carries bytes until the server has ended and then the client, which sees that end; or the client is gone.
///
/// # Errors
///
/// A stream broke: not everything that was sent has arrived.
pub async fn join<C, S>(client: C, server: S) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let up = upward(from_client, to_server);
    let down = downward(from_server, to_client);
    tokio::pin!(up, down);
    tokio::select! {
        left = &mut up => {
            left?;
            down.await.map(drop)
        }
        ended = &mut down => {
            // held until the client has ended: dropped, it would close the connection
            let _to_client = ended?;
            match tokio::time::timeout(LINGER, up).await {
                Ok(left) => left,
                Err(_) => Ok(()),
            }
        }
    }
}

/// Until the client ends; a server that takes no more is no reason to stop reading.
async fn upward<C: AsyncRead, S: AsyncWrite>(mut from: ReadHalf<C>, mut to: WriteHalf<S>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut takes = true;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        if takes {
            takes = pass(&mut to, &buffer[..count]).await.is_ok();
        }
    }
    if takes {
        // its end may have come before this
        let _ended = to.shutdown().await;
    }
    Ok(())
}

/// Until the server ends; the client then sees the end too.
async fn downward<S: AsyncRead, C: AsyncWrite>(
    mut from: ReadHalf<S>,
    mut to: WriteHalf<C>,
) -> io::Result<WriteHalf<C>> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(to);
        }
        pass(&mut to, &buffer[..count]).await?;
    }
}

async fn pass(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
