//! Upstream's flags about leadership, which scheduler and controllers share.

use crate::flags::Flags;
use anyhow::bail;
use client::leader::Settings;

/// What to contend for; `None` with `--leader-elect=false`. `from` are the defaults, which a configuration file may have changed.
pub(crate) fn settings(flags: &Flags, elect: bool, mut from: Settings) -> anyhow::Result<Option<Settings>> {
    if !flags.bool("leader-elect").unwrap_or(elect) {
        return Ok(None);
    }
    if let Some(lock) = flags.text("leader-elect-resource-lock").filter(|lock| *lock != "leases") {
        bail!("resourceLock: Invalid value: {lock:?}: resourceLock value must be \"leases\"");
    }
    for (name, field) in [
        ("leader-elect-resource-name", &mut from.name),
        ("leader-elect-resource-namespace", &mut from.namespace),
    ] {
        if let Some(text) = flags.text(name) {
            text.clone_into(field);
        }
    }
    for (name, field) in [
        ("leader-elect-lease-duration", &mut from.lease),
        ("leader-elect-renew-deadline", &mut from.renew_deadline),
        ("leader-elect-retry-period", &mut from.retry),
    ] {
        if let Some(span) = flags.duration(name) {
            *field = span;
        }
    }
    check(&from)?;
    Ok(Some(from))
}

/// Upstream's rules: a leader must notice its loss before anybody else may lead.
fn check(settings: &Settings) -> anyhow::Result<()> {
    if settings.retry.is_zero() || settings.renew_deadline.is_zero() || settings.lease.as_secs() == 0 {
        bail!("leader election: durations must be greater than zero");
    }
    if settings.lease <= settings.renew_deadline {
        bail!("leaseDuration must be greater than renewDeadline");
    }
    if settings.renew_deadline <= settings.retry.mul_f64(1.2) {
        bail!("renewDeadline must be greater than retryPeriod*JitterFactor");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use std::time::Duration;

    fn of(line: &str) -> anyhow::Result<Option<Settings>> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-scheduler").unwrap().table().parse(&arguments)?;
        settings(&flags, true, Settings::new("kube-scheduler"))
    }

    #[test]
    fn defaults_are_upstreams_and_every_flag_counts() {
        assert_eq!(of("").unwrap(), Some(Settings::new("kube-scheduler")));
        assert_eq!(of("--leader-elect=false").unwrap(), None);
        let line = "--leader-elect-lease-duration=30s --leader-elect-renew-deadline=20s \
            --leader-elect-retry-period=3s --leader-elect-resource-name=n --leader-elect-resource-namespace=ns";
        let expected = Settings {
            namespace: "ns".into(),
            name: "n".into(),
            lease: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(20),
            retry: Duration::from_secs(3),
        };
        assert_eq!(of(line).unwrap(), Some(expected));
    }

    #[test]
    fn a_leader_that_would_notice_its_loss_too_late_is_refused() {
        for line in [
            "--leader-elect-lease-duration=10s",
            "--leader-elect-retry-period=9s",
            "--leader-elect-retry-period=0s",
            "--leader-elect-resource-lock=endpoints",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
