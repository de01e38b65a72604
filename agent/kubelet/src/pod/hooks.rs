//! Lifecycle handlers: what runs in a container right after its start and right before its stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::context::Context;
use crate::probe::http;

/// Why a handler failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime did not run it.
    #[error("{0}")]
    Exec(#[from] cri_proto::client::Error),
    /// It ran and failed.
    #[error("command '{command}' exited with {code}: {output}")]
    Exit {
        /// The command's words.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it wrote, both streams.
        output: String,
    },
    /// The request failed.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// It has no action.
    #[error("invalid handler: {0}")]
    Invalid(&'static str),
}

/// Runs a handler in a container; `ips` are its pod's addresses.
pub async fn run(
    context: &Context,
    container: &Container,
    id: &str,
    ips: &[String],
    handler: &LifecycleHandler,
) -> Result<(), Error> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let text = command.join(" ");
        let answer = context.runtime.exec_sync(id, command, Duration::ZERO).await?;
        if answer.exit_code != 0 {
            let output = [answer.stdout, answer.stderr].concat();
            let output = String::from_utf8_lossy(&output[..output.len().min(4096)]).into_owned();
            return Err(Error::Exit { command: text, code: answer.exit_code, output });
        }
        return Ok(());
    }
    if let Some(get) = &handler.http_get {
        let host = ips.first().map(String::as_str).unwrap_or_default();
        let request = http::Request::of(get, container, host, "kube-lifecycle/1.36")?;
        http::get(&request, Duration::from_secs(60)).await?;
        return Ok(());
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(Error::Invalid("no exec, httpGet or sleep action"))
}
