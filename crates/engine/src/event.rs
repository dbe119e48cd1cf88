//! What the engine reports. Events come in batches and in the order in which things happened.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer's CONNECTION_CLOSE of type 0x1d: its application closed.
    Application,
    /// The peer's CONNECTION_CLOSE of type 0x1c: its QUIC stack closed.
    Transport,
    /// We found a violation of QUIC by the peer.
    Protocol,
    /// A TLS alert of either side.
    Tls,
    /// The idle timeout passed.
    Idle,
    /// The peer has forgotten the connection.
    Reset,
    /// We closed.
    Local,
    /// No common QUIC version.
    Version,
    /// The server refused the connection (CONNECTION_REFUSED).
    Refused,
}

/// What is known of a connection, for reports: at any time, and once more when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The application protocol that TLS agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Name of the cipher suite that TLS agreed on.
    pub cipher: Option<&'static str>,
    /// Name of the group of the key exchange that TLS agreed on.
    pub key_exchange: Option<&'static str>,
    /// SNI name the client sent (server only).
    pub server_name: Option<String>,
    /// The chain that a server shows, in DER, leaf first (server only).
    pub own_chain: Option<Arc<[Vec<u8>]>>,
    /// The peer's transport parameters in the order in which they came: (id, value).
    pub parameters: Option<Vec<(u64, Vec<u8>)>>,
    /// The peer's chain in DER, leaf first; also one that was refused.
    pub certificates: Vec<Vec<u8>>,
    /// Our verifier refused that chain.
    pub is_refused: bool,
    /// The end came in a CONNECTION_CLOSE of the peer.
    pub is_closed_by_peer: bool,
    /// Largest QUIC DATAGRAM payload, prefix included; `None` where the peer takes none.
    pub max_datagram: Option<usize>,
    /// UDP payload size in use.
    pub mtu: u16,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
}

/// Figures of a connection.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct ConnectionStats {
    pub rtt: Duration,
    pub min_rtt: Duration,
    pub congestion_window: u64,
    pub congestion_events: u64,
    pub mtu: u16,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub packets_received: u64,
    /// ACK frames of the peer's, from packets that were decrypted.
    pub acks_received: u64,
    pub packets_lost: u64,
    pub bytes_lost: u64,
    pub send_calls: u64,
}

/// One thing that happened. `connection`, `stream` and `session` are ids, never reused within an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// A client's first packet was accepted (server only). While many handshakes are under way it comes with
    /// [`Event::Connected`], and [`Event::Ready`] does not come: most will not be completed.
    Incoming { connection: u64 },
    /// The client's first flight was read: streams may be opened before the handshake is complete (server only).
    Ready { connection: u64 },
    /// The handshake is complete.
    Connected { connection: u64 },
    /// The connection is over; nothing follows for it.
    Closed { connection: u64, cause: CloseCause, code: u64, reason: String, facts: Box<ConnectionFacts> },
    /// The system (`is_remote`: the network) cannot deliver to the peer of a connection whose handshake has just begun:
    /// nothing came from there yet. `errno` says why.
    Unreachable { connection: u64, errno: i32, is_remote: bool },
    /// Packets of a socket could not be sent since the last event of that `errno`, `destination` one of the last.
    SendFailed { destination: SocketAddr, errno: i32, count: u64 },
    /// The socket had errors for its owner; they were read. Some loops stop to watch a socket that has any.
    ErrorsRead,
    /// The connections of a server hold more than its budget has. Comes once until events are taken.
    MemoryShort,
    /// A WebTransport data stream of the peer, its header read.
    Stream { connection: u64, stream: u64, session: u64 },
    /// Any other stream of the peer, nothing of it consumed.
    RawStream { connection: u64, stream: u64 },
    /// A raw stream has something to read. Comes once until a read finds nothing.
    RawReadable { connection: u64, stream: u64 },
    /// STOP_SENDING on a raw stream.
    RawStopped { connection: u64, stream: u64, code: u64 },
    /// A waiter for data, end or error of a stream can go on.
    Readable { connection: u64, stream: u64 },
    /// A waiter for queue space can go on.
    Writable { connection: u64, stream: u64 },
    /// A waiter for acknowledgement can go on.
    Acked { connection: u64, stream: u64 },
    /// A waiter for the peer's STOP_SENDING can go on: it came, or never will.
    Stopped { connection: u64, stream: u64 },
    /// Opening a stream may succeed now.
    StreamsAvailable { connection: u64, bidirectional: bool },
    /// A waiter for a datagram of the session can go on.
    DatagramReadable { connection: u64, session: u64 },
    /// All finished streams of the session are acknowledged.
    SessionAcked { connection: u64, session: u64 },
    /// A datagram without a valid quarter stream id.
    DatagramError { connection: u64 },
    /// First datagram for a session that is not registered.
    DatagramId { connection: u64, session: u64 },
    /// Time to announce WT_MAX_DATA.
    CreditDue { connection: u64, session: u64, limit: u64 },
    /// Time to announce WT_MAX_STREAMS.
    StreamsDue { connection: u64, session: u64, bidirectional: bool, limit: u64 },
    /// The peer broke a limit of the session.
    CreditExceeded { connection: u64, session: u64 },
    /// The peer has sent all the bytes that it may send on the session, and more.
    BytesExceeded { connection: u64, session: u64 },
    /// Our data waits for the peer's WT_MAX_DATA.
    CreditBlocked { connection: u64, session: u64, limit: u64 },
    /// A stream of ours waits for the peer's WT_MAX_STREAMS.
    StreamsBlocked { connection: u64, session: u64, bidirectional: bool, limit: u64 },
}

