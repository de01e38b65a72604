//! ResourceQuota: a create (or a growth) is charged to every quota of its namespace that counts it.
//!
//! The charge is a compare-and-swap of the quota's status, so writes at once cannot together pass its hard limit. A charge
//! whose write then fails is corrected by the quota controller's recount, as upstream. What counts how much:
//! [`machinery::resources::quota`].

use super::{Attributes, Operation, Verdict};
use crate::context::Context;
use crate::registry::Registry;
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use jiff::Timestamp;
use machinery::access::{Get as _, object_at, set_at};
use machinery::object;
use machinery::quantity::{Format, Quantity};
use machinery::resources::quota::{Counted, Write, limited as limits};
use machinery::status::{Reason, Status};
use machinery::totals::{Amounts, amounts};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn charge<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let write = match a.operation {
            Operation::Create => Write::Create,
            Operation::Update => Write::Update,
            _ => return Ok(()),
        };
        let (new, old) = (a.new_object(), a.old_object());
        let counted = Counted::new(a.kind.resource.group, a.kind.resource.plural);
        let Some(counted) = counted.filter(|c| c.handles(write, a.subresource, new, old)) else {
            return Ok(());
        };
        let Some(quotas) = Kind::of("", "resourcequotas").filter(|_| a.kind.resource.namespaced) else {
            return Ok(());
        };
        let now = Timestamp::now();
        let usage = counted.usage(new, now);
        let before = if write == Write::Update { counted.usage(old, now) } else { Amounts::new() };
        let (nothing, limited) = (Amounts::new(), &registry.config.limited_resources);
        let (mut charges, mut covered, mut scopes) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for quota in registry.current(&quotas, &a.namespace).await? {
            let name = object::name(&quota).to_owned();
            if !limited.is_empty() {
                scopes.extend(counted.scopes_of(&quota, new).into_iter().map(str::to_owned));
            }
            let (hard, used) = (listed(&quota, "hard"), listed(&quota, "used"));
            let tracked: Vec<&str> = hard.keys().map(String::as_str).filter(|k| counted.tracks(k)).collect();
            if tracked.is_empty() || !counted.in_scopes(&quota, new) {
                continue;
            }
            if let Some(why) = counted.unstated(new, &hard) {
                return Err(a.forbidden(format!("failed quota: {name}: {why}")));
            }
            if !tracked.iter().all(|k| used.contains_key(*k)) {
                let tracked = tracked.join(",");
                return Err(a.forbidden(format!("status unknown for quota: {name}, resources: {tracked}")));
            }
            // what the quota did not count before comes to it whole
            let counted_before = write == Write::Update && counted.in_scopes(&quota, old);
            let growth = growth(&usage, if counted_before { &before } else { &nothing });
            covered.extend(tracked.into_iter().map(str::to_owned));
            charges.push((name, hard, used, growth));
        }
        if !limited.is_empty() {
            let grows = match charges.is_empty() {
                true => !growth(&usage, &before).is_empty(),
                false => charges.iter().any(|(.., growth)| !growth.is_empty()),
            };
            if grows {
                let uses = limits::uses(limited, a.kind.resource.group, a.kind.resource.plural, &usage);
                uncovered(a, &uses, &covered)?;
                uncovered_scopes(limits::scopes(limited, counted, new), &scopes)?;
            }
        }
        for (name, hard, used, growth) in &charges {
            exceeded(a, name, hard, used, growth)?;
        }
        for (name, hard, _, growth) in charges {
            if growth.keys().any(|k| hard.contains_key(k)) {
                take(a, &quotas, &name, &growth).await?;
            }
        }
        Ok(())
    })
}

/// Refuses uses that no quota covers and that are limited to those.
fn uncovered(a: &Attributes<'_>, uses: &BTreeSet<&str>, covered: &BTreeSet<String>) -> Result<(), Status> {
    let left: Vec<&str> = uses.iter().copied().filter(|name| !covered.contains(*name)).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(a.forbidden(format!("insufficient quota to consume: {}", left.join(",")))),
    }
}

/// The same for scopes.
fn uncovered_scopes(limited: Vec<(String, String)>, covered: &BTreeSet<String>) -> Result<(), Status> {
    let left: Vec<String> =
        limited.into_iter().filter(|(name, _)| !covered.contains(name)).map(|(_, printed)| printed).collect();
    match left.is_empty() {
        true => Ok(()),
        false => {
            let why = format!("insufficient quota to match these scopes: [{}]", left.join(" "));
            Err(Status::failure(500, Reason::Unknown, why))
        }
    }
}

/// Refuses what would pass a limit. A status write is recorded whatever it comes to: what it tells has happened.
fn exceeded(
    a: &Attributes<'_>,
    name: &str,
    hard: &Amounts,
    used: &Amounts,
    growth: &Amounts,
) -> Result<(), Status> {
    if a.subresource == "status" {
        return Ok(());
    }
    let zero = Quantity::new(0, Format::DecimalSi);
    let (mut asked, mut before, mut limited) = (Vec::new(), Vec::new(), Vec::new());
    for (resource, amount) in growth {
        let (Some(limit), used) = (hard.get(resource), used.get(resource).unwrap_or(&zero)) else { continue };
        if used.add(amount) > *limit {
            asked.push(format!("{resource}={}", amount.canonical()));
            before.push(format!("{resource}={}", used.canonical()));
            limited.push(format!("{resource}={}", limit.canonical()));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let (asked, before, limited) = (asked.join(","), before.join(","), limited.join(","));
    Err(a
        .forbidden(format!("exceeded quota: {name}, requested: {asked}, used: {before}, limited: {limited}")))
}

async fn take(a: &Attributes<'_>, quotas: &Kind, name: &str, growth: &Amounts) -> Result<(), Status> {
    let context = Context { user: a.user.clone(), ..Context::default() };
    let mut call = Call::unseen(&context, quotas, &a.namespace, name);
    call.subresource = "status";
    call.options.dry_run = a.dry_run;
    call.warnings = a.warnings.clone();
    let change = |old: &Value| {
        let (hard, used) = (listed(old, "hard"), listed(old, "used"));
        exceeded(a, name, &hard, &used, growth)?;
        let mut new = old.clone();
        object::set_resource_version(&mut new, "");
        for (resource, amount) in growth.iter().filter(|(resource, _)| hard.contains_key(*resource)) {
            let sum = used.get(resource).map_or_else(|| amount.clone(), |used| used.add(amount));
            object_at(&mut new, "status.used").insert(resource.clone(), sum.canonical().into());
        }
        set_at(&mut new, "metadata.name", name);
        Ok(new)
    };
    let writes = a.admission.writes.upgrade();
    let writes = writes.ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
    // This write passes admission itself, where quotas are not charged for their own status.
    match writes.change(&call, &change).await {
        Ok(()) => Ok(()),
        // The quota went while it was charged.
        Err(e) if e.code == 404 => Ok(()),
        Err(e) => Err(e),
    }
}

fn listed(quota: &Value, list: &str) -> Amounts {
    amounts(quota.at("status").at(list))
}

/// By how much the use grows; nothing where it does not.
fn growth(after: &Amounts, before: &Amounts) -> Amounts {
    let grown = |(name, after): (&String, &Quantity)| {
        let delta = before.get(name).map_or_else(|| after.clone(), |before| after.sub(before));
        (delta.sign() > 0).then(|| (name.clone(), delta))
    };
    after.iter().filter_map(grown).collect()
}
