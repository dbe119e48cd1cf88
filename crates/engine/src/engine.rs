//! The engine: all connections that share one UDP socket, real or simulated; which of them is served next, their
//! timers, and the events that nobody has taken yet.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use crate::{
    config::Options,
    connection::{Connection, ConnectionMut, Scratch},
    error::SetupError,
    event::{Event, Untaken},
    memory::{Holding, Memory},
    newcomers::{Arrival, Newcomer, NewcomerFigures, NewcomerLimits, Newcomers, Prefix, Verdict},
    quic::{
        core::{Burst, Core, Transmit},
        endpoint::{Endpoint, Incoming, Received},
    },
    tls::{ClientTls, ServerTls},
    totals::{Ending, Totals},
};

/// Room for the address-validation and reset answers of an endpoint that a full socket may hold back.
const ANSWER_LIMIT: usize = 1024;
/// Bursts one connection may send before the next one is served.
const BURSTS_PER_CONNECTION: usize = 8;
/// Outdated timers that may be kept before they are swept out, apart from two for each connection.
const SPARE_TIMERS: usize = 64;

/// UDP payload on its way out: one datagram, or several of `segment_size` for the kernel to cut.
#[derive(Debug)]
pub struct OutgoingDatagram<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// From which of our addresses, where it matters.
    pub source: Option<IpAddr>,
    /// ECN bits of the IP header.
    pub ecn: u8,
    /// Size of each datagram in `contents`, the last may be shorter; `None` for a single one.
    pub segment_size: Option<usize>,
    /// The bytes.
    pub contents: &'a [u8],
}

impl<'a> OutgoingDatagram<'a> {
    fn new(burst: &Burst, buffer: &'a [u8]) -> Self {
        let Burst { destination, source, ecn, segment_size, size } = *burst;
        Self { destination, source, ecn, segment_size, contents: &buffer[..size] }
    }
}

/// A burst that the socket did not take.
#[derive(Debug)]
struct Held {
    burst: Burst,
    contents: Vec<u8>,
}

/// All connections that share one UDP socket.
pub struct Engine {
    endpoint: Endpoint,
    options: Options,
    /// By ID. Boxed, because most of a table's slots are empty. For a server, `newcomers` bounds it.
    connections: FxHashMap<u64, Box<Connection>>,
    next_id: u64,
    /// Connections with something to do, first come, first served; each once ([`Connection::is_listed`]).
    listed: VecDeque<u64>,
    /// When connections may have a timer due, the earliest first. Each has one entry that counts, the one that equals
    /// [`Connection::alarm`]. It is at or before [`Connection::timer`], and moves there once it comes first: nearly every packet
    /// puts the timer off, and a heap cannot move an entry. Others stay until they come first or are swept out.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Sent before anything else. Bounded by ANSWER_LIMIT and one burst that the socket refused.
    answers: VecDeque<Held>,
    /// Packets that are being made; kept for its memory.
    buffer: Vec<u8>,
    scratch: Scratch,
    events: Untaken,
    /// A server's: who may begin a connection, and how many have.
    newcomers: Newcomers,
    /// Of connections that are forgotten.
    totals: Totals,
    /// Packets for another server with the same address.
    astray: u64,
    is_server: bool,
    /// New connections are refused, because the server is closing.
    is_refusing: bool,
    /// Memory was short when it was last looked at: writers may have been turned away.
    was_short: bool,
    /// A connection is drained (RFC 9000, section 10.2) since the owner asked last.
    has_drained: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

/// Whether the connection ID of a packet differs from `prefix`, which those of ours have, in the last byte of it only: that is
/// the slot, if there is one.
#[inline]
fn is_astray(packet: &[u8], prefix: &[u8]) -> bool {
    let Some((slot, before)) = prefix.split_last() else { return false };
    packet.first().is_some_and(|first| first & 0x80 == 0)
        && packet.get(1..=prefix.len()).is_some_and(|id| id[..before.len()] == *before && id[before.len()] != *slot)
}

impl Engine {
    /// Make an engine; with `server`, it accepts connections.
    ///
    /// # Errors
    /// For a TLS configuration or an option that the QUIC core refuses.
    pub fn new(options: Options, server: Option<&ServerTls>) -> Result<Self, SetupError> {
        Ok(Self {
            endpoint: Endpoint::new(&options, server)?,
            newcomers: Newcomers::new(NewcomerLimits::default(), options.max_connections),
            options,
            connections: FxHashMap::default(),
            next_id: 0,
            listed: VecDeque::new(),
            timers: BinaryHeap::new(),
            answers: VecDeque::new(),
            buffer: Vec::new(),
            scratch: Scratch::default(),
            events: Untaken::default(),
            totals: Totals::default(),
            astray: 0,
            is_server: server.is_some(),
            is_refusing: false,
            was_short: false,
            has_drained: false,
        })
    }

