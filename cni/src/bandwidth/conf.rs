//! bandwidth's configuration.

use netlink::traffic::Bucket;
use serde_json::Value;

use crate::{Call, Error, fields::Fields};

/// How long a packet may wait, in milliseconds: upstream's choice.
const LATENCY: u64 = 25;

/// What one direction is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bits a second.
    pub(crate) rate: u64,
    /// Bits at once.
    burst: u64,
}

impl Limit {
    /// In bytes, as the kernel counts.
    pub(crate) fn bucket(self) -> Bucket {
        let (rate, burst) = (self.rate / 8, self.burst / 8);
        let waiting = rate.saturating_mul(LATENCY) / 1000;
        let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Bucket { rate, burst: narrow(burst), limit: narrow(burst.saturating_add(waiting)) }
    }
}

/// What is asked for: by the capability `bandwidth`, else by the configuration itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conf {
    /// What the container receives.
    pub(crate) ingress: Option<Limit>,
    /// What it sends.
    pub(crate) egress: Option<Limit>,
}

impl Conf {
    pub(crate) fn read(call: &Call) -> Result<Self, Error> {
        let mut fields = call.fields()?;
        let own = read_limits(&mut fields)?;
        let runtime = match fields.take_fields("runtimeConfig")? {
            Some(mut runtime) => runtime.take_fields("bandwidth")?,
            None => None,
        };
        fields.take::<Value>("args")?;
        fields.finish(&call.remarks);
        match runtime {
            None => Ok(own),
            Some(mut limits) => {
                let asked = read_limits(&mut limits)?;
                limits.finish(&call.remarks);
                Ok(asked)
            }
        }
    }
}

fn read_limits(fields: &mut Fields) -> Result<Conf, Error> {
    // A limit for some addresses only would otherwise hold for all, or for none.
    for name in ["shapedSubnets", "unshapedSubnets"] {
        fields.refuse(name)?;
    }
    Ok(Conf { ingress: read_limit(fields, "ingress")?, egress: read_limit(fields, "egress")? })
}

fn read_limit(fields: &mut Fields, direction: &str) -> Result<Option<Limit>, Error> {
    let (rate_name, burst_name) = (format!("{direction}Rate"), format!("{direction}Burst"));
    let rate = fields.take_or_default::<u64>(&rate_name)?;
    let burst = fields.take_or_default::<u64>(&burst_name)?;
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => Err(Error::config(fields.path_of(&rate_name), "if burst is set, rate must also be set")),
        (_, 0) => Err(Error::config(fields.path_of(&burst_name), "if rate is set, burst must also be set")),
        (_, burst) if burst / 8 >= u64::from(u32::MAX) => {
            Err(Error::config(fields.path_of(&burst_name), "burst cannot be more than 4GB"))
        }
        (1..8, _) | (_, 1..8) => {
            Err(Error::config(fields.path_of(&rate_name), "less than a byte cannot be counted"))
        }
        (rate, burst) => Ok(Some(Limit { rate, burst })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;
    use serde_json::json;

    fn read(more: &Value) -> Result<Conf, Error> {
        let variables = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt/cni/bin")];
        let look =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        let mut conf = json!({"cniVersion": "1.1.0", "name": "pods", "type": "bandwidth"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Conf::read(&Call::parse(Environment::read(look).unwrap(), conf.to_string().as_bytes()).unwrap())
    }

    fn limit(rate: u64, burst: u64) -> Option<Limit> {
        Some(Limit { rate, burst })
    }

    #[test]
    fn what_the_runtime_asks_for_goes_before_the_file() {
        let file = json!({"ingressRate": 800, "ingressBurst": 8000});
        assert_eq!(read(&file).unwrap(), Conf { ingress: limit(800, 8000), egress: None });
        // as containerd writes its fields
        let mut both = file;
        both["runtimeConfig"] = json!({"bandwidth": {"IngressRate": 0, "IngressBurst": 0, "EgressRate": 1_000_000, "EgressBurst": 4_294_967_295_u32}});
        assert_eq!(read(&both).unwrap(), Conf { ingress: None, egress: limit(1_000_000, u32::MAX.into()) });
        assert_eq!(read(&json!({})).unwrap(), Conf::default());
    }

    #[test]
    fn a_limit_that_would_not_hold_as_asked_must_be_refused() {
        for (bad, words) in [
            (json!({"ingressRate": 800}), "burst must also be set"),
            (json!({"egressBurst": 800}), "rate must also be set"),
            (json!({"egressRate": 800, "egressBurst": u64::from(u32::MAX) * 8}), "4GB"),
            (json!({"egressRate": 7, "egressBurst": 800}), "less than a byte"),
            (json!({"egressRate": -1, "egressBurst": 800}), "egressRate"),
            (json!({"shapedSubnets": ["192.0.2.0/24"]}), "shapedSubnets"),
        ] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn bits_become_bytes_and_what_waits_is_bounded() {
        let bucket = Limit { rate: 8_000_000, burst: 800_000 }.bucket();
        assert_eq!(bucket, Bucket { rate: 1_000_000, burst: 100_000, limit: 125_000 });
        let widest = Limit { rate: u64::MAX, burst: u64::MAX }.bucket();
        assert_eq!((widest.burst, widest.limit), (u32::MAX, u32::MAX));
    }
}
