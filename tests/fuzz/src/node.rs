//! What reaches a node: CNI configuration, log files, DNS packets.

use bytes::BytesMut;
use dns::{Zone, answer};
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use kubelet::logs::{Decoder, Options, Selector};
use windlass_cni::{Call, Environment, Plugin};

/// A network configuration, read by every plugin.
pub fn cni(bytes: &[u8]) {
    let environment = Environment::read(|name| {
        let value = match name {
            "CNI_COMMAND" => "ADD",
            "CNI_CONTAINERID" => "c",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/proc/self/ns/net",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(value.to_owned())
    });
    let Ok(call) = environment.and_then(|environment| Call::parse(environment, bytes)) else { return };
    let _ = (call.previous(), call.dns(), call.valid_attachments());
    for plugin in Plugin::all() {
        let _ = plugin.read(&call);
    }
}

/// A container's log, arriving in two parts.
pub fn log(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut decoder = Decoder::default();
    let mut selector = Selector::new(&Options { timestamps: true, ..Options::default() });
    let mut out = BytesMut::new();
    let mut take = |piece| {
        if let Ok(piece) = piece {
            let _ = selector.take(&piece, &mut out);
        }
    };
    for part in [first, second] {
        decoder.push(part);
        while let Some(piece) = decoder.piece() {
            take(piece);
        }
    }
    if let Some(piece) = decoder.finish() {
        take(piece);
    }
}

/// A DNS packet, answered from an empty zone.
pub fn dns(bytes: &[u8]) {
    let Ok(request) = Message::from_vec(bytes) else { return };
    let Ok(domain) = Name::from_ascii("cluster.local.") else { return };
    if let answer::Decision::Respond(response) = answer::decide(&request, &Zone::default(), &domain) {
        let packet = answer::encode(&response, &request, true);
        assert!(packet.is_ok_and(|packet| packet.len() <= 1232));
    }
}