    /// Have each new connection write what happens into a file of its own in a directory (qlog).
    pub fn write_qlogs(&mut self, directory: PathBuf) {
        self.endpoint.write_qlogs(directory, self.options.clone());
    }

    // ---------------------------------------------------------------- in and out

    /// Take one UDP payload from the network. Nothing is sent before [`Engine::process`].
    pub fn receive(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>, ecn: u8, data: BytesMut) {
        self.buffer.clear();
        self.events.bound();
        self.astray += u64::from(is_astray(&data, &self.options.id_prefix));
        let received = self.endpoint.receive(now, remote, local, ecn, data, &mut self.buffer, |id| {
            self.connections.get_mut(&id).map(|connection| &mut connection.core)
        });
        match received {
            Received::Nothing => {}
            Received::Packet(id) => self.poll_events(now, id),
            Received::New(incoming) => self.meet(now, incoming),
            Received::Answer(burst) => self.answer(burst),
        }
    }

    /// A client wants a connection.
    fn meet(&mut self, now: Instant, incoming: Box<Incoming>) {
        let hello = incoming.hello();
        if self.newcomers.is_answered(now, hello) {
            self.endpoint.ignore(incoming);
            return;
        }
        let newcomer =
            Newcomer { prefix: Prefix::of(incoming.remote_address()), is_validated: incoming.is_validated() };
        let verdict = if self.is_refusing {
            self.newcomers.note_closing();
            Verdict::Refuse
        } else {
            let has_room = self.has_room();
            self.newcomers.judge(now, newcomer, self.connections.len(), self.events.incoming(), has_room)
        };
        match verdict {
            Verdict::Accept => self.accept(now, newcomer, incoming, None),
            Verdict::Displace(id) => self.accept(now, newcomer, incoming, Some(id)),
            Verdict::Retry => {
                self.newcomers.note_answer(now, hello);
                if let Some(burst) = self.endpoint.retry(incoming, &mut self.buffer) {
                    self.answer(burst);
                }
            }
            Verdict::Refuse => {
                self.newcomers.note_answer(now, hello);
                let burst = self.endpoint.refuse(incoming, &mut self.buffer);
                self.answer(burst);
            }
        }
    }

    /// Begin a connection with a client. `displaced` makes room for it, unless its first packet turns out to be no good.
    fn accept(&mut self, now: Instant, newcomer: Newcomer, incoming: Box<Incoming>, displaced: Option<u64>) {
        match self.endpoint.accept(now, self.next_id, incoming, &mut self.buffer) {
            Ok(core) => {
                if let Some(displaced) = displaced {
                    self.newcomers.note_displaced();
                    self.give_up(now, displaced, Ending::Displaced, b"the server has no room for another handshake");
                }
                let is_told = !self.newcomers.is_pressed();
                let id = self.insert(now, core);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.arrival = Arrival {
                        standing: self.newcomers.begin(now, id, newcomer),
                        prefix: Some(newcomer.prefix),
                        is_told,
                        is_told_late: false,
                    };
                }
                if is_told {
                    self.events.push_incoming(id);
                }
                self.poll_events(now, id);
            }
            Err(Some(burst)) => self.answer(burst),
            Err(None) => {}
        }
    }

    /// End a half-open connection.
    fn give_up(&mut self, now: Instant, id: u64, ending: Ending, reason: &[u8]) {
        if let Some(mut connection) = self.connection(now, id) {
            connection.give_up(ending, reason);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            let arrival = &mut connection.arrival;
            arrival.standing = self.newcomers.note(id, arrival.standing, true);
        }
    }

