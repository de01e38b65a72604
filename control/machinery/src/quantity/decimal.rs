//! `value * 10^scale` in 128 bits. Nothing overflows: digits that do not fit are rounded away from zero, and sums
//! past the end saturate.

use std::cmp::Ordering;

#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    pub(super) value: i128,
    pub(super) scale: i32,
}

fn pow10(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

fn digits(value: i128) -> i32 {
    value.unsigned_abs().checked_ilog10().map_or(0, |d| d as i32)
}

impl Decimal {
    pub(super) fn new(value: i128, scale: i32) -> Self {
        Decimal { value, scale }
    }

    /// Without trailing zeros; zero has scale 0.
    pub(super) fn normal(mut self) -> Self {
        if self.value == 0 {
            return Decimal::new(0, 0);
        }
        while self.value % 10 == 0 {
            self.value /= 10;
            self.scale = self.scale.saturating_add(1);
        }
        self
    }

    /// The least digits at a scale that is a multiple of three.
    pub(super) fn thousands(self) -> Self {
        let mut out = self.normal();
        while out.scale % 3 != 0 {
            let Some(value) = out.value.checked_mul(10) else { return out };
            out = Decimal::new(value, out.scale - 1);
        }
        out
    }

    /// The value in units of `10^scale`, rounded away from zero; `None` where that does not fit.
    pub(super) fn rescale(self, scale: i32) -> Option<i128> {
        let shift = i64::from(self.scale) - i64::from(scale);
        let factor = u32::try_from(shift.unsigned_abs()).ok().and_then(pow10);
        if self.value == 0 {
            return Some(0);
        }
        match (shift >= 0, factor) {
            (true, factor) => self.value.checked_mul(factor?),
            (false, None) => Some(self.value.signum()),
            (false, Some(factor)) => {
                let away = if self.value % factor == 0 { 0 } else { self.value.signum() };
                Some(self.value / factor + away)
            }
        }
    }

    pub(super) fn neg(self) -> Self {
        Decimal::new(self.value.saturating_neg(), self.scale)
    }

    pub(super) fn add(self, other: Decimal) -> Self {
        let (a, b) = (self.normal(), other.normal());
        if a.value == 0 {
            return b;
        }
        if b.value == 0 {
            return a;
        }
        // The finest scale at which both fit with room for a carry.
        let largest = (digits(a.value) + a.scale).max(digits(b.value) + b.scale);
        let scale = a.scale.min(b.scale).max(largest.saturating_sub(36));
        let sum = a.rescale(scale).zip(b.rescale(scale)).and_then(|(a, b)| a.checked_add(b));
        let larger = if a.magnitude_cmp(b) == Ordering::Less { b } else { a };
        sum.map_or(larger, |value| Decimal::new(value, scale))
    }

    pub(super) fn compare(self, other: Decimal) -> Ordering {
        let (a, b) = (self.normal(), other.normal());
        match a.value.signum().cmp(&b.value.signum()) {
            Ordering::Equal if a.value < 0 => b.magnitude_cmp(a),
            Ordering::Equal => a.magnitude_cmp(b),
            different => different,
        }
    }

    /// Compares absolute values; both must be normal.
    fn magnitude_cmp(self, other: Decimal) -> Ordering {
        if self.value == 0 || other.value == 0 {
            return self.value.unsigned_abs().cmp(&other.value.unsigned_abs());
        }
        let lead = |d: Decimal| i64::from(digits(d.value)) + i64::from(d.scale);
        lead(self).cmp(&lead(other)).then_with(|| {
            // The same leading place: at most 38 digits at the finer scale, which fit unsigned.
            let scale = self.scale.min(other.scale);
            let at = |d: Decimal| {
                let factor = u32::try_from(d.scale - scale).ok().and_then(|e| 10_u128.checked_pow(e));
                factor.and_then(|f| d.value.unsigned_abs().checked_mul(f)).unwrap_or(u128::MAX)
            };
            at(self).cmp(&at(other))
        })
    }
}
