//! The node ports that are taken, as upstream's API servers share them: a RangeAllocation, whose data is one number with a bit a port
//! (`core/service/allocator/bitmap.go`, Go's `big.Int` as bytes, the most significant first).

use super::denied::Denied;
use crate::registry::stored;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use machinery::access::{Get as _, set_at};
use serde_json::{Value, json};

/// Node ports that may be given, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    fn size(self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }

    /// How many of the lowest ports are left to people who ask for one (KEP-3668): min(max(16, size/32), 128).
    fn band(self) -> usize {
        if self.size() <= 16 { 0 } else { (self.size() / 32).clamp(16, 128) }
    }

    pub(crate) fn offset(self, port: u16) -> Option<usize> {
        (self.first..=self.last).contains(&port).then(|| usize::from(port - self.first))
    }

    fn port(self, offset: usize) -> Option<u16> {
        u16::try_from(offset).ok().filter(|_| offset < self.size()).map(|offset| self.first + offset)
    }
}

/// Offsets that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bitmap {
    /// The least significant first.
    bytes: Vec<u8>,
}

impl Bitmap {
    pub(crate) fn has(&self, offset: usize) -> bool {
        self.bytes.get(offset / 8).is_some_and(|byte| byte & (1 << (offset % 8)) != 0)
    }

    /// False where it was taken already.
    pub(crate) fn insert(&mut self, offset: usize) -> bool {
        if self.has(offset) {
            return false;
        }
        if self.bytes.len() <= offset / 8 {
            self.bytes.resize(offset / 8 + 1, 0);
        }
        if let Some(byte) = self.bytes.get_mut(offset / 8) {
            *byte |= 1 << (offset % 8);
        }
        true
    }

    pub(crate) fn remove(&mut self, offset: usize) {
        if let Some(byte) = self.bytes.get_mut(offset / 8) {
            *byte &= !(1 << (offset % 8));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.bytes.len() * 8).filter(|offset| self.has(*offset))
    }

    fn from_number(bytes: &[u8]) -> Self {
        Self { bytes: bytes.iter().rev().copied().collect() }
    }

    fn to_number(&self) -> Vec<u8> {
        self.bytes.iter().rev().copied().skip_while(|byte| *byte == 0).collect()
    }
}

/// Why a stored allocation is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("read the allocation of node ports: it is no object")]
    Object(#[from] serde_json::Error),
    #[error("read the allocation of node ports: its data is not base64")]
    Data(#[from] base64::DecodeError),
}

/// A RangeAllocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    object: Value,
    pub(crate) taken: Bitmap,
}

impl Allocation {
    /// Nothing of `range` is taken.
    pub(crate) fn new(range: PortRange) -> Self {
        let object = json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {}, "range": range.to_string()});
        Self { object, taken: Bitmap::default() }
    }

    pub(crate) fn read(value: &[u8]) -> Result<Self, Unreadable> {
        let object: Value = serde_json::from_slice(value)?;
        let taken = Bitmap::from_number(&STANDARD.decode(object.text("data"))?);
        Ok(Self { object, taken })
    }

    pub(crate) fn bytes(&self) -> Result<Bytes, serde_json::Error> {
        let mut object = self.object.clone();
        set_at(&mut object, "data", STANDARD.encode(self.taken.to_number()));
        stored::encode(&object)
    }

    pub(crate) fn range(&self) -> &str {
        self.object.text("range")
    }

    pub(crate) fn set_range(&mut self, range: PortRange) {
        set_at(&mut self.object, "range", range.to_string());
    }

    pub(crate) fn has(&self, range: PortRange, port: u16) -> bool {
        range.offset(port).is_some_and(|offset| self.taken.has(offset))
    }

    /// Gives ports back.
    pub(super) fn give(&mut self, range: PortRange, ports: &[u16]) {
        let of_range = self.range() == range.to_string();
        for offset in ports.iter().filter(|_| of_range).filter_map(|port| range.offset(*port)) {
            self.taken.remove(offset);
        }
    }

    /// Takes a port for each wish, those by number first; nothing where one of them is denied, which is named.
    pub(super) fn take(
        &mut self,
        range: PortRange,
        wishes: &[Option<u16>],
        random: impl Fn() -> u64,
    ) -> Result<Vec<u16>, (usize, Denied)> {
        if self.range() != range.to_string() && !wishes.is_empty() {
            return Err((0, Denied::OtherRange));
        }
        let mut taken = self.taken.clone();
        let mut ports = vec![0; wishes.len()];
        let in_turn =
            |by_number: bool| wishes.iter().enumerate().filter(move |(_, wish)| wish.is_some() == by_number);
        for (at, wish) in in_turn(true).chain(in_turn(false)) {
            let port = match wish {
                Some(port) => {
                    let offset = range.offset(*port).ok_or_else(|| (at, Denied::Port(range.to_string())))?;
                    taken.insert(offset).then_some(*port).ok_or((at, Denied::Taken("port")))?
                }
                None => free(&taken, range, random())
                    .and_then(|offset| taken.insert(offset).then(|| range.port(offset)).flatten())
                    .ok_or((at, Denied::Full))?,
            };
            ports[at] = port;
        }
        self.taken = taken;
        Ok(ports)
    }
}

