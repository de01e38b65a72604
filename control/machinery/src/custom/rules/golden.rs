//! What a server of 1.36 made of each of these rules: accepted at this estimate, too dear by this factor, or refused.

use super::*;

/// The factor by which a rule is too dear, as an error gives it.
fn factor(cost: u64) -> Option<String> {
    let text = too_dear("", cost, RULE_LIMIT);
    (cost > RULE_LIMIT).then(|| {
        let tail = text.split("by factor of ").nth(1).unwrap_or_default();
        tail.split("x (").next().unwrap_or_default().to_owned()
    })
}

/// Estimates were read off the factor by which a list of objects with the rule was too dear, where `RULE_LIMIT / cost` is how many
/// fit: between two numbers of objects.
fn is_near(cost: u64, measured: f64) -> bool {
    let fit = RULE_LIMIT as f64 / measured;
    let (low, high) = (RULE_LIMIT as f64 / (fit + 0.51), RULE_LIMIT as f64 / (fit - 0.51));
    let cost = cost as f64;
    (low..=high).contains(&cost) || (cost - measured).abs() <= f64::max(0.5, measured * 0.003)
}

#[test]
fn rules_are_estimated_and_refused_as_upstream_does() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kubernetes-1.36");
    let Ok(rows) = std::fs::read_to_string(format!("{folder}/cel-costs.tsv")) else {
        println!("skipped: no golden costs at ../shared/kubernetes-1.36/cel-costs.tsv");
        return;
    };
    let properties = std::fs::read_to_string(format!("{folder}/cel-costs-schema.json")).unwrap();
    let properties: Value = serde_json::from_str(&properties).unwrap();
    let schema = Schema::from_props(&serde_json::json!({"type": "object", "properties": properties}));
    let own = types::of(&schema, false).unwrap();
    let mut wrong = Vec::new();
    for row in rows.lines() {
        let [outcome, figure, rule] = row.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let names = [("self", own.clone()), ("oldSelf", own.clone())];
        let compiled = Program::compile(rule, &Environment::of(&names));
        let compiled = compiled.map_err(|e| e.to_string()).and_then(|(_, known)| match known.kind {
            Type::Bool => Ok(known.cost),
            other => Err(format!("gives {other}")),
        });
        let right = match (outcome, &compiled) {
            ("refused", Err(_)) => true,
            ("cost", Ok(cost)) => *cost <= RULE_LIMIT && is_near(*cost, figure.parse().unwrap()),
            ("over", Ok(cost)) => factor(*cost).as_deref() == Some(figure),
            _ => false,
        };
        if !right {
            wrong.push(format!("{row}\n    {compiled:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.lines().count(), wrong.join("\n"));
}
