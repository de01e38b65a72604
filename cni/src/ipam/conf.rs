//! host-local's part of a configuration.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde_json::Value;

use super::range::{Range, RangeSet};
use crate::{Call, Error, fields::Fields, remarks::Remarks, result::Route};

/// The `ipam` object, checked, with what capabilities and arguments add to it.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) sets: Vec<RangeSet>,
    pub(crate) routes: Vec<Route>,
    /// `<dataDir>/<network>`.
    pub(crate) directory: PathBuf,
    pub(crate) resolv_conf: Option<PathBuf>,
    pub(crate) requested: Vec<IpAddr>,
}

impl Conf {
    pub(crate) fn read(call: &Call) -> Result<Self, Error> {
        let mut fields = call.fields()?;
        let mut ipam = fields
            .take_fields("ipam")?
            .ok_or_else(|| Error::config("ipam", "IPAM config missing 'ipam' key"))?;
        ipam.take::<String>("type")?;
        ipam.take::<String>("name")?;
        // an empty one would be wherever the runtime happens to run
        let directory = ipam.take::<PathBuf>("dataDir")?.filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| PathBuf::from("/var/lib/cni/networks"));
        let resolv_conf = ipam.take::<PathBuf>("resolvConf")?.filter(|path| !path.as_os_str().is_empty());
        let routes = read_routes(&mut ipam, &call.remarks)?;

        let mut runtime = fields.take_fields("runtimeConfig")?;
        let mut sets = Vec::new();
        if let Some(runtime) = runtime.as_mut() {
            read_sets(runtime, "ipRanges", &mut sets, &call.remarks)?;
        }
        if ipam.take::<Value>("subnet")?.is_some() {
            // Taken again below as part of the range; the object is read whole so that errors name its fields.
            let mut whole = Fields::of("ipam", call.configuration["ipam"].clone())?;
            for name in ["rangeStart", "rangeEnd", "gateway"] {
                ipam.take::<Value>(name)?;
            }
            sets.push(RangeSet::new("ipam", vec![Range::read(&mut whole)?])?);
        }
        read_sets(&mut ipam, "ranges", &mut sets, &call.remarks)?;
        ipam.finish(&call.remarks);
        if sets.is_empty() {
            return Err(Error::config("ipam.ranges", "no IP ranges specified"));
        }
        for (index, set) in sets.iter().enumerate() {
            if let Some(other) = sets[..index].iter().position(|other| other.overlaps(set)) {
                return Err(Error::config("ipam.ranges", format!("range set {other} overlaps with {index}")));
            }
        }
        let requested = read_requested(call, &mut fields, runtime)?;
        Ok(Self { sets, routes, directory: directory.join(&call.network), resolv_conf, requested })
    }
}

fn read_sets(
    fields: &mut Fields,
    name: &str,
    sets: &mut Vec<RangeSet>,
    remarks: &Remarks,
) -> Result<(), Error> {
    let path = fields.path_of(name);
    for (outer, set) in fields.take_or_default::<Vec<Vec<Value>>>(name)?.into_iter().enumerate() {
        let path = format!("{path}[{outer}]");
        let mut ranges = Vec::new();
        for (inner, range) in set.into_iter().enumerate() {
            let mut range = Fields::of(&format!("{path}[{inner}]"), range)?;
            ranges.push(Range::read(&mut range)?);
            range.finish(remarks);
        }
        sets.push(RangeSet::new(&path, ranges)?);
    }
    Ok(())
}

fn read_routes(ipam: &mut Fields, remarks: &Remarks) -> Result<Vec<Route>, Error> {
    let path = ipam.path_of("routes");
    let mut routes = Vec::new();
    for (index, route) in ipam.take_or_default::<Vec<Value>>("routes")?.into_iter().enumerate() {
        let mut fields = Fields::of(&format!("{path}[{index}]"), route)?;
        let dst: IpNet =
            fields.take_parsed("dst")?.ok_or_else(|| Error::config(fields.path_of("dst"), "missing"))?;
        let gw: Option<IpAddr> = fields.take_parsed("gw")?;
        if gw.is_some_and(|gw| gw.is_ipv4() != dst.addr().is_ipv4()) {
            return Err(Error::config(fields.path_of("gw"), "not of the destination's family"));
        }
        routes.push(Route {
            dst,
            gw,
            mtu: fields.take("mtu")?,
            advmss: fields.take("advmss")?,
            priority: fields.take("priority")?,
            table: fields.take("table")?,
            scope: fields.take("scope")?,
        });
        fields.finish(remarks);
    }
    Ok(routes)
}

/// Addresses asked for: by `CNI_ARGS` (`IP=`), by `args.cni.ips`, or by the capability `ips`.
fn read_requested(call: &Call, fields: &mut Fields, runtime: Option<Fields>) -> Result<Vec<IpAddr>, Error> {
    let mut texts: Vec<(String, String)> = Vec::new();
    let args = call.environment.known_args(&["IP", "GATEWAY", "MAC"])?;
    if let Some(ip) = args.get("IP") {
        texts.extend(ip.split(',').map(|text| ("CNI_ARGS: IP".to_owned(), text.to_owned())));
    }
    let cni = match fields.take_fields("args")? {
        Some(mut args) => args.take_fields("cni")?,
        None => None,
    };
    for source in [cni, runtime].into_iter().flatten() {
        let mut source = source;
        let path = source.path_of("ips");
        texts.extend(
            source.take_or_default::<Vec<String>>("ips")?.into_iter().map(|text| (path.clone(), text)),
        );
    }
    let mut requested: Vec<IpAddr> = Vec::new();
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        let bare = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
        let address = bare.parse().map_err(|error| Error::config(field, format!("{text:?}: {error}")))?;
        if !requested.contains(&address) {
            requested.push(address);
        }
    }
    Ok(requested)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;
    use serde_json::json;

    #[test]
    fn an_empty_directory_must_not_be_wherever_the_runtime_runs() {
        let directory = |given: Value| {
            let variables = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt/cni/bin")];
            let look =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
            let ipam = json!({"type": "host-local", "dataDir": given, "subnet": "10.88.0.0/24"});
            let conf = json!({"cniVersion": "1.1.0", "name": "pods", "type": "host-local", "ipam": ipam});
            let call = Call::parse(Environment::read(look).unwrap(), conf.to_string().as_bytes()).unwrap();
            Conf::read(&call).unwrap().directory
        };
        assert_eq!(directory(json!("")), PathBuf::from("/var/lib/cni/networks/pods"));
        assert_eq!(directory(Value::Null), PathBuf::from("/var/lib/cni/networks/pods"));
        assert_eq!(directory(json!("/leases")), PathBuf::from("/leases/pods"));
    }
}
