//! How pods of nodes reach each other: what flags say, and the ConfigMap that is laid over them.
//!
//! The ConfigMap `kube-system/windlass-network` is one setting for all nodes, and a change of it is followed at once. Each key counts by
//! itself; one that cannot be read is told of, and what was before it counts.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// The ConfigMap's name, in `kube-system`.
pub const CONFIG_MAP: &str = "windlass-network";

/// By which way packets go to another node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// For each node by itself: a route where it is on a link of ours, VXLAN otherwise.
    #[default]
    Auto,
    /// Routes only.
    Direct,
    /// VXLAN to every node.
    Vxlan,
}

impl Backend {
    const ALL: [Self; 3] = [Self::Auto, Self::Direct, Self::Vxlan];
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|backend| backend.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of auto, direct and vxlan"))
    }
}

/// What all nodes should have alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The way.
    pub backend: Backend,
    /// Number of the VXLAN network, of 24 bits.
    pub vxlan_id: u32,
    /// UDP port that VXLAN is sent to.
    pub vxlan_port: u16,
    /// Largest packet between nodes, in bytes; absent: that of the links.
    pub mtu: Option<u32>,
}

impl Default for Settings {
    /// The port is the one that IANA knows; the network's number is the one our routes have as their protocol.
    fn default() -> Self {
        Self { backend: Backend::Auto, vxlan_id: 87, vxlan_port: 4789, mtu: None }
    }
}

impl Settings {
    /// These, with what the ConfigMap says laid over them; and what of it cannot be read.
    #[must_use]
    pub fn overlaid(mut self, data: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut wrong = Vec::new();
        for (key, text) in data {
            if let Err(reason) = self.set(key, text.trim()) {
                wrong.push(format!("{key}: {reason}"));
            }
        }
        (self, wrong)
    }

    /// Sets one by its name.
    ///
    /// # Errors
    /// There is none of that name, or the text is no value of it; says which would be.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        fn number<T: TryFrom<u32>>(text: &str, least: u32, most: u32) -> Result<T, String> {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            let fitting = number.and_then(|number| T::try_from(number).ok());
            fitting.ok_or_else(|| format!("{text:?} is no number from {least} to {most}"))
        }
        match key {
            "backend" => self.backend = text.parse()?,
            "vxlan-id" => self.vxlan_id = number(text, 1, (1 << 24) - 1)?,
            "vxlan-port" => self.vxlan_port = number(text, 1, 65535)?,
            "mtu" => self.mtu = Some(number(text, 1280, 65535)?),
            _ => return Err("there is no such setting".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn one_wrong_key_must_not_cost_the_others() {
        let pairs =
            [("backend", "vxlan\n"), ("vxlan-id", "16777216"), ("vxlan-port", "8472"), ("colour", "red")];
        let (settings, wrong) = Settings::default().overlaid(&data(&pairs));
        let wanted = Settings { backend: Backend::Vxlan, vxlan_port: 8472, ..Settings::default() };
        assert_eq!(settings, wanted);
        assert_eq!(
            wrong,
            ["colour: there is no such setting", "vxlan-id: \"16777216\" is no number from 1 to 16777215",]
        );
    }

    #[test]
    fn what_no_network_can_have_is_refused() {
        for (key, text) in [
            ("backend", "VXLAN"),
            ("backend", ""),
            ("vxlan-id", "0"),
            ("vxlan-port", "65536"),
            ("vxlan-port", "-1"),
            ("backend", "wireguard"),
            ("mtu", "1279"),
            ("mtu", "x"),
        ] {
            assert!(Settings::default().set(key, text).is_err(), "{key} {text}");
        }
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
    }
}
