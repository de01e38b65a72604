//! stub
use crate::{Call, Error, Owner};
use ipnet::IpNet;
use std::net::IpAddr;
pub(crate) fn add(_call: &Call, _addresses: &[IpNet]) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn remove(_network: &str, _owner: &Owner, _known: Option<&[IpAddr]>) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn retain(_network: &str, _valid: &[Owner]) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn check(_network: &str, _owner: &Owner, _known: &[IpAddr]) -> Result<(), Error> {
    Ok(())
}
