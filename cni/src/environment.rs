//! The `CNI_*` environment variables.

use std::{collections::BTreeMap, path::PathBuf};

use crate::Error;

/// What the runtime wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    /// Is it attached as ADD left it?
    Check,
    /// Could an ADD be served?
    Status,
    /// Drop what belongs to no attachment.
    Gc,
    /// Which versions are spoken?
    Version,
}

impl Command {
    /// As the specification writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version];

    /// The variables without which the command means nothing.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
            Self::Version => &[],
        }
    }
}

/// The environment of one call, checked.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: Command,
    /// The container's (sandbox's) id; empty where the command has none.
    pub container: String,
    /// The interface's name inside the container.
    pub interface: String,
    /// Path of the container's network namespace; empty on a DEL of a container that is gone.
    pub netns: String,
    /// `CNI_ARGS`, split.
    pub args: BTreeMap<String, String>,
    /// Where delegated plugins are.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the container's namespace may be the plugin's own.
    pub netns_override: bool,
}

// Container ids become file names, link aliases and nftables comments of at most 255 bytes together with other names.
const LONGEST_CONTAINER_ID: usize = 180;

impl Environment {
    /// Reads and checks the variables that `lookup` returns.
    ///
    /// # Errors
    /// Code 4 with the variable's name.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variable = |name: &str| lookup(name).unwrap_or_default();
        let command = variable("CNI_COMMAND");
        let command = Command::ALL
            .into_iter()
            .find(|known| known.as_str() == command)
            .ok_or_else(|| Error::Environment(format!("unknown CNI_COMMAND: {command}")))?;
        let missing: Vec<&str> =
            command.required().iter().copied().filter(|name| variable(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(Error::Environment(format!(
                "required env variables [{}] missing",
                missing.join(",")
            )));
        }
        let (container, interface) = (variable("CNI_CONTAINERID"), variable("CNI_IFNAME"));
        if command.required().contains(&"CNI_CONTAINERID") {
            check_container(&container)?;
            check_interface(&interface)?;
        }
        let netns_override =
            matches!(variable("CNI_NETNS_OVERRIDE").to_ascii_lowercase().as_str(), "1" | "t" | "true");
        Ok(Self {
            command,
            container,
            interface,
            netns: variable("CNI_NETNS"),
            args: split_args(&variable("CNI_ARGS"))?,
            path: variable("CNI_PATH")
                .split(':')
                .filter(|part| !part.is_empty())
                .map(PathBuf::from)
                .collect(),
            netns_override,
        })
    }

    /// `CNI_ARGS` a plugin knows, or an error if there are others and `IgnoreUnknown` is not set.
    ///
    /// # Errors
    /// Code 4 with the unknown argument's name.
    pub fn known_args(&self, known: &[&str]) -> Result<&BTreeMap<String, String>, Error> {
        let ignore = self
            .args
            .get("IgnoreUnknown")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true"));
        match self.args.keys().find(|name| *name != "IgnoreUnknown" && !known.contains(&name.as_str())) {
            Some(name) if !ignore => Err(Error::Environment(format!("ARGS: unknown args [{name:?}]"))),
            _ => Ok(&self.args),
        }
    }
}

fn split_args(text: &str) -> Result<BTreeMap<String, String>, Error> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::Environment(format!("CNI_ARGS: invalid pair {pair:?}"))),
        })
        .collect()
}

/// The specification's rule for container ids and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_container(id: &str) -> Result<(), Error> {
    if !is_identifier(id) {
        return Err(Error::Environment(format!("CNI_CONTAINERID: invalid characters in {id:?}")));
    }
    if id.len() > LONGEST_CONTAINER_ID {
        return Err(Error::Environment(format!(
            "CNI_CONTAINERID: {} characters, at most {LONGEST_CONTAINER_ID} are supported",
            id.len()
        )));
    }
    Ok(())
}

/// The kernel's rule for interface names.
fn check_interface(name: &str) -> Result<(), Error> {
    let reason = if name.len() > 15 {
        "interface name is too long; it should be less than 16 characters"
    } else if name == "." || name == ".." {
        "interface name is . or .."
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "interface name contains / or : or whitespace characters"
    } else {
        return Ok(());
    };
    Err(Error::Environment(format!("CNI_IFNAME: {reason}: {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Error> {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment::read(|name| pairs.get(name).cloned())
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert_eq!(error.code(), 4);
        assert_eq!(error.to_string(), "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_PATH] missing");
    }

    #[test]
    fn names_that_would_escape_are_refused() {
        let base = [("CNI_COMMAND", "DEL"), ("CNI_PATH", "/opt")];
        for (id, interface) in
            [("../x", "eth0"), ("x", "../../e"), ("x", "a b"), ("x", "sixteen-letters-"), ("", "e")]
        {
            let mut pairs = base.to_vec();
            pairs.extend([("CNI_CONTAINERID", id), ("CNI_IFNAME", interface)]);
            assert_eq!(read(&pairs).unwrap_err().code(), 4, "{id} {interface}");
        }
    }

    #[test]
    fn unknown_args_need_leave_to_be_ignored() {
        let mut pairs = vec![("CNI_COMMAND", "VERSION"), ("CNI_ARGS", "K8S_POD_NAME=a;IP=10.0.0.1")];
        assert!(read(&pairs).unwrap().known_args(&["IP"]).is_err());
        pairs[1].1 = "IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.0.0.1";
        assert_eq!(read(&pairs).unwrap().known_args(&["IP"]).unwrap()["IP"], "10.0.0.1");
        pairs[1].1 = "novalue";
        assert_eq!(read(&pairs).unwrap_err().code(), 4);
    }
}
