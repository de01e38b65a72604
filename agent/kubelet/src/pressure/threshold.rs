//! What may run out, and how little of it may be left. Upstream: `pkg/kubelet/eviction/helpers.go`.

use std::collections::BTreeMap;

use machinery::quantity::Quantity;

/// Something that may run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Bytes of memory.
    MemoryAvailable,
    /// Bytes of the filesystem of the kubelet's root.
    NodefsAvailable,
    /// Inodes of the same filesystem.
    NodefsInodesFree,
    /// Bytes of the filesystem of the runtime's images.
    ImagefsAvailable,
    /// Inodes of the same filesystem.
    ImagefsInodesFree,
    /// Process ids, of the smaller of `pid_max` and `threads-max`.
    PidAvailable,
    /// Bytes of memory left to all pods together.
    AllocatableMemoryAvailable,
}

/// What is reclaimed, as events and messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `memory`
    Memory,
    /// `ephemeral-storage`
    Storage,
    /// `inodes`
    Inodes,
    /// `pids`
    Processes,
}

impl Resource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Processes => "pids",
        }
    }
}

/// What a signal's threshold makes of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// `MemoryPressure`.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

impl Pressure {
    pub const ALL: [Pressure; 3] = [Pressure::Memory, Pressure::Disk, Pressure::Pid];
}

impl Signal {
    /// The signal of that name.
    ///
    /// # Errors
    /// For a name there is none of; the text is upstream's.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, signal)| *signal).ok_or_else(|| format!("unsupported eviction signal {name}"))
    }

    const NAMES: [(&'static str, Signal); 6] = [
        ("memory.available", Signal::MemoryAvailable),
        ("nodefs.available", Signal::NodefsAvailable),
        ("nodefs.inodesFree", Signal::NodefsInodesFree),
        ("imagefs.available", Signal::ImagefsAvailable),
        ("imagefs.inodesFree", Signal::ImagefsInodesFree),
        ("pid.available", Signal::PidAvailable),
    ];

    /// As configuration and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let known = Self::NAMES.iter().find(|(_, signal)| *signal == self);
        known.map_or("allocatableMemory.available", |(name, _)| name)
    }

    /// The condition it leads to.
    #[must_use]
    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    /// What is reclaimed when so little is left.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::PidAvailable => Resource::Processes,
            Self::NodefsAvailable | Self::ImagefsAvailable => Resource::Storage,
            Self::NodefsInodesFree | Self::ImagefsInodesFree => Resource::Inodes,
        }
    }
}

/// What is left of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// So much is left,
    pub available: u64,
    /// Of so much: bytes, inodes or process ids.
    pub capacity: u64,
}

/// What could be observed.
pub type Observations = BTreeMap<Signal, Left>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// An amount of bytes.
    Bytes(u64),
    /// A share of the capacity, 0.1 for 10%.
    Share(f32),
}

impl Threshold {
    /// The amount, of a capacity.
    #[must_use]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // Upstream multiplies by a 32 bit float widened to 64: the texts nodes report depend on it.
            Self::Share(share) => (capacity as f64 * f64::from(share)) as u64,
        }
    }
}

/// The thresholds by signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Threshold>);

impl Default for Thresholds {
    /// Upstream's on Linux.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Signal::MemoryAvailable, Threshold::Bytes(100 << 20)),
            (Signal::NodefsAvailable, Threshold::Share(0.1)),
            (Signal::NodefsInodesFree, Threshold::Share(0.05)),
            (Signal::ImagefsAvailable, Threshold::Share(0.15)),
            (Signal::ImagefsInodesFree, Threshold::Share(0.05)),
        ]))
    }
}

impl Thresholds {
    /// Reads `evictionHard`; whatever it does not name has no threshold.
    pub fn parse(file: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut out = BTreeMap::new();
        for (name, text) in file {
            let threshold = value(name, text)?;
            if is_container_filesystem(name) {
                tracing::warn!("found {name} for eviction. ignoring");
                continue;
            }
            let signal = Signal::named(name)?;
            out.extend(threshold.map(|threshold| (signal, threshold)));
        }
        Ok(Self(out))
    }

    /// No signal has a threshold.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Every signal that has a threshold.
    pub fn all(&self) -> impl Iterator<Item = (Signal, Threshold)> {
        self.0.iter().map(|(signal, threshold)| (*signal, *threshold))
    }

    /// The threshold of `signal`; `None`: it never causes pressure.
    #[must_use]
    pub fn of(&self, signal: Signal) -> Option<Threshold> {
        self.0.get(&signal).copied()
    }

    /// Whether a signal has a threshold.
    #[must_use]
    pub fn watches(&self, signal: Signal) -> bool {
        self.0.contains_key(&signal)
    }

    /// Whether so little is left of a signal that its threshold is met.
    #[must_use]
    pub fn is_met(&self, signal: Signal, left: Left) -> bool {
        self.of(signal).is_some_and(|threshold| left.available < threshold.of(left.capacity))
    }
}

/// Signals of the filesystem of containers' layers: known, but what is configured of them does not count. It is the one of images, or the
/// node's, whose thresholds are its own (upstream: `UpdateContainerFsThresholds`).
#[must_use]
pub fn is_container_filesystem(name: &str) -> bool {
    matches!(name, "containerfs.available" | "containerfs.inodesFree")
}

/// A threshold's text; shares of 0% and 100% turn a threshold off.
fn value(signal: &str, text: &str) -> Result<Option<Threshold>, String> {
    if let Some(digits) = text.strip_suffix('%') {
        let share: f32 = digits.parse().map_err(|_| format!("{signal}: {text:?} is no percentage"))?;
        if share < 0.0 || share.is_nan() {
            return Err(format!("eviction percentage threshold {signal} must be >= 0%: {text}"));
        }
        if share > 100.0 {
            return Err(format!("eviction percentage threshold {signal} must be <= 100%: {text}"));
        }
        return Ok((share > 0.0 && share < 100.0).then_some(Threshold::Share(share / 100.0)));
    }
    let quantity = Quantity::parse(text).map_err(|e| format!("{signal}: {e}"))?;
    match u64::try_from(quantity.value()) {
        Ok(amount) if amount > 0 => Ok(Some(Threshold::Bytes(amount))),
        _ => Err(format!("eviction threshold {signal} must be positive: {text}")),
    }
}
