//! The client's side of every workload, as in `benchmarks/workloads.py`; one line of JSON each.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, Dir, Event, ReadError, StreamId, VarInt, WriteError};

use crate::{CHUNK, DATAGRAM_REPORT, Options, number, peer::Peer, text, value};

const DATAGRAM_WINDOW: u64 = 256;
const DATAGRAM_PATIENCE: Duration = Duration::from_millis(50);
static SMALL: [u8; 64] = [0xa5; 64];
static LARGE: [u8; 65_536] = [0xc3; 65_536];

type Failure = Box<dyn Error>;
type Values = Vec<(&'static str, f64)>;

/// What the caller asked for.
struct Sizes {
    bulk: u64,
    echoes: usize,
    requests: usize,
    in_flight: usize,
    small_requests: usize,
    large_requests: usize,
    datagram_seconds: f64,
    datagram_echoes: usize,
    handshakes: usize,
}

/// Run the workloads that are wanted.
pub fn run(options: &Options, configs: &HashMap<&'static str, ClientConfig>, end: Instant) -> Result<(), Failure> {
    let sizes = Sizes {
        bulk: value(options, "bulk")?,
        echoes: value(options, "echoes")?,
        requests: value(options, "requests")?,
        in_flight: value(options, "in-flight")?,
        small_requests: value(options, "small-requests")?,
        large_requests: value(options, "large-requests")?,
        datagram_seconds: value(options, "datagram-seconds")?,
        datagram_echoes: value(options, "datagram-echoes")?,
        handshakes: value(options, "handshakes")?,
    };
    let mut client = Client {
        peer: Peer::new(None)?,
        server: SocketAddr::from((Ipv4Addr::LOCALHOST, value(options, "port")?)),
        configs,
        end,
    };
    for workload in text(options, "workloads")?.split(',') {
        let line = match client.measure(workload, &sizes) {
            Ok(values) => {
                let values: Vec<_> = values.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("\"values\": {{{}}}", values.join(", "))
            }
            Err(error) => format!("\"error\": {:?}", error.to_string()),
        };
        writeln!(io::stdout(), "{{\"workload\": \"{workload}\", {line}}}")?;
    }
    Ok(())
}

struct Client<'a> {
    peer: Peer,
    server: SocketAddr,
    configs: &'a HashMap<&'static str, ClientConfig>,
    end: Instant,
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut ordered = values.to_vec();
    ordered.sort_by(f64::total_cmp);
    ordered[((share * ordered.len() as f64) as usize).min(ordered.len() - 1)]
}

fn seconds_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

