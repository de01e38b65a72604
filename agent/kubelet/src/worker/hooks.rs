//! Lifecycle handlers: what runs in a container right after its start and right before its stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

use crate::probe::http;
use crate::worker::context::Context;

/// What of a command's output is told.
const OUTPUT_BYTES: usize = 4096;
/// How long a handler's request may take: upstream sets no bound but the grace of a stop.
const REQUEST: Duration = Duration::from_secs(600);

/// Runs a handler in a container; `ips` are its pod's addresses. The error is upstream's text, for the status only:
/// a container's output is told in no event.
pub async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    ips: &[String],
    handler: &LifecycleHandler,
) -> Result<(), String> {
    let (name, described) = (&container.name, crate::pod::described(pod));
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let words = command.join(" ");
        let failed = |error: String, output: &[u8]| {
            let output = machinery::goformat::go_quote(&String::from_utf8_lossy(output));
            format!(
                "Exec lifecycle hook ([{words}]) for Container {name:?} in Pod {described:?} failed - error: {error}, message: {output}"
            )
        };
        let answer = context.runtime.exec_sync(id, command, Duration::ZERO).await;
        let answer = answer.map_err(|error| failed(error.runtime_message(), b""))?;
        if answer.exit_code != 0 {
            let errors = String::from_utf8_lossy(&answer.stderr);
            let error = format!("command '{words}' exited with {}: {errors}", answer.exit_code);
            let output = [answer.stdout, answer.stderr.clone()].concat();
            return Err(failed(error, &output[..output.len().min(OUTPUT_BYTES)]));
        }
        return Ok(());
    }
    if let Some(get) = &handler.http_get {
        let path = get.path.as_deref().unwrap_or_default();
        return request(context, pod, container, ips, get).await.map_err(|error| {
            format!(
                "HTTP lifecycle hook ({path}) for Container {name:?} in Pod {described:?} failed - error: {error}"
            )
        });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler: it has no exec, httpGet or sleep action".to_owned())
}

/// Whatever is answered is a success. A server that does not speak TLS is asked again without.
async fn request(
    context: &Context,
    pod: &Pod,
    container: &Container,
    ips: &[String],
    get: &HTTPGetAction,
) -> Result<(), http::Error> {
    let host = ips.first().map(String::as_str).unwrap_or_default();
    let user_agent = format!("kube-lifecycle/{}", machinery::release::MAJOR_MINOR);
    let request = http::Request::of(get, container, host, &user_agent)?;
    match Box::pin(http::get(&request, REQUEST)).await {
        Err(http::Error::Get { reason, .. }) if reason == http::PLAIN_ANSWER => {
            Box::pin(http::get(&request.in_plain(), REQUEST)).await?;
            let text = format!(
                "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
                request.address()
            );
            context.recorder.warning(pod, None, "LifecycleHTTPFallback", text);
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}
