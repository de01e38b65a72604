//! Fuzz targets: bytes a stranger may send, given to what reads them. A target returns for whatever bytes it gets; a panic is a finding.
//!
//! `make fuzz` runs each under libFuzzer; the suites run each over drawn inputs and its seeds.
//!
//! | module | targets |
//! |---|---|
//! | [`codec`] | JSON, YAML and protobuf bodies |
//! | [`patch`] | the three kinds of patches, and apply |
//! | [`selector`] | label and field selectors, quantities, durations, expressions, patterns |
//! | [`path`] | URLs of the API |
//! | [`node`] | CNI configuration, lines of container logs, DNS packets |

pub mod codec;
pub mod node;
pub mod patch;
pub mod path;
pub mod selector;

/// Something that reads bytes, by its name.
pub struct Target {
    /// As `FUZZ_TARGETS` and the corpus folders have it.
    pub name: &'static str,
    /// Reads them.
    pub read: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        read: codec::json,
        seeds: &[POD, br#"{"a":{"b":[1,1.5e3,null,"\u00e9"]},"a":2}"#, b"[42450E62]"],
    },
    Target {
        name: "yaml",
        read: codec::yaml,
        seeds: &[b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n- 0x1f\n- ~\n", POD],
    },
    Target { name: "protobuf", read: codec::protobuf, seeds: &[b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x00"] },
    Target {
        name: "json-patch",
        read: patch::json,
        seeds: &[br#"[{"op":"replace","path":"/spec/containers/0/image","value":"b"},{"op":"copy","from":"/spec","path":"/x"}]"#],
    },
    Target { name: "merge-patch", read: patch::merge, seeds: &[br#"{"metadata":{"labels":{"a":null,"b":"c"}}}"#] },
    Target {
        name: "strategic-patch",
        read: patch::strategic,
        seeds: &[
            br#"{"spec":{"containers":[{"name":"a","image":"b"},{"$patch":"delete","name":"c"}]}}"#,
            br#"{"spec":{"$setElementOrder/containers":[{"name":"a"}],"$retainKeys":["containers"]}}"#,
        ],
    },
    Target { name: "apply", read: patch::apply, seeds: &[POD] },
    Target {
        name: "label-selector",
        read: selector::labels,
        seeds: &[b"a in (b,c),!d,e notin (f),g=h,i!=j,k>1", b"x.y/z"],
    },
    Target { name: "field-selector", read: selector::fields, seeds: &[b"metadata.name=a,spec.nodeName!=b\\,c"] },
    Target { name: "quantity", read: selector::quantity, seeds: &[b"1.5Gi", b"-12e6", b"100m", b"0.000000001"] },
    Target { name: "duration", read: selector::duration, seeds: &[b"1h2m3.5s", b"-10ms"] },
    Target {
        name: "cel",
        read: selector::expression,
        seeds: &[b"self.a.all(x, x in [1, 2u, 3.0]) ? 'b'.matches('c+') : has(self.d)", b"[1][0] + {1: 2}[1]"],
    },
    Target {
        name: "pattern",
        read: selector::pattern,
        seeds: &[
            br"^(?P<a>[^()[\]]+|\Q.*\E)(?i:k\x{17f}\07){,5}{2,3}?\pL\P{^Greek}[[:^alpha:]\d-]$",
            br"(?U)(?:(a*)+|(|b)??)*\b(?m-s:^.$)",
        ],
    },
    Target {
        name: "path",
        read: path::request,
        seeds: &[b"/api/v1/namespaces/a/pods/b/exec?command=c&stdin=true", b"/apis/apps/v1/watch/deployments"],
    },
    Target {
        name: "cni",
        read: node::cni,
        seeds: &[
            br#"{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":"b0","mtu":1400,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}"#,
            br#"{"cniVersion":"1.0.0","name":"n","type":"bandwidth","capabilities":{"bandwidth":true},"runtimeConfig":{"bandwidth":{"IngressRate":1000000,"IngressBurst":4294967295}},"prevResult":{"cniVersion":"1.0.0","ips":[]}}"#,
            br#"{"cniVersion":"1.1.0","name":"n","type":"portmap","capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]},"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}}"#,
        ],
    },
    Target {
        name: "log-line",
        read: node::log,
        seeds: &[b"2026-01-02T03:04:05.000000006Z stdout F hello\n2026-01-02T03:04:05Z stderr P part"],
    },
    Target {
        name: "dns",
        read: node::dns,
        seeds: &[
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03web\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
        ],
    },
];

/// An object for targets that change one.
const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"b","labels":{"c":"d"}},"spec":{"containers":[{"name":"a","image":"i","ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"E","value":"1"}],"resources":{"requests":{"cpu":"100m"}}}],"tolerations":[{"operator":"Exists"}]},"status":{"phase":"Running"}}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seeds_are_read() {
        TARGETS.iter().for_each(|target| target.seeds.iter().for_each(|seed| (target.read)(seed)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_stop_a_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            TARGETS.iter().for_each(|target| (target.read)(&bytes));
        }

        #[test]
        fn no_damage_to_a_seed_stops_a_reader(
            target in 0..TARGETS.len(),
            seed in any::<prop::sample::Index>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
        ) {
            let Target { read, seeds, .. } = TARGETS[target];
            let mut bytes = seeds[seed.index(seeds.len())].to_vec();
            for (at, byte, how) in damage {
                let at = at.index(bytes.len() + 1);
                match how {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, byte),
                }
            }
            read(&bytes);
        }
    }
}
