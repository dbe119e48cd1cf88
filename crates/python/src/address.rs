//! Socket addresses as Python writes them: (IP address, port).

use std::net::{IpAddr, SocketAddr};

use pyo3::{exceptions::PyValueError, prelude::*};

pub(crate) fn address(value: (String, u16)) -> PyResult<SocketAddr> {
    let ip: IpAddr =
        value.0.parse().map_err(|_| PyValueError::new_err(format!("`{}` is not an IP address", value.0)))?;
    Ok(SocketAddr::new(ip, value.1))
}

pub(crate) fn pair(address: SocketAddr) -> (String, u16) {
    // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    (address.ip().to_canonical().to_string(), address.port())
}
