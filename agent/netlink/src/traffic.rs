//! Traffic control: a token bucket on a link, and what arrives at a link led to another.

use crate::attribute::{Writer, attributes, find, read_text};
use crate::message::{CREATE, EXCL, REPLACE, Request};
use crate::socket::{Error, Socket};

const NEW_DISCIPLINE: u16 = 36;
const GET_DISCIPLINE: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// `struct tcmsg`
const FIXED: usize = 20;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TC_H_ROOT`, `TC_H_INGRESS`
const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;
/// The handles `1:` and `ffff:`, and the class `1:1`, which a filter is to name.
const FIRST: u32 = 0x1_0000;
const ARRIVING: u32 = 0xffff_0000;
const CLASS: u32 = FIRST | 1;
/// `TCA_TBF_*`
const BUCKET: u16 = 1;
const BUCKET_RATE64: u16 = 4;
const BUCKET_BURST: u16 = 6;
/// `struct tc_tbf_qopt`: two rates of twelve bytes each, then limit, buffer and MTU.
const BUCKET_SIZE: usize = 36;
/// Where in a rate its bytes a second are.
const RATE_AT: usize = 8;
const LIMIT_AT: usize = 24;
/// `TCA_U32_*`
const U32_CLASS: u16 = 1;
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
/// `TCA_ACT_*` and `TCA_MIRRED_PARMS`
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED: u16 = 2;
/// `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`
const STOLEN: u32 = 4;
const REDIRECT: u32 = 1;
/// `ETH_P_ALL`, in network order in the low half of `tcm_info`.
const EVERY_PROTOCOL: u16 = 3;

/// What a link may send. Bytes and bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// In the long run.
    pub rate: u64,
    /// At once, after it was quiet.
    pub burst: u32,
    /// What may wait; the rest is dropped.
    pub limit: u32,
}

fn fixed(link: u32, handle: u32, parent: u32, info: u32) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    for (at, number) in [(4, link), (8, handle), (12, parent), (16, info)] {
        fixed[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    fixed
}

/// Holds what a link sends to a bucket, in place of whatever it sent by: `tc qdisc replace dev LINK root handle 1: tbf`.
#[must_use]
pub fn limit(link: u32, bucket: &Bucket) -> Request {
    let mut options = [0; BUCKET_SIZE];
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    options[RATE_AT..RATE_AT + 4].copy_from_slice(&rate.to_ne_bytes());
    options[LIMIT_AT..LIMIT_AT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    Request::new(NEW_DISCIPLINE, CREATE | REPLACE, &fixed(link, FIRST, ROOT, 0), |w| {
        w.text(KIND, "tbf");
        w.nested(OPTIONS, |w| {
            w.raw(BUCKET, &options);
            w.raw(BUCKET_RATE64, &bucket.rate.to_ne_bytes());
            w.native(BUCKET_BURST, bucket.burst);
        });
    })
}

/// Leads all that arrives at a link out by another one: `tc qdisc add dev LINK ingress`, and a filter there of everything.
#[must_use]
pub fn redirect(link: u32, to: u32) -> [Request; 2] {
    let arriving = Request::new(NEW_DISCIPLINE, CREATE | EXCL, &fixed(link, ARRIVING, INGRESS, 0), |w| {
        w.text(KIND, "ingress");
    });
    // `struct tc_u32_sel`: the first match ends it; one key, which is nothing of anything.
    let selector = {
        let mut bytes = [0; 32];
        (bytes[0], bytes[2]) = (1, 1);
        bytes
    };
    // `struct tc_mirred`: index, capabilities, action, two counts, where to and by which link
    let parameters: Vec<u8> =
        [0, 0, STOLEN, 0, 0, REDIRECT, to].iter().flat_map(|number| number.to_ne_bytes()).collect();
    let info = 1 << 16 | u32::from(EVERY_PROTOCOL.to_be());
    let filter = Request::new(NEW_FILTER, CREATE | EXCL, &fixed(link, 0, ARRIVING, info), |w| {
        w.text(KIND, "u32");
        w.nested(OPTIONS, |w| {
            w.native(U32_CLASS, CLASS);
            w.raw(U32_SELECTOR, &selector);
            w.nested(U32_ACTIONS, |w| w.nested(1, |w| mirred(w, &parameters)));
        });
    });
    [arriving, filter]
}

fn mirred(w: &mut Writer, parameters: &[u8]) {
    w.text(ACTION_KIND, "mirred");
    w.nested(ACTION_OPTIONS, |w| w.raw(MIRRED, parameters));
}

/// Bytes a second of a link's bucket, if it has one.
///
/// # Errors
/// The kernel's.
pub fn rate(socket: &mut Socket, link: u32) -> Result<Option<u64>, Error> {
    let request = Request::new(GET_DISCIPLINE, 0, &fixed(link, 0, 0, 0), |_| {});
    // older kernels list those of every link
    let all = socket.dump(&request, |body, found| found.extend(read_rate(body)))?;
    Ok(all.into_iter().find(|(of, _)| *of == link).map(|(_, rate)| rate))
}

fn read_rate(body: &[u8]) -> Option<(u32, u64)> {
    let (fixed, rest) = body.split_first_chunk::<FIXED>()?;
    let link = u32::from_ne_bytes(*fixed.get(4..)?.first_chunk()?);
    if find(rest, KIND).map(read_text).as_deref() != Some("tbf") {
        return None;
    }
    let options = find(rest, OPTIONS)?;
    let wide =
        find(options, BUCKET_RATE64).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    let narrow =
        find(options, BUCKET)?.get(RATE_AT..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    Some((link, wide.unwrap_or(0).max(narrow.into())))
}

/// Whether what arrives at a link is led out by another.
///
/// # Errors
/// The kernel's.
pub fn is_redirected(socket: &mut Socket, link: u32, to: u32) -> Result<bool, Error> {
    let request = Request::new(GET_FILTER, 0, &fixed(link, 0, ARRIVING, 0), |_| {});
    let targets = socket.dump(&request, |body, found| found.extend(read_target(body)))?;
    Ok(targets.contains(&to))
}

fn read_target(body: &[u8]) -> Option<u32> {
    let (_, rest) = body.split_first_chunk::<FIXED>()?;
    let actions = find(find(rest, OPTIONS)?, U32_ACTIONS)?;
    let (_, action) = attributes(actions).next()?;
    let parameters = find(find(action, ACTION_OPTIONS)?, MIRRED)?;
    parameters.get(24..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bucket = Bucket { rate: 125_000, burst: 10_000, limit: 20_000 };
        assert_eq!(read_rate(&limit(7, &bucket).body.bytes), Some((7, 125_000)));
        let fast = Bucket { rate: 10_000_000_000, ..bucket };
        assert_eq!(read_rate(&limit(7, &fast).body.bytes), Some((7, 10_000_000_000)));
        let [arriving, filter] = redirect(7, 9);
        assert_eq!((read_rate(&arriving.body.bytes), read_target(&arriving.body.bytes)), (None, None));
        assert_eq!(read_target(&filter.body.bytes), Some(9));
    }
}
