//! The parameters of exec, attach and port-forward, under the kubelet's names and under the API's.

use crate::server::query::Query;

/// The standard streams asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    /// Standard error; never with a terminal, which has one output.
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    pub fn parse(query: &Query) -> Result<Self, &'static str> {
        let tty = query.flag(&["tty"]);
        let streams = Self {
            stdin: query.flag(&["input", "stdin"]),
            stdout: query.flag(&["output", "stdout"]),
            stderr: query.flag(&["error", "stderr"]) && !tty,
            tty,
        };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr")
        }
    }
}

/// The ports of a port-forward by the old WebSocket protocol; SPDY names them in its streams.
pub fn ports(query: &Query) -> Result<Vec<i32>, String> {
    let values = query.all("port");
    if values.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    let mut ports = Vec::new();
    for text in values.iter().flat_map(|value| value.split(',')) {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(i32::from(port)),
            Ok(_) => return Err(format!("port {text:?} must be > 0")),
            Err(_) => return Err(format!("unable to parse {text:?} as a port: invalid syntax")),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_count_and_a_terminal_has_one_output() {
        let of = |text: &str| Streams::parse(&Query::new(Some(text)));
        let want = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(of("input=1&output=1&error=1&tty=1"), Ok(want));
        assert_eq!(of("stdin=true&stdout=true&stderr=true&tty=true"), Ok(want));
        assert_eq!(of("error=1").map(|s| s.stderr), Ok(true));
        assert!(of("tty=1").is_err() && of("error=1&tty=1").is_err());
    }

    #[test]
    fn ports_are_checked() {
        let of = |text: &str| ports(&Query::new(Some(text)));
        assert_eq!(of("port=80,81&port=82"), Ok(vec![80, 81, 82]));
        for bad in ["", "port=0", "port=65536", "port=http"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
