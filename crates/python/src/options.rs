//! Python's `EndpointOptions`, read by attribute.
//!
//! This module only reads. Defaults, ranges and what follows from them are Python's (`config.py`, `_options.py`).

use std::{path::PathBuf, time::Duration};

use pyo3::{exceptions::PyValueError, intern, prelude::*};
use wtio_engine::{Memory, NewcomerLimits, Options, Secret, session::SessionLimits};
use wtio_net::Io;

/// A Python object with the attributes of `EndpointOptions`.
#[derive(FromPyObject)]
#[pyo3(transparent)]
pub(crate) struct EndpointOptions<'py>(Bound<'py, PyAny>);

impl EndpointOptions<'_> {
    /// What the engine of an endpoint needs to know.
    pub(crate) fn for_engine(&self, is_server: bool, seed: Option<&[u8]>) -> PyResult<Options> {
        let options = &self.0;
        let (limits, timeouts) = (options.getattr("limits")?, options.getattr("timeouts")?);
        let connection_ids = options.getattr("connection_ids")?;
        let (max_bidirectional_streams, max_unidirectional_streams) =
            options.call_method1("peer_streams", (is_server,))?.extract()?;
        Ok(Options {
            idle_timeout: seconds(read(&timeouts, "idle")?)?,
            keep_alive: read::<Option<f64>>(options, "keep_alive")?.map(seconds).transpose()?,
            max_bidirectional_streams,
            max_unidirectional_streams,
            stream_receive_window: read(&limits, "stream_receive_window")?,
            connection_receive_window: read(&limits, "connection_receive_window")?,
            stream_send_buffer: read(&limits, "stream_send_buffer")?,
            connection_send_buffer: read(&limits, "connection_send_buffer")?,
            datagram_send_buffer: read(&limits, "datagram_send_buffer")?,
            datagram_send_age: read::<Option<f64>>(&timeouts, "datagram_send")?.map(seconds).transpose()?,
            datagram_receive_buffer: read(&limits, "datagram_receive_buffer")?,
            early_datagrams: read(&limits, "early_datagrams")?,
            max_connections: read(&limits, "connections")?,
            memory: read::<Option<u64>>(&limits, "server_memory")?.filter(|_| is_server).map(Memory::new),
            initial_mtu: read(&limits, "initial_mtu")?,
            max_mtu: read(&limits, "max_mtu")?,
            congestion: read(options, "congestion")?,
            // Where the system cannot do it, the socket says so.
            gso: true,
            reset_stream_at: read(options, "reset_stream_at")?,
            secret: secret(options)?,
            id_prefix: read(&connection_ids, "prefix")?,
            id_length: read(&connection_ids, "length")?,
            seed: seed.map(wtio_engine::tls::sha256),
        })
    }

    /// Which clients may begin a connection with a server.
    pub(crate) fn for_newcomers(&self) -> PyResult<NewcomerLimits> {
        let options = &self.0;
        let (limits, timeouts) = (options.getattr("limits")?, options.getattr("timeouts")?);
        Ok(NewcomerLimits {
            half_open: read(&limits, "half_open_connections")?,
            unvalidated: read(&limits, "unvalidated_connections")?,
            retry_from: read(options, "retry_from")?,
            connections_per_address: read(&limits, "connections_per_address")?,
            handshakes_per_address: read(&limits, "handshakes_per_address")?,
            handshake_timeout: seconds(read(&timeouts, "handshake")?)?,
        })
    }

    /// Where each new connection gets a qlog.
    pub(crate) fn qlog_directory(&self) -> PyResult<Option<PathBuf>> {
        read(&self.0, "qlog_directory")
    }

    /// Who receives.
    pub(crate) fn io(&self) -> PyResult<Io> {
        match read::<String>(&self.0, "io")?.as_str() {
            "loop" => Ok(Io::Loop),
            "thread" => Ok(Io::Thread),
            other => Err(PyValueError::new_err(format!("io = `{other}` is unknown; use `loop` or `thread`"))),
        }
    }

    /// What a new session is registered with. `send_credit` is what the peer lets us send on it (bytes, bidirectional
    /// and unidirectional streams); `None` is a session without flow control.
    pub(crate) fn for_session(&self, send_credit: Option<(u64, u64, u64)>) -> PyResult<SessionLimits> {
        let py = self.0.py();
        let limits = self.0.getattr(intern!(py, "limits"))?;
        let mut session = SessionLimits {
            datagram_buffer: limits.getattr(intern!(py, "datagram_receive_buffer"))?.extract()?,
            datagram_count: limits.getattr(intern!(py, "datagram_receive_count"))?.extract()?,
            receive_rate: limits.getattr(intern!(py, "session_receive_rate"))?.extract()?,
            receive_bytes: limits.getattr(intern!(py, "session_receive_bytes"))?.extract()?,
            ..SessionLimits::default()
        };
        if let Some((data, bidirectional, unidirectional)) = send_credit {
            session.flow_control = true;
            session.send_limit = data;
            session.send_streams = [bidirectional, unidirectional];
            let (data, bidirectional, unidirectional) = self.0.getattr(intern!(py, "session_credit"))?.extract()?;
            session.receive_window = data;
            session.receive_streams = [bidirectional, unidirectional];
        }
        Ok(session)
    }
}

fn secret(options: &Bound<'_, PyAny>) -> PyResult<Option<Secret>> {
    let secret = options.getattr("secret")?;
    if secret.is_none() {
        return Ok(None);
    }
    Ok(Some(Secret::new(&read::<Vec<u8>>(&secret, "value")?)))
}

fn read<'py, T: FromPyObjectOwned<'py>>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<T> {
    object.getattr(name)?.extract().map_err(Into::into)
}

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err(format!("{value} is no duration")))
}
