//! The parts of a node beside its kubelet, and who they are to the API server.
//!
//! Each has a client certificate of its own, which the node asks for with its own identity
//! (signer `kubernetes.io/kube-apiserver-client`) and an approver grants: to nodes, and for exactly these names.

use crate::CertificateRequest;

/// A part of a node that speaks to the API server as itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodePart {
    /// Service proxy.
    Proxy,
    /// Cluster DNS.
    Dns,
    /// Pod network.
    Network,
}

impl NodePart {
    /// Every part beside the kubelet.
    pub const ALL: [Self; 3] = [Self::Proxy, Self::Dns, Self::Network];

    /// How files and messages name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Dns => "dns",
            Self::Network => "network",
        }
    }

    /// Its user; the proxy's is upstream's.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Proxy => "system:kube-proxy",
            Self::Dns => "windlass:dns",
            Self::Network => "windlass:network",
        }
    }

    /// The part a request is for, where it asks for that part's certificate and nothing more: its user in no group, under no other name,
    /// as a client only.
    #[must_use]
    pub fn of_request(request: &CertificateRequest, usages: &[String]) -> Option<Self> {
        let client = usages.iter().any(|usage| usage == "client auth")
            && usages.iter().all(|usage| {
                ["client auth", "digital signature", "key encipherment"].contains(&usage.as_str())
            });
        let plain = request.organizations.is_empty()
            && request.dns_names.is_empty()
            && request.ips.is_empty()
            && request.emails.is_empty()
            && request.uris.is_empty();
        Self::ALL.into_iter().find(|part| client && plain && part.user() == request.common_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Subject, new_key};

    fn of(subject: &Subject, usages: &[&str]) -> Option<NodePart> {
        let pem = subject.request(&new_key().unwrap()).unwrap();
        let usages: Vec<String> = usages.iter().map(|u| (*u).to_owned()).collect();
        NodePart::of_request(&CertificateRequest::from_pem(&pem).unwrap(), &usages)
    }

    #[test]
    fn a_request_for_more_than_a_part_must_not_pass_for_one() {
        let client = ["digital signature", "client auth"];
        for part in NodePart::ALL {
            assert_eq!(of(&Subject::user(part.user()), &client), Some(part));
        }
        let grouped = Subject { organization: "system:masters".into(), ..Subject::user("system:kube-proxy") };
        assert_eq!(of(&grouped, &client), None);
        let named = Subject { dns_names: vec!["kubernetes".into()], ..Subject::user("system:kube-proxy") };
        assert_eq!(of(&named, &client), None);
        assert_eq!(of(&Subject::user("system:kube-scheduler"), &client), None);
        assert_eq!(of(&Subject::user("system:kube-proxy"), &["digital signature"]), None);
        assert_eq!(of(&Subject::user("system:kube-proxy"), &["client auth", "server auth"]), None);
    }
}
