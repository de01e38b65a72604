//! One call of a plugin: environment and configuration, checked as far as every plugin needs it.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    Attachment, Command, Dns, Environment, Error, Version, environment::is_identifier, fields::Fields,
    remarks::Remarks,
};

/// One call of a plugin.
#[derive(Debug)]
pub struct Call {
    /// The `CNI_*` variables.
    pub environment: Environment,
    /// The configuration's version, which the result must have.
    pub version: Version,
    /// `name` of the network configuration.
    pub network: String,
    /// The configuration as it came, for delegated plugins.
    pub configuration: Value,
    /// What was found in the configuration and is not acted on.
    pub(crate) remarks: Remarks,
}

/// Who holds a resource: one interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Owner {
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name inside the container.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl Call {
    /// Reads the configuration and checks that its version allows the command.
    ///
    /// # Errors
    /// Codes 1, 6 and 7, with the field's name.
    pub fn parse(environment: Environment, stdin: &[u8]) -> Result<Self, Error> {
        let configuration: Value = serde_json::from_slice(stdin)
            .map_err(|error| Error::decode("network configuration on stdin", &error))?;
        let mut fields = Fields::of("", configuration.clone())?;
        let version = Version::parse(&fields.take_or_default::<String>("cniVersion")?)?;
        let oldest = match environment.command {
            Command::Check => Version::V0_4_0,
            Command::Status | Command::Gc => Version::V1_1_0,
            _ => Version::V0_1_0,
        };
        if version < oldest {
            return Err(Error::CommandTooNew {
                version: version.as_str(),
                command: environment.command.as_str(),
            });
        }
        let network: String = fields.take_or_default("name")?;
        if network.is_empty() {
            return Err(Error::config("name", "missing network name"));
        }
        if !is_identifier(&network) || network.len() > 180 {
            return Err(Error::config(
                "name",
                format!("invalid characters found in network name {network:?}"),
            ));
        }
        Ok(Self { environment, version, network, configuration, remarks: Remarks::default() })
    }

    /// The container's interface this call is about.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { container: self.environment.container.clone(), interface: self.environment.interface.clone() }
    }

    /// The plugin's fields, less those every configuration may have.
    pub(crate) fn fields(&self) -> Result<Fields, Error> {
        let mut fields = Fields::of("", self.configuration.clone())?;
        for name in ["cniVersion", "name", "type", "capabilities", "prevResult", "dns"] {
            fields.take::<Value>(name)?;
        }
        Ok(fields)
    }

    /// The result so far of the plugins before this one, or of the ADD that is to be undone or checked.
    ///
    /// # Errors
    /// Code 6.
    pub fn previous(&self) -> Result<Option<Attachment>, Error> {
        match self.configuration.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Attachment::parse("prevResult", value).map(Some),
        }
    }

    /// The name resolution that the configuration itself asks for.
    ///
    /// # Errors
    /// Code 6.
    pub fn dns(&self) -> Result<Option<Dns>, Error> {
        match self.configuration.get("dns") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Dns::deserialize(value).map(Some).map_err(|error| Error::decode("dns", &error)),
        }
    }

    /// What GC must leave alone.
    ///
    /// # Errors
    /// Code 7 where the runtime did not say: taking that for "nothing" would detach every container.
    pub fn valid_attachments(&self) -> Result<Vec<Owner>, Error> {
        let field = "cni.dev/valid-attachments";
        match self.configuration.get(field) {
            None | Some(Value::Null) => Err(Error::config(field, "missing from a GC configuration")),
            Some(value) => Vec::<Owner>::deserialize(value).map_err(|error| Error::decode(field, &error)),
        }
    }
}
