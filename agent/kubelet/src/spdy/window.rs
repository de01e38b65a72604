//! Flow control of what we send: how many bytes the peer lets each stream, and the session, still send.

use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::Notify;

/// What a window holds at first.
pub const INITIAL: i64 = 64 * 1024;
/// The setting that changes it.
pub const SETTING: u32 = 7;

#[derive(Debug)]
struct State {
    /// The peer has shown that it grants windows; others are not waited for.
    kept: bool,
    closed: bool,
    initial: i64,
    session: i64,
    /// What was granted and not used, less what was used beyond [`State::initial`].
    streams: HashMap<u32, i64>,
}

/// The windows of a session.
#[derive(Debug)]
pub struct Windows {
    state: Mutex<State>,
    changed: Notify,
}

impl Default for Windows {
    fn default() -> Self {
        let state =
            State { kept: false, closed: false, initial: INITIAL, session: INITIAL, streams: HashMap::new() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Windows {
    /// The peer grants more.
    pub fn grant(&self, stream: u32, delta: u32) {
        let mut state = self.state.lock();
        state.kept = true;
        match stream {
            0 => state.session += i64::from(delta),
            stream => *state.streams.entry(stream).or_default() += i64::from(delta),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The peer says what windows hold at first.
    pub fn initial(&self, value: u32) {
        let mut state = self.state.lock();
        (state.kept, state.initial) = (true, i64::from(value));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether the peer has shown that it keeps windows.
    pub fn are_kept(&self) -> bool {
        self.state.lock().kept
    }

    /// Nothing will be granted any more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Takes up to `wanted` bytes, waiting until there are any; 0 when the session is closed.
    pub async fn take(&self, stream: u32, wanted: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(taken) = self.attempt(stream, wanted) {
                return taken;
            }
            changed.await;
        }
    }

    fn attempt(&self, stream: u32, wanted: usize) -> Option<usize> {
        let mut state = self.state.lock();
        if state.closed {
            return Some(0);
        }
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let free = state.session.min(state.initial + *state.streams.entry(stream).or_default());
        let taken = if state.kept { wanted.min(free) } else { wanted };
        if taken <= 0 {
            return None;
        }
        state.session -= taken;
        *state.streams.entry(stream).or_default() -= taken;
        usize::try_from(taken).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_peer_that_grants_nothing_is_not_waited_for_and_one_that_does_is() {
        let windows = Windows::default();
        assert_eq!(windows.take(1, 100_000).await, 100_000);
        windows.grant(0, 100_000);
        assert_eq!(windows.take(1, 10).now_or_never(), None);
        windows.grant(1, 40_000);
        assert_eq!(windows.take(1, 10_000).await, 5536);
        assert_eq!(windows.take(1, 1).now_or_never(), None);
        assert_eq!(windows.take(3, 1 << 20).await, 60_000);
        windows.close();
        assert_eq!(windows.take(3, 1).await, 0);
    }
}