/// Events that may wait before they are merged, apart from twice as many as the last merge left. So merging costs each
/// event a constant time.
const MERGED_ABOVE: usize = 1024;

/// Events that nobody has taken yet, in order. While a loop is late, or never comes back, a peer goes on sending.
///
/// What it can cause again and again is merged: of announcements for one session and of datagrams for sessions that
/// nobody knows, one event is left for each kind. What is left then is bounded elsewhere: one of each kind for a stream
/// or a waiter, and the peer has no more streams than its credit allows; four for a connection, and new ones are
/// refused while as many as may be open are still in this list.
#[derive(Debug, Default)]
pub(crate) struct Untaken {
    pub(crate) list: Vec<Event>,
    /// Connections of peers among them.
    pub(crate) incoming: usize,
    /// Length of the list after the last merge.
    merged_to: usize,
    /// [`Event::MemoryShort`] is among them.
    says_short: bool,
}

impl Untaken {
    /// Move all events into `into`.
    pub(crate) fn take(&mut self, into: &mut Vec<Event>) {
        into.append(&mut self.list);
        self.incoming = 0;
        self.merged_to = 0;
        self.says_short = false;
    }

    /// A peer has opened a connection.
    pub(crate) fn push_incoming(&mut self, connection: u64) {
        self.incoming += 1;
        self.list.push(Event::Incoming { connection });
    }

    /// Memory is short.
    pub(crate) fn push_short(&mut self) {
        if !std::mem::replace(&mut self.says_short, true) {
            self.list.push(Event::MemoryShort);
        }
    }

    /// Merge what can be, once there is much of it.
    #[inline]
    pub(crate) fn bound(&mut self) {
        if self.list.len() > MERGED_ABOVE + 2 * self.merged_to {
            merge(&mut self.list);
            self.merged_to = self.list.len();
        }
    }

    /// Connections of peers whose event was not taken yet.
    pub(crate) fn incoming(&self) -> usize {
        self.incoming
    }
}

/// Two events of the same likeness say no more than the later one: kind, connection, session or stream, direction.
type Likeness = (u8, u64, u64, bool);

/// Leave one of those events that say the same, in the place of the first of them.
fn merge(events: &mut Vec<Event>) {
    let mut first: HashMap<Likeness, usize> = HashMap::new();
    let mut kept: Vec<Event> = Vec::new();
    for event in events.drain(..) {
        let Some(likeness) = event.likeness() else {
            kept.push(event);
            continue;
        };
        match first.entry(likeness) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(event);
            }
            Entry::Occupied(place) => kept[*place.get()].outdo(event),
        }
    }
    *events = kept;
}