/// A free offset above the static band, from a place chosen by `seed` on, or in it where there is none.
fn free(taken: &Bitmap, range: PortRange, seed: u64) -> Option<usize> {
    let part = |from: usize, length: usize| {
        let start = usize::try_from(seed % (length as u64).max(1)).unwrap_or(0);
        (0..length).map(move |i| from + (start + i) % length).find(|offset| !taken.has(*offset))
    };
    part(range.band(), range.size() - range.band()).or_else(|| part(0, range.band()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RANGE: PortRange = PortRange { first: 30000, last: 32767 };

    fn of(data: &[u8]) -> Allocation {
        let object = json!({"apiVersion": "v1", "kind": "RangeAllocation", "range": "30000-32767", "data": STANDARD.encode(data)});
        Allocation::read(&serde_json::to_vec(&object).unwrap()).unwrap()
    }

    #[test]
    fn data_is_gos_big_number() {
        // 1<<0 | 1<<9 | 1<<17, as big.Int's Bytes gives it.
        let allocation = of(&[0b10, 0b10, 0b1]);
        assert_eq!(allocation.taken.iter().collect::<Vec<_>>(), [0, 9, 17]);
        assert_eq!(Allocation::read(&allocation.bytes().unwrap()).unwrap().taken, allocation.taken);
        assert_eq!(allocation.taken.to_number(), [0b10, 0b10, 0b1]);
        let mut emptied = allocation;
        emptied.give(RANGE, &[30000, 30009, 30017]);
        assert!(emptied.taken.to_number().is_empty());
    }

    #[test]
    fn refusals_are_worded_as_upstream_and_name_the_wish() {
        let mut all = Allocation::new(RANGE);
        let refusal = |(at, why): (usize, Denied)| format!("{at}: {why}");
        assert_eq!(all.take(RANGE, &[Some(30100)], || 0), Ok(vec![30100]));
        assert_eq!(
            all.take(RANGE, &[None, Some(30100)], || 0).map_err(refusal),
            Err("1: provided port is already allocated".into())
        );
        assert_eq!(
            all.take(RANGE, &[Some(80)], || 0).map_err(refusal),
            Err("0: provided port is not in the valid range. The range of valid ports is 30000-32767".into())
        );
        let other = PortRange { first: 1, last: 9 };
        assert_eq!(
            all.take(other, &[None], || 0).map_err(refusal),
            Err("0: the provided range does not match the current range".into())
        );
        assert_eq!(all.taken.iter().count(), 1, "what is refused takes nothing");
    }

    #[test]
    fn what_is_chosen_freely_must_not_take_what_the_same_claim_asks_for() {
        let mut all = Allocation::new(RANGE);
        assert_eq!(all.take(RANGE, &[None, Some(30086)], || 0), Ok(vec![30087, 30086]));
    }

    #[test]
    fn freely_chosen_ports_avoid_the_static_band_until_the_rest_is_used_up() {
        let range = PortRange { first: 30000, last: 30099 };
        let mut all = Allocation::new(range);
        for i in 0..100 {
            let port = all.take(range, &[None], || i * 31).unwrap()[0];
            assert_eq!(port >= 30016, i < 84, "{i}: {port}");
        }
        assert_eq!(all.take(range, &[None], || 0), Err((0, Denied::Full)));
    }

    proptest! {
        #[test]
        fn no_port_is_taken_twice(wishes in proptest::collection::vec((proptest::option::of(30000_u16..30064), any::<u64>()), 1..100)) {
            let range = PortRange { first: 30000, last: 30063 };
            let (mut all, mut seen) = (Allocation::new(range), BTreeSet::new());
            for (wish, seed) in wishes {
                if let Ok(ports) = all.take(range, &[wish], || seed) {
                    prop_assert!(seen.insert(ports[0]));
                }
            }
            prop_assert_eq!(all.taken.iter().count(), seen.len());
        }
    }
}
