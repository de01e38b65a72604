//! The built program, with wrong arguments and with simple ones.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

fn windlass(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.env_clear().env("WINDLASS_DATA_DIR", dir).env("WINDLASS_CONFIG", "").args(arguments);
    command.output().unwrap()
}

fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = windlass(dir, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty(), "{arguments:?} printed data");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_version_speaks_to_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let output = windlass(dir.path(), &["version", "-o", "json"]);
    let data: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(data["kubernetesVersion"], "v1.36.0");
    assert!(output.stderr.is_empty());
}

#[test]
fn what_needs_a_server_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["kubeconfig"][..], &["token", "create"], &["token", "list"], &["token", "delete", "abcdef"]]
    {
        let error = refused(dir.path(), arguments);
        assert!(error.starts_with("error: there is no ") && error.contains("server"), "{error}");
    }
}

#[test]
fn mistakes_are_named_and_secrets_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "nod-name: n1\n").unwrap();
    let file = file.to_str().unwrap();
    let error = refused(dir.path(), &["agent", "--config", file]);
    assert!(error.contains("unknown setting \"nod-name\"") && error.contains(file), "{error}");
    let node = ["--node-name", "n1", "--node-ip", "192.0.2.1"];
    let error = refused(dir.path(), &[&["agent", "--token", "verysecret"][..], &node].concat());
    assert!(error.contains("parse token") && !error.contains("verysecret"), "{error}");
    let error = refused(dir.path(), &[&["agent", "--server", "http://192.0.2.1:6443"][..], &node].concat());
    assert!(error.contains("is not of the form https://HOST:PORT"), "{error}");
    let error = refused(dir.path(), &["agent", "--node-name", "N1", "--node-ip", "192.0.2.1"]);
    assert!(error.contains("RFC 1123"), "{error}");
    let error = refused(dir.path(), &[&["server", "--token", "verysecret"][..], &node].concat());
    assert!(error.contains("--token") && !error.contains("verysecret"), "{error}");
}

#[test]
fn an_agent_of_a_server_that_is_gone_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.env_clear().env("WINDLASS_PARENT", "1").env("WINDLASS_CONFIG", "").args([
        "agent",
        "--node-name",
        "n1",
    ]);
    let output = command.env("WINDLASS_DATA_DIR", dir.path()).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("the server that started this agent is gone"));
}
