//! Every act on a connection as one call on its engine, for tests: they name connection and stream by ID, and get an answer
//! also if one of them is gone, as Python does.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses a part of this")]

use std::{net::SocketAddr, sync::LazyLock, time::Instant};

use bytes::Bytes;

use wtio_engine::{
    ConnectionFacts, ConnectionMut, ConnectionStats, Engine, ReadOutcome, ReceiveState, Receiving, SendState, Sending,
    StreamStats,
    session::{Credit, DatagramStats, SessionLimits},
    session_datagrams::SessionDatagrams,
};

/// For what does not depend on the time.
static ANY_TIME: LazyLock<Instant> = LazyLock::new(Instant::now);

fn with<R>(engine: &mut Engine, now: Instant, id: u64, act: impl FnOnce(&mut ConnectionMut<'_>) -> R) -> Option<R> {
    engine.connection(now, id).map(|mut connection| act(&mut connection))
}

fn receiving<R>(
    engine: &mut Engine,
    now: Instant,
    id: u64,
    stream: u64,
    act: impl FnOnce(&mut Receiving<'_>) -> R,
) -> Option<R> {
    engine.connection(now, id)?.receiving(stream).map(|mut half| act(&mut half))
}

fn sending<R>(
    engine: &mut Engine,
    now: Instant,
    id: u64,
    stream: u64,
    act: impl FnOnce(&mut Sending<'_>) -> R,
) -> Option<R> {
    engine.connection(now, id)?.sending(stream).map(|mut half| act(&mut half))
}

fn datagrams<R>(
    engine: &mut Engine,
    now: Instant,
    id: u64,
    session: u64,
    act: impl FnOnce(&mut SessionDatagrams<'_>) -> R,
) -> Option<R> {
    engine.connection(now, id).map(|mut connection| act(&mut connection.datagrams(session)))
}

pub trait Shortcuts {
    fn close(&mut self, now: Instant, id: u64, code: u64, reason: &[u8]);
    fn remote_address(&mut self, id: u64) -> Option<SocketAddr>;
    fn server_name(&mut self, id: u64) -> Option<String>;
    fn peer_parameters(&mut self, id: u64) -> Option<Vec<(u64, Vec<u8>)>>;
    fn update_keys(&mut self, id: u64);
    fn key_updates(&mut self, id: u64) -> u64;
    fn peer_certificates(&mut self, id: u64) -> Vec<Vec<u8>>;
    fn connection_facts(&mut self, id: u64) -> Option<ConnectionFacts>;
    fn export_keying_material(&mut self, id: u64, label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>>;
    fn connection_stats(&mut self, id: u64) -> Option<ConnectionStats>;
    fn open_stream(
        &mut self,
        now: Instant,
        id: u64,
        bidirectional: bool,
        header: &[u8],
        session: Option<u64>,
    ) -> Option<u64>;
    fn want_streams(&mut self, id: u64, bidirectional: bool) -> bool;
    fn prepare_read(&mut self, now: Instant, id: u64, stream: u64, most: usize) -> ReadOutcome;
    fn prepare_exactly(&mut self, now: Instant, id: u64, stream: u64, count: usize) -> ReadOutcome;
    fn prepare_until(&mut self, now: Instant, id: u64, stream: u64, separator: &[u8], limit: usize) -> ReadOutcome;
    fn prepare_all(&mut self, now: Instant, id: u64, stream: u64, limit: Option<usize>) -> ReadOutcome;
    fn take(&mut self, now: Instant, id: u64, stream: u64, out: &mut [u8]);
    fn stop(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool;
    fn write(&mut self, id: u64, stream: u64, data: &[u8]) -> Option<usize>;
    fn write_whole(&mut self, id: u64, stream: u64, data: &Bytes) -> Option<usize>;
    fn finish(&mut self, id: u64, stream: u64) -> bool;
    fn reset(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool;
    fn receive_state(&mut self, id: u64, stream: u64) -> ReceiveState;
    fn send_state(&mut self, id: u64, stream: u64) -> SendState;
    fn want_read(&mut self, id: u64, stream: u64) -> bool;
    fn want_write(&mut self, id: u64, stream: u64) -> bool;
    fn want_acked(&mut self, id: u64, stream: u64) -> bool;
    fn want_stopped(&mut self, id: u64, stream: u64) -> bool;
    fn unacked(&mut self, id: u64, stream: u64) -> u64;
    fn stream_count(&mut self, id: u64) -> usize;
    fn core_streams(&mut self, id: u64) -> Option<[u64; 3]>;
    fn set_priority(&mut self, id: u64, stream: u64, priority: i32);
    fn stream_stats(&mut self, now: Instant, id: u64, stream: u64) -> Option<StreamStats>;
    fn release(&mut self, now: Instant, id: u64, stream: u64, code: u64);
    fn add_session(&mut self, id: u64, session: u64, limits: SessionLimits);
    fn set_concurrent_streams(&mut self, id: u64, bidirectional: bool, count: u64);
    fn set_send_limit(&mut self, id: u64, session: u64, limit: u64);
    fn set_send_streams(&mut self, id: u64, session: u64, bidirectional: bool, limit: u64);
    fn end_session(&mut self, now: Instant, id: u64, session: u64, code: u64);
    fn unacked_streams(&mut self, id: u64, session: u64) -> usize;
    fn want_session_acked(&mut self, id: u64, session: u64) -> bool;
    fn send_datagram(&mut self, now: Instant, id: u64, session: u64, data: &[u8]) -> i64;
    fn receive_datagram(&mut self, id: u64, session: u64) -> Option<Bytes>;
    fn want_datagram(&mut self, id: u64, session: u64) -> bool;
    fn credit(&mut self, id: u64, session: u64) -> Option<Credit>;
    fn datagram_stats(&mut self, id: u64, session: u64) -> Option<DatagramStats>;
    fn max_datagram(&mut self, id: u64) -> Option<usize>;
    fn is_client(&mut self, id: u64) -> bool;
}

impl Shortcuts for Engine {
    fn close(&mut self, now: Instant, id: u64, code: u64, reason: &[u8]) {
        with(self, now, id, |connection| connection.close(code, reason));
    }

    fn remote_address(&mut self, id: u64) -> Option<SocketAddr> {
        with(self, *ANY_TIME, id, |connection| connection.remote_address())
    }

    fn server_name(&mut self, id: u64) -> Option<String> {
        with(self, *ANY_TIME, id, |connection| connection.server_name()).flatten()
    }

    fn peer_parameters(&mut self, id: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        with(self, *ANY_TIME, id, |connection| connection.peer_parameters()).flatten()
    }

    fn update_keys(&mut self, id: u64) {
        with(self, *ANY_TIME, id, |connection| connection.update_keys());
    }

    fn key_updates(&mut self, id: u64) -> u64 {
        with(self, *ANY_TIME, id, |connection| connection.key_updates()).unwrap_or_default()
    }

    fn peer_certificates(&mut self, id: u64) -> Vec<Vec<u8>> {
        with(self, *ANY_TIME, id, |connection| connection.peer_certificates()).unwrap_or_default()
    }

    fn connection_facts(&mut self, id: u64) -> Option<ConnectionFacts> {
        with(self, *ANY_TIME, id, |connection| connection.facts())
    }

    fn export_keying_material(&mut self, id: u64, label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>> {
        with(self, *ANY_TIME, id, |connection| connection.export_keying_material(label, context, length)).flatten()
    }

    fn connection_stats(&mut self, id: u64) -> Option<ConnectionStats> {
        with(self, *ANY_TIME, id, |connection| connection.stats())
    }

    fn open_stream(
        &mut self,
        now: Instant,
        id: u64,
        bidirectional: bool,
        header: &[u8],
        session: Option<u64>,
    ) -> Option<u64> {
        with(self, now, id, |connection| connection.open_stream(bidirectional, header, session)).flatten()
    }

    fn want_streams(&mut self, id: u64, bidirectional: bool) -> bool {
        with(self, *ANY_TIME, id, |connection| connection.want_streams(bidirectional)).unwrap_or(false)
    }

    fn prepare_read(&mut self, now: Instant, id: u64, stream: u64, most: usize) -> ReadOutcome {
        receiving(self, now, id, stream, |half| half.prepare_read(most)).unwrap_or(ReadOutcome::Ended)
    }

    fn prepare_exactly(&mut self, now: Instant, id: u64, stream: u64, count: usize) -> ReadOutcome {
        receiving(self, now, id, stream, |half| half.prepare_exactly(count)).unwrap_or(ReadOutcome::Ended)
    }

    fn prepare_until(&mut self, now: Instant, id: u64, stream: u64, separator: &[u8], limit: usize) -> ReadOutcome {
        receiving(self, now, id, stream, |half| half.prepare_until(separator, limit)).unwrap_or(ReadOutcome::Ended)
    }

    fn prepare_all(&mut self, now: Instant, id: u64, stream: u64, limit: Option<usize>) -> ReadOutcome {
        receiving(self, now, id, stream, |half| half.prepare_all(limit)).unwrap_or(ReadOutcome::Ended)
    }

    fn take(&mut self, now: Instant, id: u64, stream: u64, out: &mut [u8]) {
        receiving(self, now, id, stream, |half| half.take(out));
    }

    fn stop(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool {
        receiving(self, now, id, stream, |half| half.stop(code)).unwrap_or(false)
    }

    fn write(&mut self, id: u64, stream: u64, data: &[u8]) -> Option<usize> {
        sending(self, *ANY_TIME, id, stream, |half| half.write(data)).flatten()
    }

    fn write_whole(&mut self, id: u64, stream: u64, data: &Bytes) -> Option<usize> {
        sending(self, *ANY_TIME, id, stream, |half| half.write_whole(data)).flatten()
    }

    fn finish(&mut self, id: u64, stream: u64) -> bool {
        sending(self, *ANY_TIME, id, stream, |half| half.finish()).unwrap_or(false)
    }

    fn reset(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool {
        sending(self, now, id, stream, |half| half.reset(code)).unwrap_or(false)
    }

    fn receive_state(&mut self, id: u64, stream: u64) -> ReceiveState {
        receiving(self, *ANY_TIME, id, stream, |half| half.state()).unwrap_or(ReceiveState::Gone)
    }

    fn send_state(&mut self, id: u64, stream: u64) -> SendState {
        sending(self, *ANY_TIME, id, stream, |half| half.state()).unwrap_or(SendState::Gone)
    }

    fn want_read(&mut self, id: u64, stream: u64) -> bool {
        receiving(self, *ANY_TIME, id, stream, |half| half.want_read()).unwrap_or(false)
    }

    fn want_write(&mut self, id: u64, stream: u64) -> bool {
        sending(self, *ANY_TIME, id, stream, |half| half.want_write()).unwrap_or(false)
    }

    fn want_acked(&mut self, id: u64, stream: u64) -> bool {
        sending(self, *ANY_TIME, id, stream, |half| half.want_acked()).unwrap_or(false)
    }

    fn want_stopped(&mut self, id: u64, stream: u64) -> bool {
        sending(self, *ANY_TIME, id, stream, |half| half.want_stopped()).unwrap_or(false)
    }

    fn unacked(&mut self, id: u64, stream: u64) -> u64 {
        sending(self, *ANY_TIME, id, stream, |half| half.unacked()).unwrap_or(0)
    }

    fn stream_count(&mut self, id: u64) -> usize {
        with(self, *ANY_TIME, id, |connection| connection.stream_count()).unwrap_or(0)
    }

    fn core_streams(&mut self, id: u64) -> Option<[u64; 3]> {
        with(self, *ANY_TIME, id, |connection| connection.core_streams())
    }

    fn set_priority(&mut self, id: u64, stream: u64, priority: i32) {
        sending(self, *ANY_TIME, id, stream, |half| half.set_priority(priority));
    }

    fn stream_stats(&mut self, now: Instant, id: u64, stream: u64) -> Option<StreamStats> {
        with(self, now, id, |connection| connection.stream_stats(stream)).flatten()
    }

    fn release(&mut self, now: Instant, id: u64, stream: u64, code: u64) {
        with(self, now, id, |connection| connection.release(stream, code));
    }

    fn add_session(&mut self, id: u64, session: u64, limits: SessionLimits) {
        with(self, *ANY_TIME, id, |connection| connection.add_session(session, limits));
    }

    fn set_concurrent_streams(&mut self, id: u64, bidirectional: bool, count: u64) {
        with(self, *ANY_TIME, id, |connection| connection.set_concurrent_streams(bidirectional, count));
    }

    fn set_send_limit(&mut self, id: u64, session: u64, limit: u64) {
        with(self, *ANY_TIME, id, |connection| connection.set_send_limit(session, limit));
    }

    fn set_send_streams(&mut self, id: u64, session: u64, bidirectional: bool, limit: u64) {
        with(self, *ANY_TIME, id, |connection| connection.set_send_streams(session, bidirectional, limit));
    }

    fn end_session(&mut self, now: Instant, id: u64, session: u64, code: u64) {
        with(self, now, id, |connection| connection.end_session(session, code));
    }

    fn unacked_streams(&mut self, id: u64, session: u64) -> usize {
        with(self, *ANY_TIME, id, |connection| connection.unacked_streams(session)).unwrap_or(0)
    }

    fn want_session_acked(&mut self, id: u64, session: u64) -> bool {
        with(self, *ANY_TIME, id, |connection| connection.want_session_acked(session)).unwrap_or(false)
    }

    fn send_datagram(&mut self, now: Instant, id: u64, session: u64, data: &[u8]) -> i64 {
        datagrams(self, now, id, session, |datagrams| datagrams.send(data)).unwrap_or(-1)
    }

    fn receive_datagram(&mut self, id: u64, session: u64) -> Option<Bytes> {
        datagrams(self, *ANY_TIME, id, session, |datagrams| datagrams.receive()).flatten()
    }

    fn want_datagram(&mut self, id: u64, session: u64) -> bool {
        datagrams(self, *ANY_TIME, id, session, |datagrams| datagrams.want()).unwrap_or(false)
    }

    fn credit(&mut self, id: u64, session: u64) -> Option<Credit> {
        with(self, *ANY_TIME, id, |connection| connection.credit(session)).flatten()
    }

    fn datagram_stats(&mut self, id: u64, session: u64) -> Option<DatagramStats> {
        datagrams(self, *ANY_TIME, id, session, |datagrams| datagrams.stats()).flatten()
    }

    fn max_datagram(&mut self, id: u64) -> Option<usize> {
        with(self, *ANY_TIME, id, |connection| connection.max_datagram()).flatten()
    }

    fn is_client(&mut self, id: u64) -> bool {
        with(self, *ANY_TIME, id, |connection| connection.is_client()).unwrap_or(false)
    }
}
