//! Pressure stall information: how long tasks of a cgroup waited for want of processor, memory or disk. Version 2 alone counts it.

/// What was lost for want of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// While some tasks waited.
    pub some: Stall,
    /// While all of them did; older kernels do not count it for processors.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Hundredths of a percent of the last 10, 60 and 300 seconds.
    pub averages: [u64; 3],
    /// Microseconds in all.
    pub total: u64,
}

impl Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub fn percents(&self) -> [f64; 3] {
        self.averages.map(|hundredths| hundredths as f64 / 100.0)
    }
}

/// Reads a `cpu.pressure`, `memory.pressure` or `io.pressure`; `None` where there is nothing of the kind.
pub(super) fn parse(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let of = |name: &str| {
            rest.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let average = |name: &str| of(name).and_then(hundredths);
        Some(Stall {
            averages: [average("avg10")?, average("avg60")?, average("avg300")?],
            total: of("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

/// `12.34` as 1234: the kernel writes two places.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    let part: u64 = (part.len() == 2).then(|| part.parse().ok()).flatten()?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let both = "some avg10=1.50 avg60=0.07 avg300=100.00 total=12345\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let read = parse(both).unwrap();
        assert_eq!(read.some, Stall { averages: [150, 7, 10_000], total: 12_345 });
        assert_eq!(read.some.percents(), [1.5, 0.07, 100.0]);
        assert_eq!(read.full.total, 5);
        let old = parse(both.lines().next().unwrap()).unwrap();
        assert_eq!(old.full, Stall::default());
        for nothing in ["", "some avg10=x avg60=0.07 avg300=0.00 total=1", "some avg10=1.5 total=1"] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }
}