impl Client<'_> {
    fn measure(&mut self, workload: &str, sizes: &Sizes) -> Result<Values, Failure> {
        match workload {
            "handshake" => self.handshakes(sizes.handshakes),
            "connect-request-close" => self.connect_request_close(sizes.handshakes / 2),
            "echo" => self.echoes(sizes.echoes),
            "request" => {
                let connection = self.connect("request")?;
                let result = self
                    .latencies(sizes.requests, |client| client.requests(connection, &SMALL, 1, 1).map(|_seconds| ()));
                self.close(connection)?;
                result
            }
            "datagram-echo" => self.datagram_echoes(sizes.datagram_echoes),
            "datagrams" => {
                let (cold, _lost) = self.datagrams(sizes.datagram_seconds / 4.0)?;
                let (warm, lost) = self.datagrams(sizes.datagram_seconds)?;
                Ok(vec![("cold", cold), ("warm", warm), ("lost %", lost)])
            }
            "small-in-flight" => self.in_flight(&SMALL, sizes.small_requests, sizes.in_flight),
            "large-in-flight" => self.in_flight(&LARGE, sizes.large_requests, sizes.in_flight),
            "upload" => self.transfers("upload", sizes.bulk),
            "download" => self.transfers("download", sizes.bulk),
            other => Err(format!("no workload `{other}`").into()),
        }
    }

    /// One iteration of the loop; the events of the connection are not lost, but only those that matter here are kept.
    fn iterate(&mut self, limit: Option<Instant>) -> Result<bool, Failure> {
        if Instant::now() >= self.end {
            return Err("out of time".into());
        }
        self.peer.iterate(None, Some(limit.unwrap_or(self.end).min(self.end)))?;
        let mut is_connected = false;
        while let Some((_handle, event)) = self.peer.events.pop_front() {
            match event {
                Event::ConnectionLost { reason } => return Err(reason.into()),
                Event::Connected => is_connected = true,
                _ => {}
            }
        }
        Ok(is_connected)
    }

    fn connect(&mut self, workload: &str) -> Result<ConnectionHandle, Failure> {
        let handle = self.peer.connect(self.configs[workload].clone(), self.server)?;
        while !self.iterate(None)? {}
        Ok(handle)
    }

    fn connection(&mut self, handle: ConnectionHandle) -> Result<&mut Connection, Failure> {
        self.peer.connection(handle).ok_or_else(|| "the connection is gone".into())
    }

    fn close(&mut self, handle: ConnectionHandle) -> Result<(), Failure> {
        self.connection(handle)?.close(Instant::now(), VarInt::from_u32(0), Bytes::new());
        // The packet is sent in this iteration. The rest of the connection's end does not matter.
        self.iterate(Some(Instant::now())).map(|_connected| ())
    }

    fn open(&mut self, handle: ConnectionHandle) -> Result<StreamId, Failure> {
        loop {
            if let Some(id) = self.connection(handle)?.streams().open(Dir::Bi) {
                return Ok(id);
            }
            self.iterate(None)?;
        }
    }

    /// Take what has arrived, and whether the stream has ended.
    fn read(&mut self, handle: ConnectionHandle, id: StreamId, mut take: impl FnMut(&[u8])) -> Result<bool, Failure> {
        let mut stream = self.connection(handle)?.recv_stream(id);
        let mut chunks = stream.read(true)?;
        let has_ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => take(&chunk.bytes),
                Ok(None) => break true,
                Err(ReadError::Blocked) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        let _ = chunks.finalize();
        Ok(has_ended)
    }

    /// Write all that goes in now.
    fn write(&mut self, handle: ConnectionHandle, id: StreamId, data: &mut Bytes) -> Result<(), Failure> {
        let mut stream = self.connection(handle)?.send_stream(id);
        while !data.is_empty() {
            match stream.write_chunks(std::slice::from_mut(data)) {
                Ok(_) => {}
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn latencies(
        &mut self,
        count: usize,
        mut operation: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<Values, Failure> {
        let mut times = Vec::new();
        for _ in 0..1 + count / 10 + count {
            let started = Instant::now();
            operation(self)?;
            times.push(seconds_since(started) * 1e6);
        }
        let warm = &times[1 + count / 10..];
        Ok(vec![
            ("cold", times[0]),
            ("warm", percentile(warm, 0.5)),
            ("p99", percentile(warm, 0.99)),
            ("min", percentile(warm, 0.0)),
        ])
    }

    fn handshakes(&mut self, count: usize) -> Result<Values, Failure> {
        let mut times = Vec::new();
        for _ in 0..=count {
            let started = Instant::now();
            let connection = self.connect("request")?;
            times.push(seconds_since(started) * 1e3);
            self.close(connection)?;
        }
        Ok(vec![("cold", times[0]), ("warm", percentile(&times[1..], 0.5)), ("p99", percentile(&times[1..], 0.99))])
    }

    fn connect_request_close(&mut self, count: usize) -> Result<Values, Failure> {
        let mut times = Vec::new();
        for _ in 0..=count {
            let started = Instant::now();
            let mut client = Client { peer: Peer::new(None)?, ..*self };
            let connection = client.connect("request")?;
            client.requests(connection, &SMALL, 1, 1)?;
            client.close(connection)?;
            drop(client);
            times.push(seconds_since(started) * 1e3);
        }
        Ok(vec![("cold", times[0]), ("warm", percentile(&times[1..], 0.5))])
    }

    fn echoes(&mut self, count: usize) -> Result<Values, Failure> {
        let connection = self.connect("echo")?;
        let stream = self.open(connection)?;
        let result = self.latencies(count, |client| {
            client.write(connection, stream, &mut Bytes::from_static(&SMALL))?;
            let mut arrived = 0;
            while arrived < SMALL.len() {
                client.iterate(None)?;
                if client.read(connection, stream, |data| arrived += data.len())? {
                    return Err("the stream ended early".into());
                }
            }
            Ok(())
        });
        self.close(connection)?;
        result
    }

    /// `count` requests, `width` at a time. Seconds.
    fn requests(
        &mut self,
        handle: ConnectionHandle,
        body: &'static [u8],
        count: usize,
        width: usize,
    ) -> Result<f64, Failure> {
        struct Request {
            id: StreamId,
            rest: Bytes,
            is_sent: bool,
            arrived: usize,
        }
        let started = Instant::now();
        let mut open: Vec<Request> = Vec::new();
        let mut begun = 0;
        let mut done = 0;
        while done < count {
            while begun < count && open.len() < width {
                let Some(id) = self.connection(handle)?.streams().open(Dir::Bi) else { break };
                open.push(Request { id, rest: Bytes::from_static(body), is_sent: false, arrived: 0 });
                begun += 1;
            }
            let mut index = 0;
            while let Some(request) = open.get_mut(index) {
                if !request.is_sent {
                    self.write(handle, request.id, &mut request.rest)?;
                    if request.rest.is_empty() {
                        self.connection(handle)?.send_stream(request.id).finish()?;
                        request.is_sent = true;
                    }
                }
                let has_ended = self.read(handle, request.id, |data| request.arrived += data.len())?;
                if !has_ended {
                    index += 1;
                    continue;
                }
                if request.arrived != body.len() {
                    return Err(format!("answer of {} bytes to a request of {}", request.arrived, body.len()).into());
                }
                done += 1;
                open.swap_remove(index);
            }
            if done < count {
                self.iterate(None)?;
            }
        }
        Ok(seconds_since(started))
    }

    fn in_flight(&mut self, body: &'static [u8], count: usize, width: usize) -> Result<Values, Failure> {
        let connection = self.connect("request")?;
        let cold = (count / 4) as f64 / self.requests(connection, body, count / 4, width)?;
        let warm = count as f64 / self.requests(connection, body, count, width)?;
        self.close(connection)?;
        Ok(vec![("cold", cold), ("warm", warm)])
    }

    fn transfers(&mut self, workload: &str, size: u64) -> Result<Values, Failure> {
        let connection = self.connect(workload)?;
        let mut rates = Vec::new();
        for _ in 0..2 {
            let started = Instant::now();
            let stream = self.open(connection)?;
            let received = if workload == "upload" {
                self.upload(connection, stream, size)?
            } else {
                self.download(connection, stream, size)?
            };
            if received != size {
                return Err(format!("{received} of {size} bytes arrived").into());
            }
            rates.push(size as f64 / seconds_since(started) / 1e6);
        }
        self.close(connection)?;
        Ok(vec![("cold", rates[0]), ("warm", rates[1])])
    }

    fn upload(&mut self, connection: ConnectionHandle, stream: StreamId, size: u64) -> Result<u64, Failure> {
        let mut rest = Bytes::new();
        let mut given = 0;
        loop {
            while rest.is_empty() && given < size {
                rest = Bytes::from_static(&CHUNK[..(size - given).min(CHUNK.len() as u64) as usize]);
                given += rest.len() as u64;
                self.write(connection, stream, &mut rest)?;
            }
            self.write(connection, stream, &mut rest)?;
            if rest.is_empty() && given == size {
                break;
            }
            self.iterate(None)?;
        }
        self.connection(connection)?.send_stream(stream).finish()?;
        let mut answer = Vec::new();
        while !self.read(connection, stream, |data| answer.extend_from_slice(data))? {
            self.iterate(None)?;
        }
        Ok(number(&answer))
    }

    fn download(&mut self, connection: ConnectionHandle, stream: StreamId, size: u64) -> Result<u64, Failure> {
        self.write(connection, stream, &mut Bytes::copy_from_slice(&size.to_be_bytes()))?;
        self.connection(connection)?.send_stream(stream).finish()?;
        let mut received = 0;
        while !self.read(connection, stream, |data| received += data.len() as u64)? {
            self.iterate(None)?;
        }
        Ok(received)
    }

    /// Received datagrams per second, and how many percent were lost.
    fn datagrams(&mut self, seconds: f64) -> Result<(f64, f64), Failure> {
        let connection = self.connect("datagrams")?;
        let (mut sent, mut arrived, mut written_off) = (0, 0, 0);
        let started = Instant::now();
        let mut last_progress = started;
        loop {
            let is_over = seconds_since(started) >= seconds;
            if is_over && arrived >= sent {
                break;
            }
            if !is_over && sent - arrived - written_off < DATAGRAM_WINDOW {
                for _ in 0..DATAGRAM_REPORT {
                    self.connection(connection)?.datagrams().send(Bytes::from_static(&SMALL), true)?;
                }
                sent += DATAGRAM_REPORT;
                self.iterate(Some(Instant::now()))?;
            } else {
                self.iterate(Some(Instant::now() + DATAGRAM_PATIENCE))?;
            }
            let looked_at = Instant::now();
            while let Some(report) = self.connection(connection)?.datagrams().recv() {
                if number(&report) > arrived {
                    arrived = number(&report);
                    last_progress = looked_at;
                }
            }
            written_off = written_off.min(sent - arrived);
            if sent - arrived - written_off >= DATAGRAM_WINDOW || is_over {
                if looked_at - last_progress >= DATAGRAM_PATIENCE {
                    if is_over {
                        break;
                    }
                    written_off = sent - arrived;
                }
            }
        }
        self.close(connection)?;
        if arrived == 0 {
            return Err("no datagram arrived".into());
        }
        let rate = arrived as f64 / (last_progress - started).as_secs_f64();
        Ok((rate, 100.0 * (1.0 - arrived as f64 / sent as f64)))
    }

    fn datagram_echoes(&mut self, count: usize) -> Result<Values, Failure> {
        let connection = self.connect("datagram-echo")?;
        let mut lost = 0;
        let result = self.latencies(count, |client| {
            client.connection(connection)?.datagrams().send(Bytes::from_static(&SMALL), true)?;
            let mut again = Instant::now() + Duration::from_millis(500);
            while client.connection(connection)?.datagrams().recv().is_none() {
                client.iterate(Some(again))?;
                if Instant::now() >= again {
                    again += Duration::from_millis(500);
                    lost += 1;
                    client.connection(connection)?.datagrams().send(Bytes::from_static(&SMALL), true)?;
                }
            }
            Ok(())
        });
        self.close(connection)?;
        let mut values = result?;
        values.push(("lost", f64::from(lost)));
        Ok(values)
    }
}
