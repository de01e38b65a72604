//! The extenders of a KubeSchedulerConfiguration. Upstream: `pkg/scheduler/apis/config/validation`.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scheduler::extender::{Config, TIMEOUT, Tls};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The extenders, those that may fail last, as upstream asks them.
pub(super) fn of(items: &[Value]) -> anyhow::Result<Vec<Config>> {
    let mut all = Vec::new();
    let mut managed = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let one = extender(item).with_context(|| format!("extenders[{index}]"))?;
        for name in &one.managed {
            if !managed.insert(name.clone()) {
                bail!(
                    "extenders[{index}].managedResources: Invalid value: {name:?}: duplicate extender managed resource name"
                );
            }
        }
        all.push(one);
    }
    let binders = all.iter().filter(|one| !one.bind.is_empty()).count();
    if binders > 1 {
        bail!("extenders: found {binders} extenders implementing bind: only one extender can implement bind");
    }
    all.sort_by_key(|one| one.ignorable);
    Ok(all)
}

fn extender(item: &Value) -> anyhow::Result<Config> {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let config = Config {
        url: text("urlPrefix"),
        filter: text("filterVerb"),
        prioritize: text("prioritizeVerb"),
        bind: text("bindVerb"),
        preempt: text("preemptVerb"),
        weight: item["weight"].as_i64().unwrap_or(0),
        cached: item["nodeCacheCapable"] == true,
        managed: resources(item, false)?,
        ignored: resources(item, true)?,
        ignorable: item["ignorable"] == true,
        timeout: timeout(item),
        tls: tls(&item["tlsConfig"], item["enableHTTPS"] == true).context("tlsConfig")?,
    };
    if config.url.is_empty() {
        bail!("urlPrefix: Required value");
    }
    if !config.prioritize.is_empty() && config.weight <= 0 {
        bail!("weight: Invalid value: {}: must have a positive weight applied to it", config.weight);
    }
    Ok(config)
}

fn timeout(item: &Value) -> Duration {
    let nanos = machinery::duration::parse(item["httpTimeout"].as_str().unwrap_or("0")).unwrap_or(0);
    match u64::try_from(nanos) {
        Ok(0) | Err(_) => TIMEOUT,
        Ok(nanos) => Duration::from_nanos(nanos),
    }
}

fn resources(item: &Value, ignored: bool) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for resource in item["managedResources"].as_array().into_iter().flatten() {
        let name = resource["name"].as_str().unwrap_or_default();
        if !name.contains('/')
            || name.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io"))
        {
            bail!("managedResources: Invalid value: {name:?}: {name} is an invalid extended resource name");
        }
        if !ignored || resource["ignoredByScheduler"] == true {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Data counts before files. Without authorities, a server of an extender that is to be reached by HTTPS is anybody.
fn tls(config: &Value, https: bool) -> anyhow::Result<Tls> {
    let pem = |data: &str, file: &str| -> anyhow::Result<Option<String>> {
        let text = |name: &str| config[name].as_str().filter(|text| !text.is_empty());
        if let Some(data) = text(data) {
            let bytes = STANDARD.decode(data).context("it is no base64")?;
            return Ok(Some(String::from_utf8(bytes).context("it is no PEM")?));
        }
        text(file).map(|path| pki::files::read(Path::new(path))).transpose().context(file.to_owned())
    };
    let authorities = match pem("caData", "caFile")? {
        Some(text) => pki::pem::certificates(text.as_bytes())?.iter().map(|der| der.to_vec()).collect(),
        None => Vec::new(),
    };
    let identity = match (pem("certData", "certFile")?, pem("keyData", "keyFile")?) {
        (Some(certificate), Some(key)) => Some((STANDARD.encode(certificate), STANDARD.encode(key))),
        (None, None) => None,
        _ => bail!("a certificate and its key must be given together"),
    };
    Ok(Tls {
        insecure: config["insecure"] == true || (https && authorities.is_empty()),
        server_name: config["serverName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
        authorities,
        identity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn extenders_that_may_fail_are_asked_last() {
        let items = [
            json!({"urlPrefix": "http://a", "ignorable": true, "filterVerb": "f"}),
            json!({"urlPrefix": "https://b", "enableHTTPS": true, "httpTimeout": "2s", "nodeCacheCapable": true,
                "managedResources": [{"name": "a.b/c", "ignoredByScheduler": true}, {"name": "a.b/d"}]}),
        ];
        let all = of(&items).unwrap();
        assert_eq!(all.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), ["https://b", "http://a"]);
        assert!(all[0].tls.insecure && all[0].cached && !all[1].tls.insecure);
        assert_eq!((all[0].timeout, all[1].timeout), (Duration::from_secs(2), TIMEOUT));
        assert_eq!((all[0].managed.len(), all[0].ignored.len()), (2, 1));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let url = "http://a";
        for (items, wrong) in [
            (vec![json!({})], "urlPrefix"),
            (vec![json!({"urlPrefix": url, "prioritizeVerb": "p"})], "must have a positive weight"),
            (
                vec![json!({"urlPrefix": url, "bindVerb": "b"}), json!({"urlPrefix": url, "bindVerb": "b"})],
                "only one extender can implement bind",
            ),
            (
                vec![json!({"urlPrefix": url, "managedResources": [{"name": "cpu"}]})],
                "invalid extended resource name",
            ),
            (
                vec![
                    json!({"urlPrefix": url, "managedResources": [{"name": "a/b"}]}),
                    json!({"urlPrefix": url, "managedResources": [{"name": "a/b"}]}),
                ],
                "duplicate extender managed resource name",
            ),
            (vec![json!({"urlPrefix": url, "tlsConfig": {"certFile": "/nowhere"}})], "certFile"),
        ] {
            let error = format!("{:#}", of(&items).unwrap_err());
            assert!(error.contains(wrong), "{error}");
        }
    }
}
