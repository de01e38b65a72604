//! Amounts of resources, and the names resources have.

use serde_json::Value;

use super::{checks::NOT_NEGATIVE, cursor::Cursor};
use crate::{names, quantity::Quantity};

/// An amount as a client may write it: text, or a plain number.
pub(super) fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

const UNPARSABLE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// What is counted, and quotas of it.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// What is measured, and quotas of it.
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a quota may limit a resource by this name.
pub(super) fn is_quota_name(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || is_huge(name)
        || name.starts_with("requests.hugepages-")
}

/// A name with no domain, or with Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource somebody else offers, in whole units.
pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether limits may be above requests.
pub(super) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

impl Cursor<'_> {
    pub(super) fn quantity(self) -> Option<Quantity> {
        parse(self.value)
    }

    pub(super) fn amount(self) -> Option<Quantity> {
        let Some(quantity) = self.quantity() else {
            self.invalid(UNPARSABLE);
            return None;
        };
        if quantity.sign() < 0 {
            self.invalid_value(quantity.canonical(), NOT_NEGATIVE);
        }
        Some(quantity)
    }

    /// An amount of something that there must be some of.
    pub(super) fn positive(self) {
        match self.quantity() {
            Some(quantity) if quantity.sign() <= 0 => {
                self.invalid_value(quantity.canonical(), "must be greater than zero");
            }
            Some(_) => {}
            None => self.invalid(UNPARSABLE),
        }
    }

    /// An amount of a resource, which may have to be whole.
    pub(super) fn integral(self, name: &str) -> Option<Quantity> {
        let quantity = self.amount()?;
        if (COUNTED.contains(&name) || is_extended(name)) && quantity.as_i64().is_none() {
            self.invalid_value(quantity.canonical(), "must be an integer");
        }
        Some(quantity)
    }

    /// A resource by any name. False where it is none.
    fn any_resource(self, name: &str) -> bool {
        let qualified = self.format_of(name, names::qualified_name);
        if qualified && !name.contains('/') && !is_quota_name(name) && name != "storage" {
            self.invalid_value(name, "must be a standard resource type or fully qualified");
            return false;
        }
        qualified
    }

    /// What a container may ask for.
    pub(super) fn container_resource(self, name: &str) {
        self.any_resource(name);
        if !name.contains('/') {
            if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
                self.invalid_value(name, "must be a standard resource for containers");
            }
        } else if !is_native(name) && !is_extended(name) {
            self.invalid_value(name, "doesn't follow extended resource name standard");
        }
    }

    /// What a pod may ask for as a whole.
    pub(super) fn pod_resource(self, name: &str) {
        if self.any_resource(name) && !matches!(name, "cpu" | "memory") && !is_huge(name) {
            self.unsupported_value(name, &["cpu", "hugepages-", "memory"]);
        }
    }

    /// What a quota may limit.
    pub(super) fn quota_resource(self, name: &str) {
        self.any_resource(name);
        if !name.contains('/') && !is_quota_name(name) {
            self.invalid_value(name, "must be a standard resource for quota");
        }
    }

    /// What a limit range may bound for things of a kind.
    pub(super) fn limited_resource(self, kind: &str, name: &str) {
        match kind {
            "Pod" | "Container" => self.container_resource(name),
            _ => {
                self.any_resource(name);
            }
        }
    }

    /// Requests and limits of resources whose names `named` judges.
    pub(super) fn requirements(self, named: fn(Self, &str)) {
        let (limits, requests) = (self.field("limits"), self.field("requests"));
        for (name, limit) in limits.entries() {
            named(limit, name);
            limit.integral(name);
            limit.whole_pages(name);
        }
        for (name, request) in requests.entries() {
            named(request, name);
            let amount = request.integral(name);
            let fixed = !overcommits(name);
            match (amount, limits.key(name).quantity()) {
                (Some(amount), Some(limit)) => {
                    let order = amount.sub(&limit).sign();
                    let bound = match (fixed, order) {
                        (true, ..=-1 | 1..) => "equal to",
                        (false, 1..) => "less than or equal to",
                        _ => "",
                    };
                    if !bound.is_empty() {
                        let detail = format!("must be {bound} {name} limit of {}", limit.canonical());
                        requests.invalid_value(amount.canonical(), detail);
                    }
                }
                (Some(_), None) if fixed && !limits.key(name).is_set() => {
                    limits.missing("Limit must be set for non overcommitable resources");
                }
                _ => {}
            }
            request.whole_pages(name);
        }
        let named =
            |test: fn(&str) -> bool| limits.entries().chain(requests.entries()).any(|(name, _)| test(name));
        if named(is_huge) && !named(|name| name == "cpu" || name == "memory") {
            self.forbidden("HugePages require cpu or memory");
        }
    }

    /// Huge pages are given out whole.
    fn whole_pages(self, name: &str) {
        let Some(size) = name.strip_prefix("hugepages-") else { return };
        let Some(amount) = self.quantity() else { return };
        let size = Quantity::parse(size).ok().and_then(|size| size.as_i64()).filter(|size| *size > 0);
        let divides = size.zip(amount.as_i64()).is_some_and(|(size, amount)| amount % size == 0);
        if !divides {
            let text = amount.canonical();
            let detail = format!("{text} is not positive integer multiple of {name}");
            self.invalid_value(text, detail);
        }
    }
}