impl Event {
    /// `None`: it cannot stand for another one.
    fn likeness(&self) -> Option<Likeness> {
        Some(match *self {
            Self::DatagramError { connection } => (0, connection, 0, false),
            Self::DatagramId { connection, .. } => (1, connection, 0, false),
            Self::CreditDue { connection, session, .. } => (2, connection, session, false),
            Self::StreamsDue { connection, session, bidirectional, .. } => (3, connection, session, bidirectional),
            Self::CreditExceeded { connection, session } => (4, connection, session, false),
            Self::CreditBlocked { connection, session, .. } => (5, connection, session, false),
            Self::StreamsBlocked { connection, session, bidirectional, .. } => (6, connection, session, bidirectional),
            Self::Readable { connection, stream } => (7, connection, stream, false),
            Self::Writable { connection, stream } => (8, connection, stream, false),
            Self::Acked { connection, stream } => (9, connection, stream, false),
            Self::StreamsAvailable { connection, bidirectional } => (10, connection, 0, bidirectional),
            Self::DatagramReadable { connection, session } => (11, connection, session, false),
            Self::SessionAcked { connection, session } => (12, connection, session, false),
            Self::Unreachable { connection, is_remote, .. } => (13, connection, 0, is_remote),
            Self::Stopped { connection, stream } => (14, connection, stream, false),
            Self::BytesExceeded { connection, session } => (15, connection, session, false),
            Self::SendFailed { .. }
            | Self::ErrorsRead
            | Self::MemoryShort
            | Self::Incoming { .. }
            | Self::Ready { .. }
            | Self::Connected { .. }
            | Self::Closed { .. }
            | Self::Stream { .. }
            | Self::RawStream { .. }
            | Self::RawReadable { .. }
            | Self::RawStopped { .. } => return None,
        })
    }

    /// Take over what a later event of the same likeness says. Limits only grow. Of session IDs the largest is kept:
    /// one that breaks the rules is above all that were requested.
    fn outdo(&mut self, later: Self) {
        match (self, later) {
            (
                Self::CreditDue { limit, .. }
                | Self::StreamsDue { limit, .. }
                | Self::CreditBlocked { limit, .. }
                | Self::StreamsBlocked { limit, .. },
                Self::CreditDue { limit: more, .. }
                | Self::StreamsDue { limit: more, .. }
                | Self::CreditBlocked { limit: more, .. }
                | Self::StreamsBlocked { limit: more, .. },
            ) => *limit = more.max(*limit),
            (Self::DatagramId { session, .. }, Self::DatagramId { session: more, .. }) => *session = more.max(*session),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that a peer can cause again and again, about connection 1.
    fn repeated(session: u64, limit: u64) -> Vec<Event> {
        let connection = 1;
        let mut events = vec![
            Event::DatagramError { connection },
            Event::DatagramId { connection, session: limit },
            Event::CreditDue { connection, session, limit },
            Event::CreditExceeded { connection, session },
            Event::BytesExceeded { connection, session },
            Event::CreditBlocked { connection, session, limit },
            Event::Readable { connection, stream: session },
            Event::Writable { connection, stream: session },
            Event::Acked { connection, stream: session },
            Event::Unreachable { connection, errno: 111, is_remote: true },
            Event::DatagramReadable { connection, session },
            Event::SessionAcked { connection, session },
        ];
        for bidirectional in [true, false] {
            events.push(Event::StreamsDue { connection, session, bidirectional, limit });
            events.push(Event::StreamsBlocked { connection, session, bidirectional, limit });
            events.push(Event::StreamsAvailable { connection, bidirectional });
        }
        events
    }

    #[test]
    fn what_a_peer_can_repeat_is_kept_once_with_the_last_limit() {
        let mut untaken = Untaken::default();
        for limit in 1..=10_000 {
            untaken.list.append(&mut repeated(4, limit));
            untaken.bound();
            assert!(untaken.list.len() <= MERGED_ABOVE + 3 * repeated(4, 1).len());
        }
        merge(&mut untaken.list);
        assert_eq!(untaken.list, repeated(4, 10_000));
    }

    #[test]
    fn events_of_different_sessions_and_of_streams_keep_their_order() {
        let opened = |stream| Event::Stream { connection: 1, stream, session: 4 };
        let stopped = |stream| Event::RawStopped { connection: 1, stream, code: 0 };
        let due = |session, limit| Event::CreditDue { connection: 1, session, limit };
        let mut events =
            vec![opened(0), due(4, 10), opened(8), due(8, 10), stopped(0), due(4, 20), stopped(8), opened(4)];
        merge(&mut events);
        assert_eq!(events, [opened(0), due(4, 20), opened(8), due(8, 10), stopped(0), stopped(8), opened(4)]);
    }
}
