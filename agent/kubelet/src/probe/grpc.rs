//! The gRPC health protocol, `grpc.health.v1.Health/Check`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks whether `service` serves; the error is the text users see.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = super::http::joined(host, port);
    let unreachable = || {
        format!(
            "timeout: failed to connect service \"{address}\" within {}s: context deadline exceeded",
            timeout.as_secs()
        )
    };
    let late = || format!("timeout: health rpc did not complete within {}s", timeout.as_secs());
    let connected = AtomicBool::new(false);
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
        let channel = endpoint
            .user_agent(format!("kube-probe/{}", machinery::release::MAJOR_MINOR))
            .map_err(|e| e.to_string())?;
        let channel = channel.connect().await.map_err(|_| unreachable())?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|_| unreachable())?;
        connected.store(true, Ordering::Relaxed);
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        let answer = client.unary(request, path, codec).await.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => {
                format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}", status.message())
            }
            tonic::Code::DeadlineExceeded => late(),
            code => {
                let code = cri_proto::client::go_code(code);
                format!("error: health rpc probe failed: rpc error: code = {code} desc = {}", status.message())
            }
        })?;
        match answer.into_inner().status {
            SERVING => Ok(()),
            other => {
                let name = match other {
                    0 => "UNKNOWN",
                    2 => "NOT_SERVING",
                    _ => "SERVICE_UNKNOWN",
                };
                Err(format!("service unhealthy (responded with \"{name}\")"))
            }
        }
    };
    let outcome = tokio::time::timeout(timeout, Box::pin(ask)).await;
    outcome.unwrap_or_else(|_| Err(if connected.load(Ordering::Relaxed) { late() } else { unreachable() }))
}
