//! The sockets of node plugins: storage drivers, and how they make themselves known.
//!
//! One connection a socket, made at the first call; every call has a deadline, as upstream's kubelet sets it.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use v1::node_client::NodeClient;

/// Generated from `proto/csi-v1.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// Generated from `proto/pluginregistration-v1.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// Upstream's deadline of a driver's calls.
const CALL: Duration = Duration::from_secs(120);
/// The same for registration.
const REGISTRATION: Duration = Duration::from_secs(10);

/// A plugin's call that failed; the text is what Go's clients print.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rpc error: code = {} desc = {}", crate::client::go_code(.0.code()), .0.message())]
pub struct Error(pub Status);

impl Error {
    /// The driver may have done it or still be at it: nothing must be cleaned up as if it had not begun.
    pub fn is_unfinished(&self) -> bool {
        use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
        matches!(self.0.code(), Cancelled | DeadlineExceeded | Unavailable | ResourceExhausted | Aborted)
    }
}

fn channel(socket: &Path) -> Result<Channel, Error> {
    let address = format!("unix://{}", socket.display());
    let endpoint =
        Endpoint::from_shared(address).map_err(|e| Error(Status::invalid_argument(e.to_string())))?;
    Ok(endpoint.connect_timeout(REGISTRATION).connect_lazy())
}

fn within<T>(span: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(span);
    request
}

/// What a driver's node service can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Volumes are staged once a node before they are published to pods.
    pub stage: bool,
    /// It gives volumes to the pod's group itself.
    pub mount_group: bool,
    /// It tells one pod on a node from several.
    pub single_node_multi_writer: bool,
}

/// A driver's node service.
#[derive(Clone, Debug)]
pub struct Driver(NodeClient<Channel>);

impl Driver {
    /// The driver at a socket. Nothing is connected yet.
    ///
    /// # Errors
    /// For a path that cannot be a socket's.
    pub fn at(socket: &Path) -> Result<Self, Error> {
        channel(socket).map(|channel| Self(NodeClient::new(channel)))
    }

    /// `NodeGetInfo`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn info(&self) -> Result<v1::NodeGetInfoResponse, Error> {
        let request = within(CALL, v1::NodeGetInfoRequest {});
        self.0.clone().node_get_info(request).await.map(tonic::Response::into_inner).map_err(Error)
    }

    /// `NodeGetCapabilities`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn abilities(&self) -> Result<Abilities, Error> {
        use v1::node_service_capability::{Type, rpc};
        let request = within(CALL, v1::NodeGetCapabilitiesRequest {});
        let answer = self.0.clone().node_get_capabilities(request).await.map_err(Error)?.into_inner();
        let listed: Vec<rpc::Type> = answer
            .capabilities
            .into_iter()
            .filter_map(|c| c.r#type.map(|Type::Rpc(rpc)| rpc.r#type()))
            .collect();
        Ok(Abilities {
            stage: listed.contains(&rpc::Type::StageUnstageVolume),
            mount_group: listed.contains(&rpc::Type::VolumeMountGroup),
            single_node_multi_writer: listed.contains(&rpc::Type::SingleNodeMultiWriter),
        })
    }

    /// `NodeStageVolume`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn stage(&self, request: v1::NodeStageVolumeRequest) -> Result<(), Error> {
        self.0.clone().node_stage_volume(within(CALL, request)).await.map(drop).map_err(Error)
    }

    /// `NodeUnstageVolume`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn unstage(&self, volume: &str, path: &Path) -> Result<(), Error> {
        let request = v1::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: path.to_string_lossy().into_owned(),
        };
        self.0.clone().node_unstage_volume(within(CALL, request)).await.map(drop).map_err(Error)
    }

    /// `NodePublishVolume`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn publish(&self, request: v1::NodePublishVolumeRequest) -> Result<(), Error> {
        self.0.clone().node_publish_volume(within(CALL, request)).await.map(drop).map_err(Error)
    }

    /// `NodeUnpublishVolume`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn unpublish(&self, volume: &str, path: &Path) -> Result<(), Error> {
        let request = v1::NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: path.to_string_lossy().into_owned(),
        };
        self.0.clone().node_unpublish_volume(within(CALL, request)).await.map(drop).map_err(Error)
    }
}

/// A socket in the registration directory.
#[derive(Clone, Debug)]
pub struct Registration(registration::registration_client::RegistrationClient<Channel>);

impl Registration {
    /// The plugin behind a socket. Nothing is connected yet.
    ///
    /// # Errors
    /// For a path that cannot be a socket's.
    pub fn at(socket: &Path) -> Result<Self, Error> {
        channel(socket).map(|c| Self(registration::registration_client::RegistrationClient::new(c)))
    }

    /// `GetInfo`.
    ///
    /// # Errors
    /// What the plugin says.
    pub async fn info(&self) -> Result<registration::PluginInfo, Error> {
        let request = within(REGISTRATION, registration::InfoRequest {});
        self.0.clone().get_info(request).await.map(tonic::Response::into_inner).map_err(Error)
    }

    /// `NotifyRegistrationStatus`.
    ///
    /// # Errors
    /// What the plugin says.
    pub async fn notify(&self, outcome: Result<(), String>) -> Result<(), Error> {
        let status = registration::RegistrationStatus {
            plugin_registered: outcome.is_ok(),
            error: outcome.err().unwrap_or_default(),
        };
        let request = within(REGISTRATION, status);
        self.0.clone().notify_registration_status(request).await.map(drop).map_err(Error)
    }
}
