//! Interfaces of a network namespace, seen through a process in it.

/// Counters of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Bytes and errors received.
    pub rx_bytes: u64,
    pub rx_errors: u64,
    /// Bytes and errors sent.
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// The interface everybody means when they ask for a pod's network.
pub const DEFAULT: &str = "eth0";

/// The interfaces a process sees, loopback left out. Blocking.
pub fn of_process(pid: Option<u32>) -> Vec<Interface> {
    let path = match pid {
        Some(pid) => format!("/proc/{pid}/net/dev"),
        None => "/proc/self/net/dev".to_owned(),
    };
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let name = name.trim().to_owned();
        let at = |index: usize| counters.get(index).copied();
        (name != "lo").then_some(())?;
        Some(Interface { rx_bytes: at(0)?, rx_errors: at(2)?, tx_bytes: at(8)?, tx_errors: at(10)?, name })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 10 1 2 0 0 0 0 0 30 1 4 0 0 0 0 0\n";
        let eth0 = Interface { name: "eth0".into(), rx_bytes: 10, rx_errors: 2, tx_bytes: 30, tx_errors: 4 };
        assert_eq!(parse(text), [eth0]);
    }
}
