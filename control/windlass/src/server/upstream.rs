//! Flags of kube-apiserver that `server` has, too: read by the same table as there, so that a value means the same in both.

use crate::cli::ApiServerFlags;
use crate::settings;

/// The same as kube-apiserver is given them, without dashes.
pub(super) fn arguments(flags: &ApiServerFlags) -> anyhow::Result<Vec<String>> {
    let given = settings::fields(flags)?.into_iter();
    Ok(given.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::flags::Flags;
    use crate::parts::apiserver::settings::of_arguments;
    use crate::parts::component::Component;
    use clap::Parser as _;

    fn flags(arguments: &[&str]) -> ApiServerFlags {
        let all = ["windlass", "server"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Server(flags) => flags.api_server,
            _ => unreachable!("server was asked for"),
        }
    }

    fn read(flags: &ApiServerFlags) -> anyhow::Result<Flags> {
        let table = Component::named("kube-apiserver").unwrap().table();
        of_arguments(&table, &arguments(flags)?)
    }

    #[test]
    fn every_flag_is_upstreams_and_has_an_effect() {
        let names = settings::fields(&ApiServerFlags::default()).unwrap();
        assert!(names.len() > 30);
        for name in names.keys() {
            let value = match name.as_str() {
                name if name.ends_with("wait") || name.ends_with("backoff") => "1s",
                name if name.ends_with("enable")
                    || name.ends_with("enabled")
                    || name.ends_with("compress") =>
                {
                    "true"
                }
                _ => "1",
            };
            let found = read(&flags(&[&format!("--{name}={value}")])).unwrap();
            assert_eq!(found.text(name), Some(value), "{name}");
            assert!(found.unused().is_empty(), "{name}");
        }
    }

    #[test]
    fn booleans_and_numbers_are_read_as_upstream_reads_them() {
        let found = read(&flags(&["--audit-log-compress"])).unwrap();
        assert_eq!(found.bool("audit-log-compress"), Some(true));
        let found = read(&flags(&["--audit-webhook-batch-throttle-enable=false"])).unwrap();
        assert_eq!(found.bool("audit-webhook-batch-throttle-enable"), Some(false));
        let error = read(&flags(&["--audit-log-maxage=old"])).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("for \"--audit-log-maxage\" flag"), "{error}");
    }

    #[test]
    fn a_file_may_write_numbers_and_booleans() {
        let written: ApiServerFlags = serde_json::from_str(
            r#"{"audit-log-maxage": 3, "audit-log-compress": true, "audit-log-path": "-"}"#,
        )
        .unwrap();
        let found = read(&written).unwrap();
        assert_eq!(found.int("audit-log-maxage"), Some(3));
        assert_eq!((found.bool("audit-log-compress"), found.text("audit-log-path")), (Some(true), Some("-")));
    }
}
