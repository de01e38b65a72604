//! A storage driver registers, is asked for a volume, and goes: over its real sockets, with a driver that writes down what it is asked.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use cri_proto::csi::registration::registration_server::{Registration, RegistrationServer};
use cri_proto::csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use cri_proto::csi::v1::node_server::{Node, NodeServer};
use cri_proto::csi::v1::node_service_capability::{Rpc, Type, rpc};
use cri_proto::csi::v1::*;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kubelet::csi::Drivers;
use kubelet::csi::register;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
    versions: Vec<String>,
    endpoint: String,
}

impl Fake {
    fn note(&self, text: impl Into<String>) {
        self.asked.lock().unwrap().push(text.into());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Registration for Fake {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: "fake.example.com".into(),
            endpoint: self.endpoint.clone(),
            supported_versions: self.versions.clone(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        let status = request.into_inner();
        self.note(format!("registered {} {}", status.plugin_registered, status.error));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Fake {
    async fn node_stage_volume(&self, r: Request<NodeStageVolumeRequest>) -> Answer<NodeStageVolumeResponse> {
        self.note(format!("stage {}", r.into_inner().volume_id));
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        r: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        self.note(format!("unstage {}", r.into_inner().volume_id));
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        _: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        Err(Status::deadline_exceeded("slow disk"))
    }

    async fn node_unpublish_volume(
        &self,
        r: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        self.note(format!("unpublish {}", r.into_inner().target_path));
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let rpc = Type::Rpc(Rpc { r#type: rpc::Type::StageUnstageVolume.into() });
        let capabilities = vec![NodeServiceCapability { r#type: Some(rpc) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        self.note("info");
        Ok(Response::new(NodeGetInfoResponse { node_id: "n-1".into(), ..NodeGetInfoResponse::default() }))
    }
}

/// Serves one service on a socket.
macro_rules! serve {
    ($service:expr, $socket:expr) => {{
        let listener = UnixListener::bind($socket).unwrap();
        let service = $service;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        })
    }};
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_driver_registers_serves_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, endpoint) = (dir.path().join("registry"), dir.path().join("csi.sock"));
    std::fs::create_dir(&registry).unwrap();
    let drivers = Drivers::default();
    let following = tokio::spawn(register::follow(registry.clone(), drivers.clone(), None));
    assert!(drivers.get("fake.example.com").is_err());
    let fake = Fake {
        versions: vec!["1.0.0".into()],
        endpoint: endpoint.to_string_lossy().into_owned(),
        ..Fake::default()
    };
    let socket = registry.join("fake.sock");
    let served = [
        serve!(NodeServer::new(fake.clone()), &endpoint),
        serve!(RegistrationServer::new(fake.clone()), &socket),
    ];
    until("the driver is registered", || drivers.get("fake.example.com").is_ok()).await;
    until("the driver is told", || fake.asked().iter().any(|a| a == "registered true ")).await;
    let driver = drivers.get("fake.example.com").unwrap();
    let abilities = driver.abilities().await.unwrap();
    assert!(abilities.stage && !abilities.mount_group);
    driver.stage(NodeStageVolumeRequest { volume_id: "v".into(), ..Default::default() }).await.unwrap();
    let slow = driver.publish(NodePublishVolumeRequest::default()).await.unwrap_err();
    assert!(slow.is_unfinished());
    assert_eq!(slow.to_string(), "rpc error: code = DeadlineExceeded desc = slow disk");
    driver.unpublish("v", Path::new("/target")).await.unwrap();
    driver.unstage("v", Path::new("/stage")).await.unwrap();
    assert_eq!(fake.asked()[2..], ["stage v", "unpublish /target", "unstage v"]);
    std::fs::remove_file(&socket).unwrap();
    until("the driver is forgotten", || drivers.get("fake.example.com").is_err()).await;
    following.abort();
    served.iter().for_each(|server| server.abort());
}

#[tokio::test]
async fn a_driver_of_another_version_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let drivers = Drivers::default();
    let following = tokio::spawn(register::follow(dir.path().to_owned(), drivers.clone(), None));
    let fake = Fake { versions: vec!["2.0.0".into()], ..Fake::default() };
    let served = serve!(RegistrationServer::new(fake.clone()), dir.path().join("new.sock"));
    let refused = |a: &String| a.starts_with("registered false ") && a.contains("None of the versions");
    until("the driver is refused", || fake.asked().iter().any(refused)).await;
    assert!(drivers.get("fake.example.com").is_err());
    following.abort();
    served.abort();
}