    fn answer(&mut self, burst: Burst) {
        if self.answers.len() < ANSWER_LIMIT {
            let contents = self.buffer[..burst.size].to_vec();
            self.answers.push_back(Held { burst, contents });
        }
    }

    fn insert(&mut self, now: Instant, core: Core) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut connection = Box::new(Connection::new(id, core, &self.options));
        // At once, for many may come before the next one is looked at.
        connection.settle_account(now);
        self.connections.insert(id, connection);
        self.list(id);
        id
    }

    /// Whether the budget has room for one more connection.
    fn has_room(&self) -> bool {
        self.options.memory.as_ref().is_none_or(|memory| memory.admits())
    }

    /// Put a connection on the list of those with something to do.
    fn list(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_listed, true)
        {
            self.listed.push_back(id);
        }
    }

    /// Take over what the core of a connection reports, and list it.
    #[inline]
    fn poll_events(&mut self, now: Instant, id: u64) {
        if let Some(mut connection) = self.connection(now, id) {
            connection.poll_events();
            connection.core().wants_transmit = true;
        }
    }

    /// Whether [`Engine::process`] has something to do apart from timers.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.listed.is_empty() || !self.answers.is_empty() || !self.events.list.is_empty()
    }

    /// Whether there may be packets to send: a connection was touched.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.listed.is_empty() || !self.answers.is_empty()
    }

    /// Whether events wait to be taken.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.list.is_empty()
    }

    /// Whether a connection is drained since the last call. That makes no event.
    pub fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.has_drained)
    }

    /// Run due timers, hand queued bytes to the core and give packets to `send` until nothing wants to leave or
    /// `send` answers false: the socket is full, and the packet it refused comes first next time. `bursts` bounds
    /// the number of calls. Returns whether everything left.
    pub fn process(
        &mut self,
        now: Instant,
        segments: usize,
        bursts: usize,
        send: impl FnMut(&OutgoingDatagram<'_>) -> bool,
    ) -> bool {
        let has_all_left = self.serve(now, segments, bursts, send);
        self.note_memory();
        has_all_left
    }

    #[inline]
    fn serve(
        &mut self,
        now: Instant,
        segments: usize,
        mut bursts: usize,
        mut send: impl FnMut(&OutgoingDatagram<'_>) -> bool,
    ) -> bool {
        let largest = usize::from(self.options.max_mtu);
        self.run_timers(now);
        if self.newcomers.has_chores() {
            self.end_handshakes(now);
        }
        while let Some(answer) = self.answers.front() {
            if bursts == 0 || !send(&OutgoingDatagram::new(&answer.burst, &answer.contents)) {
                return false;
            }
            bursts -= 1;
            self.answers.pop_front();
        }
        while let Some(id) = self.listed.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_listed = false;
            connection.core.wants_transmit = false;
            let mut connection =
                ConnectionMut::new(connection, now, &mut self.events.list, &mut self.listed, &mut self.scratch);
            self.endpoint.settle(connection.core());
            connection.poll_events();
            let state = connection.state();
            if state.arrival.standing.is_outdated(state.is_connected, state.is_closed) {
                let arrival = &mut state.arrival;
                arrival.standing = self.newcomers.note(id, arrival.standing, state.is_closed);
                self.events.incoming += usize::from(std::mem::take(&mut arrival.is_told_late));
            }
            let mut left = if state.core.is_cut_short() { 0 } else { BURSTS_PER_CONNECTION };
            let mut is_idle = false;
            while left > 0 && bursts > 0 {
                connection.flush();
                let burst = match connection.core().transmit(now, segments, largest, &mut self.buffer) {
                    Transmit::Burst(burst) => burst,
                    Transmit::Discarded => continue,
                    Transmit::Nothing => {
                        is_idle = true;
                        break;
                    }
                };
                left -= 1;
                bursts -= 1;
                if !send(&OutgoingDatagram::new(&burst, &self.buffer)) {
                    let contents = self.buffer[..burst.size].to_vec();
                    self.answers.push_front(Held { burst, contents });
                    bursts = 0;
                    break;
                }
            }
            self.endpoint.settle(connection.core());
            connection.poll_events();
            connection.wake_writers();
            connection.relieve_peer();
            connection.state().settle_account(now);
            let timer = connection.next_timer();
            let state = connection.state();
            state.timer = timer;
            if let Some(at) = timer
                && state.alarm.is_none_or(|alarm| at < alarm)
            {
                state.alarm = timer;
                self.timers.push(Reverse((at, id)));
            }
            if state.core.is_drained() {
                state.core.wants_transmit = false;
                self.has_drained = true;
                self.endpoint.forget(&state.core, id);
                let is_unreferenced = state.is_unreferenced();
                drop(connection);
                if is_unreferenced && let Some(connection) = self.connections.remove(&id) {
                    self.totals += connection.totals();
                }
                continue;
            }
            // What was settled just now may have to be sent, such as a reset that was held.
            state.core.wants_transmit |= !is_idle;
            if state.core.wants_transmit && bursts == 0 {
                return false;
            }
        }
        true
    }

    /// Report that memory is short, or have writers woken that were turned away while it was.
    #[inline]
    fn note_memory(&mut self) {
        let Some(memory) = &self.options.memory else { return };
        if memory.is_short() {
            self.was_short = true;
            self.events.push_short();
        } else if std::mem::take(&mut self.was_short) {
            for (id, connection) in &mut self.connections {
                if connection.has_writers() && !std::mem::replace(&mut connection.is_listed, true) {
                    self.listed.push_back(*id);
                }
            }
        }
    }

    /// Drop entries that do not count before they outnumber the connections.
    fn sweep_timers(&mut self) {
        if self.timers.len() > 2 * self.connections.len() + SPARE_TIMERS {
            self.timers.retain(|Reverse((at, id))| {
                self.connections.get(id).is_some_and(|connection| connection.alarm == Some(*at))
            });
        }
    }

    /// The timer that is due first, and the connection it is of.
    fn first_timer(&mut self) -> Option<(Instant, u64)> {
        while let Some(mut first) = self.timers.peek_mut() {
            let Reverse((at, id)) = *first;
            let connection = self.connections.get_mut(&id).filter(|connection| connection.alarm == Some(at));
            let timer = connection.and_then(|connection| {
                connection.alarm = connection.timer;
                connection.timer
            });
            match timer {
                Some(timer) if timer == at => return Some((at, id)),
                Some(timer) => *first = Reverse((timer, id)),
                None => {
                    PeekMut::pop(first);
                }
            }
        }
        None
    }

    fn run_timers(&mut self, now: Instant) {
        self.sweep_timers();
        while let Some((_, id)) = self.first_timer().filter(|(at, _)| *at <= now) {
            self.timers.pop();
            if let Some(connection) = self.connections.get_mut(&id) {
                (connection.timer, connection.alarm) = (None, None);
                connection.core.handle_timer(now);
                self.list(id);
            }
        }
    }

    /// When [`Engine::process`] must run next, if nothing happens before.
    pub fn next_timer(&mut self) -> Option<Instant> {
        let first = self.first_timer().map(|(at, _)| at);
        [first, self.newcomers.next_due()].into_iter().flatten().min()
    }

    /// End handshakes that have taken too long, and forget half-open connections that are over, if there are too many.
    fn end_handshakes(&mut self, now: Instant) {
        while let Some(id) = self.newcomers.overdue(now) {
            self.give_up(now, id, Ending::Timeout, b"the handshake took too long");
        }
        while let Some(id) = self.newcomers.superfluous() {
            if let Some(connection) = self.connections.get_mut(&id) {
                self.endpoint.cut_short(&mut connection.core);
                self.list(id);
            }
        }
    }

    /// Everything that happened since the last call.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        self.events.take(into);
    }

    // ---------------------------------------------------------------- connections

    /// A connection, for what happens at `now`; `None` if the engine has forgotten it.
    #[inline]
    pub fn connection(&mut self, now: Instant, id: u64) -> Option<ConnectionMut<'_>> {
        let connection = self.connections.get_mut(&id)?;
        Some(ConnectionMut::new(connection, now, &mut self.events.list, &mut self.listed, &mut self.scratch))
    }

    /// What limits per address count as the address of a server's client: where the connection began. `None` for other
    /// connections, and those that the engine has forgotten.
    #[must_use]
    pub fn address_prefix(&self, id: u64) -> Option<Prefix> {
        self.connections.get(&id)?.arrival.prefix
    }

    /// Begin a connection.
    ///
    /// # Errors
    /// For a server name, an address or a TLS configuration that cannot be used.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        server_name: &str,
        tls: &ClientTls,
    ) -> Result<u64, SetupError> {
        let core = self.endpoint.connect(now, self.next_id, remote, server_name, tls)?;
        Ok(self.insert(now, core))
    }

    /// What was sent to `remote` cannot be delivered, says the system or (`is_remote`) the network. Reports
    /// [`Event::Unreachable`] for connections in their handshake that have received nothing from there yet. An
    /// established one goes on: what fails now may work again. Returns whether there was one.
    pub fn note_unreachable(&mut self, remote: SocketAddr, errno: i32, is_remote: bool) -> bool {
        let mut is_ours = false;
        for connection in self.connections.values() {
            let at = connection.core.remote_address();
            if (at.ip(), at.port()) == (remote.ip(), remote.port())
                && connection.core.is_client()
                && !connection.is_connected
                && !connection.is_closed
                && connection.core.datagrams_received() == 0
            {
                is_ours = true;
                self.events.list.push(Event::Unreachable { connection: connection.id, errno, is_remote });
            }
        }
        self.events.bound();
        is_ours
    }

    /// Whether this side accepts connections.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// Forget all connections at once, without a word to anybody: what they are made of cannot be relied on any more.
    pub fn abandon(&mut self) {
        self.totals = self.totals();
        let connections = std::mem::take(&mut self.connections);
        self.endpoint.clear();
        self.newcomers.clear();
        self.listed.clear();
        self.timers.clear();
        self.answers.clear();
        drop(connections);
    }

    /// Tell a server which clients may begin a connection. Without that, only [`Options::max_connections`] counts, and
    /// clients get no tokens with which they need not show their address when they come again.
    pub fn limit_newcomers(&mut self, limits: NewcomerLimits) {
        self.endpoint.give_tokens();
        self.newcomers.set_limits(limits);
    }

    /// What became of clients that wanted a connection.
    #[must_use]
    pub fn newcomers(&self) -> NewcomerFigures {
        self.newcomers.figures()
    }

    /// Packets that came here although their connection ID is that of another server with the same address.
    #[must_use]
    pub fn packets_astray(&self) -> u64 {
        self.astray
    }

    /// How all connections so far have ended, and what they have moved. Looks at all that there are.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        for connection in self.connections.values() {
            totals += connection.totals();
        }
        totals
    }

    /// The budget of this engine's connections, if there is one.
    #[must_use]
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        self.options.memory.as_ref()
    }

    /// Charge connections that come from now on to the budget of another engine, where both have one.
    pub fn share_memory(&mut self, memory: &Arc<Memory>) {
        if let Some(own) = &mut self.options.memory {
            own.clone_from(memory);
        }
    }

    /// What the connections of this engine take.
    #[must_use]
    pub fn holding(&self) -> Holding {
        self.connections.values().fold(Holding::default(), |sum, connection| {
            let Holding { held, promised } = connection.holding();
            Holding { held: sum.held + held, promised: sum.promised + promised }
        })
    }

    /// The connection that holds most, and how much that is. `None`: none is open.
    #[must_use]
    pub fn largest_holder(&self) -> Option<(u64, u64)> {
        let mut largest = None;
        let mut most = 0;
        for connection in self.connections.values().filter(|connection| !connection.is_closed) {
            // None holds more than it is charged for, so most need no closer look.
            if connection.charged() > most {
                let held = connection.holding().held;
                if held > most {
                    most = held;
                    largest = Some((connection.id, held));
                }
            }
        }
        largest
    }

    /// Refuse new connections from now on.
    pub fn refuse_new(&mut self) {
        self.is_refusing = true;
    }

    /// Accept further connections with another TLS configuration; those that there are go on.
    ///
    /// # Errors
    /// For one that the QUIC core refuses; the old one stays.
    pub fn set_server_tls(&mut self, tls: &ServerTls) -> Result<(), SetupError> {
        self.endpoint.set_server_tls(tls)
    }

    /// Connections not fully gone.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.values().filter(|connection| !connection.core.is_drained()).count()
    }
}

#[cfg(test)]
mod tests;
