//! The numbers a packet carries in its priority while a sticky client's endpoint is looked for. Pure.

/// Numbers that tell sticky endpoints and where they belong: above, the number of the service's port; below, the endpoint's among that
/// port's. They are below those of slots, and no class of traffic usually has such a number either.
pub(crate) struct Numbers {
    first: u32,
    /// How many ports may have one.
    pub(crate) count: u32,
    /// The bits that tell the port.
    pub(crate) mask: u32,
    /// Added where a connection from inside the cluster looks for its endpoint.
    pub(crate) inside: u32,
}

pub(crate) const GROUPS: Numbers =
    Numbers { first: 0xc000_0000, count: 0x3ff0, mask: 0xffff_0000, inside: 0x8000 };

impl Numbers {
    /// The number of a port's endpoint; of the port itself without one.
    pub(crate) fn of(&self, group: u32, endpoint: u32) -> u32 {
        self.first + (group << 16) + endpoint
    }

    /// What [`Numbers::of`] was made of, and whether it is for connections from inside.
    pub(crate) fn read(&self, number: u32) -> Option<(u32, u32, bool)> {
        let group = number.checked_sub(self.first)? >> 16;
        let endpoint = number & !self.mask;
        (group < self.count).then_some((group, endpoint & !self.inside, endpoint & self.inside != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_slots_are_none_of_it() {
        for (group, endpoint) in [(0, 0), (0, 1), (7, 0x7fff), (GROUPS.count - 1, 3)] {
            let number = GROUPS.of(group, endpoint);
            assert_eq!(GROUPS.read(number), Some((group, endpoint, false)));
            assert_eq!(GROUPS.read(number | GROUPS.inside), Some((group, endpoint, true)));
            assert_eq!(number & GROUPS.mask, GROUPS.of(group, 0));
        }
        // a class of traffic, and slots
        for other in [0, 0x8001_0010, 0xfff0_0000, 0xfff5_0063] {
            assert_eq!(GROUPS.read(other), None, "{other:#x}");
        }
    }
}
