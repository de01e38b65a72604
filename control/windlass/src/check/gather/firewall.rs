//! Chains of nftables that drop what they do not accept.

use crate::check::facts::Dropping;

/// Every such chain of packets to this machine and through it.
pub(super) async fn dropping() -> Vec<Dropping> {
    let Some(listed) = super::said("nft", &["list", "chains"]).await else { return Vec::new() };
    let mut found = parse(&listed);
    for chain in &mut found {
        let words = ["list", "chain", &chain.family, &chain.table, &chain.chain];
        chain.rules = super::said("nft", &words).await.unwrap_or_default();
    }
    found
}

/// The chains in what `nft list chains` prints, without their rules.
fn parse(listed: &str) -> Vec<Dropping> {
    let (mut table, mut chain) = (None, None);
    let mut found = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, ..] => table = Some((family, name)),
            ["chain", name, ..] => chain = Some(name),
            ["type", "filter", "hook", hook @ ("input" | "forward"), ..]
                if line.trim_end().ends_with("policy drop;") =>
            {
                let Some(((family, table), chain)) = table.zip(chain) else { continue };
                if ["inet", "ip", "ip6"].contains(&family) {
                    let [family, table, chain, hook] = [family, table, chain, hook].map(str::to_owned);
                    found.push(Dropping { family, table, chain, hook, rules: String::new() });
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_drop_what_comes_or_passes_are_found() {
        let listed = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
                      \tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\t}\n\tchain mine {\n\t}\n}\n\
                      # Warning: table ip filter is managed by iptables-nft, do not touch!\n\
                      table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
                      \tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n\
                      table bridge b {\n\tchain f {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";
        let found: Vec<String> = parse(listed)
            .into_iter()
            .map(|c| format!("{} {} {} {}", c.family, c.table, c.chain, c.hook))
            .collect();
        assert_eq!(found, ["inet filter input input", "ip filter FORWARD forward"]);
    }
}
