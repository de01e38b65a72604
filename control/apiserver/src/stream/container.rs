//! Which container of a pod a request means. Upstream: `pkg/registry/core/pod/strategy.go`.

use crate::objects::{list, names, text};
use machinery::status::Status;
use serde_json::Value;

/// The container asked for, or the only one there is.
pub fn choose(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = names(pod).1;
    let of = |pointer: &str| -> Vec<&str> { list(pod, pointer).iter().map(|c| text(c, "/name")).collect() };
    let (containers, init) = (of("/spec/containers"), of("/spec/initContainers"));
    let ephemeral = of("/spec/ephemeralContainers");
    if !asked.is_empty() {
        let known = [&containers, &init, &ephemeral].into_iter().any(|names| names.contains(&asked));
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match containers.as_slice() {
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        [only] => Ok((*only).to_owned()),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_choice_and_its_errors_are_upstreams() {
        let one = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(choose(&one, "").unwrap(), "a");
        assert_eq!(choose(&one, "i").unwrap(), "i");
        assert_eq!(choose(&one, "b").unwrap_err().message, "container b is not valid for pod x");
        let mut two =
            json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            choose(&two, "").unwrap_err().message,
            "a container name must be specified for pod x, choose one of: [a b]"
        );
        two["spec"]["initContainers"] = json!([{"name": "i"}]);
        assert_eq!(
            choose(&two, "").unwrap_err().message,
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(choose(&json!({}), "").unwrap_err().code, 400);
    }
}
