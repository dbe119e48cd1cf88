//! Socket addresses as Python writes them: (IP address, port). A link-local IPv6 address has the number of its interface
//! behind a `%` (RFC 4007, section 11).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use pyo3::{exceptions::PyValueError, prelude::*};

pub(crate) fn address(value: (String, u16)) -> PyResult<SocketAddr> {
    let (text, port) = value;
    let parsed = match text.split_once('%') {
        None => text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).ok(),
        Some((ip, zone)) => match (ip.parse::<Ipv6Addr>(), zone.parse()) {
            (Ok(ip), Ok(zone)) => Some(SocketAddrV6::new(ip, port, 0, zone).into()),
            _ => None,
        },
    };
    parsed.ok_or_else(|| PyValueError::new_err(format!("`{text}` is not an IP address")))
}

pub(crate) fn pair(address: SocketAddr) -> (String, u16) {
    let ip = match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => format!("{}%{}", address.ip(), address.scope_id()),
        // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
        _ => address.ip().to_canonical().to_string(),
    };
    (ip, address.port())
}
