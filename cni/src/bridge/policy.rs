//! Asking for rules for a pod's addresses before it has them, so that its first packet is judged. The agent answers once they are in the kernel,
//! and within seconds whatever it knows; one that does not answer is not running, and the runtime is told to try again.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Attachment, Call, Error};

/// Longer than the agent lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for the attachment's addresses. What is no pod's is nobody's affair.
pub(super) fn ask(call: &Call, socket: &Path, granted: &Attachment) -> Result<(), Error> {
    let arguments = &call.environment.args;
    let argument = |name: &str| arguments.get(name).map(String::as_str).unwrap_or_default();
    let (namespace, name) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME"));
    if namespace.is_empty() || name.is_empty() {
        return Ok(());
    }
    let addresses: Vec<IpAddr> = granted.ips.iter().map(|ip| ip.address.addr()).collect();
    let question = json!({
        "namespace": namespace, "name": name, "uid": argument("K8S_POD_UID"), "addresses": addresses,
    });
    let refused = |why: &dyn std::fmt::Display| {
        let socket = socket.display();
        Error::TryAgain(format!(
            "network policies of pod {namespace}/{name} are not in force: ask at {socket}: {why}"
        ))
    };
    match talk(socket, &question) {
        Ok(answer) => match answer["error"].as_str() {
            Some("") => Ok(()),
            Some(error) => Err(refused(&error)),
            None => Err(refused(&format!("answered {answer}"))),
        },
        Err(error) => Err(refused(&error)),
    }
}

fn talk(socket: &Path, question: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
