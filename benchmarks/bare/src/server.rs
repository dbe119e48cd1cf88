//! Answers every stream and datagram as the protocol that the client named in its TLS handshake (ALPN) wants it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::AsFd,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, Dir, Event, ReadError, StreamEvent, StreamId, crypto::rustls::HandshakeData,
};

use crate::{CHUNK, DATAGRAM_REPORT, peer::Peer};

#[derive(Default)]
struct Served {
    workload: String,
    answers: HashMap<StreamId, Answer>,
    datagrams: u64,
}

/// One stream: what was received on it, and what is to be sent.
#[derive(Default)]
struct Answer {
    request: BytesMut,
    received: u64,
    /// Bytes of a download still to be made.
    remaining: u64,
    queue: VecDeque<Bytes>,
    has_ended: bool,
}

/// Serve until standard input ends or `end` is reached.
pub fn serve(mut peer: Peer, end: Instant) -> io::Result<()> {
    let mut served: HashMap<ConnectionHandle, Served> = HashMap::new();
    let input = io::stdin();
    while Instant::now() < end && peer.iterate(Some(input.as_fd()), Some(end))? {
        while let Some((handle, event)) = peer.events.pop_front() {
            if matches!(event, Event::ConnectionLost { .. }) {
                served.remove(&handle);
                continue;
            }
            let Some(connection) = peer.connection(handle) else { continue };
            served.entry(handle).or_default().take(connection, event);
        }
    }
    Ok(())
}

impl Served {
    fn take(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::HandshakeDataReady => {
                let data =
                    connection.crypto_session().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
                let protocol = data.and_then(|data| data.protocol).unwrap_or_default();
                self.workload = String::from_utf8_lossy(&protocol).into_owned();
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(id) = connection.streams().accept(Dir::Bi) {
                    self.answers.insert(id, Answer::default());
                    self.serve(connection, id);
                }
            }
            Event::Stream(StreamEvent::Readable { id } | StreamEvent::Writable { id }) => self.serve(connection, id),
            Event::DatagramReceived => {
                while let Some(datagram) = connection.datagrams().recv() {
                    self.datagrams += 1;
                    // A datagram that does not fit in is lost, as on any network.
                    if self.workload == "datagram-echo" {
                        let _ = connection.datagrams().send(datagram, true);
                    } else if self.datagrams.is_multiple_of(DATAGRAM_REPORT) {
                        let report = Bytes::copy_from_slice(&self.datagrams.to_be_bytes());
                        let _ = connection.datagrams().send(report, true);
                    }
                }
            }
            _ => {}
        }
    }

    fn serve(&mut self, connection: &mut Connection, id: StreamId) {
        let Some(answer) = self.answers.get_mut(&id) else { return };
        if !answer.has_ended && !answer.read(connection, id, &self.workload) {
            self.answers.remove(&id);
        } else if answer.write(connection, id) {
            self.answers.remove(&id);
        }
    }
}

impl Answer {
    /// Take what is there. False: the stream is broken.
    fn read(&mut self, connection: &mut Connection, id: StreamId, workload: &str) -> bool {
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return false };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => match workload {
                    "upload" => self.received += chunk.bytes.len() as u64,
                    "echo" => self.queue.push_back(chunk.bytes),
                    _ => self.request.extend_from_slice(&chunk.bytes),
                },
                Ok(None) => {
                    self.has_ended = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => return false,
            }
        }
        let _ = chunks.finalize();
        if self.has_ended {
            match workload {
                "upload" => self.queue.push_back(Bytes::copy_from_slice(&self.received.to_be_bytes())),
                "download" => self.remaining = crate::number(&self.request),
                _ => self.queue.push_back(self.request.split().freeze()),
            }
        }
        true
    }

    /// Give what there is to give. True: all of it.
    fn write(&mut self, connection: &mut Connection, id: StreamId) -> bool {
        let mut stream = connection.send_stream(id);
        loop {
            if self.queue.is_empty() && self.remaining > 0 {
                let size = self.remaining.min(CHUNK.len() as u64);
                self.remaining -= size;
                self.queue.push_back(Bytes::from_static(&CHUNK[..size as usize]));
            }
            let Some(front) = self.queue.front_mut() else { break };
            if !front.is_empty() && stream.write_chunks(std::slice::from_mut(front)).is_err() {
                return false;
            }
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        self.has_ended && stream.finish().is_ok()
    }
}
