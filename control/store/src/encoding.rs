//! How values lie in a shared store: layers between an object's JSON, which everything above the store speaks, and the bytes at rest.

use bytes::Bytes;
use futures::future::BoxFuture;

/// Why bytes could not be turned.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A value after all layers are undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The object's JSON.
    pub value: Bytes,
    /// A write of the same value would store other bytes: another version of the kind, another key.
    pub stale: bool,
}

/// Why a value cannot be read.
pub enum Unreadable {
    /// Not without what this future fetches; then it is tried once more.
    Yet(BoxFuture<'static, Result<(), Source>>),
    /// Permanently: wrong key, or damaged bytes.
    Damaged(Source),
}

impl<E: Into<Source>> From<E> for Unreadable {
    fn from(source: E) -> Self {
        Self::Damaged(source.into())
    }
}

/// From objects to bytes at rest, and back. Keys begin with `/registry/`, whatever the prefix in the store.
pub trait Encoding: Send + Sync + 'static {
    /// The bytes to store for a value.
    ///
    /// # Errors
    /// Where the value has no such form.
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source>;
    /// The value of stored bytes, whoever stored them.
    ///
    /// # Errors
    /// As [`Unreadable`] says.
    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable>;
}

/// Values at rest as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Encoding for Plain {
    fn encode(&self, _key: &str, value: Bytes) -> Result<Bytes, Source> {
        Ok(value)
    }

    fn decode(&self, _key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        Ok(Decoded { value: stored, stale: false })
    }
}

/// One encoding upon another: `outer` turns what `inner` made, as encryption does.
pub struct Layers<O, I> {
    /// Next to the store.
    pub outer: O,
    /// Next to the objects.
    pub inner: I,
}

impl<O: Encoding, I: Encoding> Encoding for Layers<O, I> {
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source> {
        self.outer.encode(key, self.inner.encode(key, value)?)
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        let outer = self.outer.decode(key, stored)?;
        let inner = self.inner.decode(key, outer.value)?;
        Ok(Decoded { stale: inner.stale || outer.stale, ..inner })
    }
}

impl<E: Encoding + ?Sized> Encoding for std::sync::Arc<E> {
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source> {
        (**self).encode(key, value)
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        (**self).decode(key, stored)
    }
}
