//! One webhook as its configuration describes it, ready for use.

use super::super::conditions::Conditions;
use super::super::matching::Criteria;
use crate::webhook::Endpoint;
use machinery::access::Get as _;
use machinery::object;
use serde_json::Value;
use std::time::Duration;

/// Upstream's default, written into every configuration; this is for stored ones without.
const DEFAULT_SECONDS: u64 = 10;

#[derive(Debug)]
pub(super) struct Hook {
    pub configuration: String,
    pub name: String,
    /// Unique among all webhooks: configuration, name and place.
    pub identity: String,
    pub criteria: Criteria,
    pub conditions: Conditions,
    /// What failing to call it comes to: `Ignore` lets the request through.
    pub ignores_failure: bool,
    /// Whether a dry run may call it.
    pub takes_dry_run: bool,
    /// Whether it is called again when its work was changed.
    pub reinvoked: bool,
    pub timeout: Duration,
    /// The first version of AdmissionReview it takes that is known here.
    pub review_version: Option<&'static str>,
    pub endpoint: Endpoint,
}

impl Hook {
    /// Adds every webhook of a configuration.
    pub(super) fn parse(configuration: &Value, hooks: &mut Vec<Self>) {
        let owner = object::name(configuration);
        for (index, hook) in configuration.items("webhooks").iter().enumerate() {
            let name = hook.text("name");
            let seconds = hook.present("timeoutSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_SECONDS);
            let review_version = hook
                .items("admissionReviewVersions")
                .iter()
                .find_map(|v| ["v1", "v1beta1"].into_iter().find(|known| v == known));
            hooks.push(Hook {
                configuration: owner.to_owned(),
                name: name.to_owned(),
                identity: format!("{owner}/{name}/{index}"),
                criteria: Criteria::parse(hook, "rules"),
                conditions: Conditions::parse(hook.items("matchConditions"), false),
                ignores_failure: hook.text("failurePolicy") == "Ignore",
                takes_dry_run: matches!(hook.text("sideEffects"), "None" | "NoneOnDryRun"),
                reinvoked: hook.text("reinvocationPolicy") == "IfNeeded",
                timeout: Duration::from_secs(seconds),
                review_version,
                endpoint: Endpoint::parse(hook.present("clientConfig").unwrap_or(&Value::Null)),
            });
        }
    }
}
