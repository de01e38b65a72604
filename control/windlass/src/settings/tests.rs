use super::*;
use crate::cli::{Cli, Command, parse_life};
use clap::Parser as _;
use std::time::Duration;

fn server(arguments: &[&str]) -> ServerFlags {
    let all = ["windlass", "server"].iter().chain(arguments);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Server(flags) => *flags,
        _ => unreachable!("server was asked for"),
    }
}

fn agent(arguments: &[&str]) -> AgentFlags {
    let all = ["windlass", "agent"].iter().chain(arguments);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Agent(flags) => *flags,
        _ => unreachable!("agent was asked for"),
    }
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "port: 7443\nnode-name: from-file\ncluster-cidr: 10.1.0.0/16\nnode-ip: [192.0.2.1, 192.0.2.2]\n\
                no-agent: true\nserver: https://other:6443\n";
    let merged = merge_text(server(&["--node-name", "from-flag"]), text).unwrap();
    assert_eq!((merged.port, merged.no_agent), (Some(7443), true));
    assert_eq!(merged.node.node_name.as_deref(), Some("from-flag"));
    assert_eq!(merged.node.cluster_cidrs(), ["10.1.0.0/16".parse().unwrap()]);
    let config = merged.node.config(None).unwrap();
    assert_eq!(config.node_ips.len(), 2);
    assert_eq!(config.cluster_dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    let merged = merge_text(agent(&[]), text).unwrap();
    assert_eq!(merged.server.as_deref(), Some("https://other:6443"));
}

#[test]
fn a_wrong_file_names_its_mistake() {
    let error = |text: &str| format!("{:#}", merge_text(agent(&[]), text).unwrap_err());
    assert_eq!(error("nod-name: x"), "unknown setting \"nod-name\"");
    assert!(error("node-ip: [nonsense]").starts_with("setting \"node-ip\": "));
    assert_eq!(error("- a"), "a mapping of settings is expected");
    assert!(!error("a: [").is_empty());
    assert_eq!(merge_text(agent(&[]), "").unwrap(), agent(&[]));
}

#[test]
fn a_named_file_must_exist_and_an_empty_name_means_none() {
    assert!(merge(agent(&[]), &Some("/nonexistent/config.yaml".into())).is_err());
    assert!(merge(agent(&[]), &Some(PathBuf::new())).is_ok());
}

#[test]
fn flags_travel_to_the_child_unchanged() {
    let text = "cluster-dns: [10.96.0.10]\nnode-label: [a=b, c=d]\ncgroup-root: /lab\n";
    let flags = AgentFlags {
        server: Some("https://127.0.0.1:6443".into()),
        node: merge_text(server(&["--node-ip", "192.0.2.1,2001:db8::1"]), text).unwrap().node,
        ..AgentFlags::default()
    };
    let arguments = to_arguments(&flags).unwrap();
    let again = agent(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again, flags);
}

#[test]
fn labels_taints_and_ranges_are_checked() {
    assert_eq!(parse_taint("a=b:NoSchedule").unwrap().value.as_deref(), Some("b"));
    assert_eq!(parse_taint("a:NoExecute").unwrap().value, None);
    for bad in ["a", "a:", ":NoSchedule", "a=b:Never"] {
        assert!(parse_taint(bad).is_err(), "{bad}");
    }
    assert!(parse_label("=b").is_err());
    assert!(nth_address(&"10.0.0.0/30".parse().unwrap(), 10).is_err());
    assert_eq!(
        nth_address(&"fd00::/112".parse().unwrap(), 10).unwrap(),
        "fd00::a".parse::<IpAddr>().unwrap()
    );
}

#[test]
fn lives_are_durations() {
    assert_eq!(parse_life("24h"), Ok(Duration::from_secs(86400)));
    assert_eq!(parse_life("0"), Ok(Duration::ZERO));
    assert!(parse_life("soon").is_err() && parse_life("-1h").is_err());
}

#[test]
fn a_wrong_word_must_not_keep_anybody_from_undoing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        merge_leniently(AgentFlags::default(), &Some(path.clone()))
    };
    let (flags, wrong) = read("nonsense: 1\nnode-ip: [here]\ndata-dir: /data\n").unwrap();
    assert_eq!(flags.node.data_dir(), Path::new("/data"));
    let texts: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].ends_with("unknown setting \"nonsense\"") && texts[1].contains("setting \"node-ip\""));
    for unreadable in ["- a list\n", "a: [\n"] {
        assert!(read(unreadable).is_err(), "what it says of places is not known");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(merge_leniently(AgentFlags::default(), &Some(path.clone())).is_err());
}
