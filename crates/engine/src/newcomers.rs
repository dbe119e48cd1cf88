//! Newcomers are clients that want a connection: which may begin one, which have to validate their address first (Retry, RFC
//! 9000, section 8.1.2), and which are refused.
//!
//! This module owns the count of a server's connections, by how far they are and by address. It only applies limits that it
//! is given, and it does so before anything of a handshake is made: a newcomer that is refused takes no memory.
//!
//! Three rules keep a flood from shutting others out:
//!
//! - Half-open connections are counted apart. Once too many of them began at addresses that are not validated, every
//!   newcomer has to validate its address first. Packets with forged addresses get no further.
//! - If there is no room all the same, a newcomer with a validated address replaces the oldest half-open connection that
//!   began without one, or else the oldest from an address that has more than its share. It is refused if its own address
//!   has its share already.
//! - The last half of each limit per address is for validated addresses. So nobody can use up the limit of another's
//!   address by forging it.
//!
//! Connections that are over count nowhere, however long they are remembered for packets that come late.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::rate::Rate;

/// Addresses without a connection whose rate is remembered. Beyond that they are forgotten; nobody is refused for that.
const RATES_KEPT: usize = 4096;
/// Half-open connections that are over and wait for packets that come late (RFC 9000, section 10.2). Beyond that the oldest is
/// forgotten at once: each has the memory of a handshake, and a flood would hold that for as long as the wait takes.
const ENDED_KEPT: usize = 256;
/// A hello that takes two packets is answered once: nothing is remembered of who was sent a Retry or refused but this, for so
/// long and of so many. The client would count on the first answer, and whoever reads the figures on newcomers, not packets.
/// Clients say their hello again later than that, and are answered again.
const HELLO_SPREAD: Duration = Duration::from_millis(50);
const ANSWERS_KEPT: usize = 64;
/// The time for which [`NewcomerLimits::handshakes_per_address`] counts.
const PERIOD: Duration = Duration::from_secs(1);

/// The figures that decide. Every value comes from Python, where its default is documented.
#[derive(Debug, Clone, Copy)]
pub struct NewcomerLimits {
    /// Connections whose handshake is not complete.
    pub half_open: usize,
    /// Of these, those that began at an address that was not validated. From then on newcomers have to validate theirs.
    pub unvalidated: usize,
    /// With so many connections, half-open ones included, newcomers have to validate their address.
    pub retry_from: usize,
    /// Connections of one address, half-open ones included; `None` for any number.
    pub connections_per_address: Option<usize>,
    /// Handshakes that one address may begin in a second, also all at once; `None` for any number.
    pub handshakes_per_address: Option<u32>,
    /// How long a handshake may take, from the client's first packet.
    pub handshake_timeout: Duration,
}

impl Default for NewcomerLimits {
    /// None, apart from [`Options::max_connections`](crate::Options::max_connections).
    fn default() -> Self {
        Self {
            half_open: usize::MAX,
            unvalidated: usize::MAX,
            retry_from: usize::MAX,
            connections_per_address: None,
            handshakes_per_address: None,
            handshake_timeout: Duration::MAX,
        }
    }
}

/// What became of newcomers since the engine was made, and how many connections there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewcomerFigures {
    /// Connections with a complete handshake that are not over.
    pub open: usize,
    /// Connections whose handshake is not complete.
    pub half_open: usize,
    /// Addresses of which something is remembered.
    pub addresses: usize,
    /// Handshakes begun.
    pub accepted: u64,
    /// Of these, those of clients whose address was validated: by a Retry, or by a token of an earlier connection.
    pub validated: u64,
    /// Newcomers that were sent a Retry.
    pub retried: u64,
    /// Newcomers refused because there were as many connections as there may be.
    pub refused_capacity: u64,
    /// Newcomers refused because their address had as many connections as it may have.
    pub refused_address: u64,
    /// Newcomers refused because their address began handshakes too fast.
    pub refused_rate: u64,
    /// Newcomers refused because the memory budget is used up.
    pub refused_memory: u64,
    /// Newcomers refused because the server is closing.
    pub refused_closing: u64,
    /// Half-open connections that were ended to make room for a newcomer.
    pub displaced: u64,
    /// Handshakes that took too long.
    pub handshake_timeouts: u64,
}

/// What counts as one address: an IPv4 address, or the first 64 bits of an IPv6 address, because a host mostly has all
/// addresses behind them to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// An IPv4 address, also one that came in the form of an IPv6 one.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address.
    V6(u64),
}

impl Prefix {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6((u128::from(ip) >> 64) as u64),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(half) => write!(f, "{}/64", Ipv6Addr::from(u128::from(*half) << 64)),
        }
    }
}

/// A client that wants a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer {
    pub(crate) prefix: Prefix,
    /// Its address is validated.
    pub(crate) is_validated: bool,
}

/// What is to be done about a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Accept it, and end this half-open connection.
    Displace(u64),
    Retry,
    Refuse,
}

/// How a connection is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not at all: it is over, or of an engine that is a client.
    Uncounted,
    HalfOpen(Prefix),
    Open(Prefix),
}

impl Standing {
    /// Whether the connection has changed since it was counted.
    #[inline]
    pub(crate) fn is_outdated(self, is_connected: bool, is_closed: bool) -> bool {
        match self {
            Self::Uncounted => false,
            Self::HalfOpen(_) => is_connected || is_closed,
            Self::Open(_) => is_closed,
        }
    }
}

/// What an engine keeps with each connection about how it came. `Default` is that of a client's own connection.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) standing: Standing,
    /// The client's address when the connection began, which counts as its address wherever it moves. `None` for a client's
    /// own connection.
    pub(crate) prefix: Option<Prefix>,
    /// The layers above know of the connection: [`Event::Incoming`](crate::Event::Incoming) was reported, or they made it.
    /// No other event of it is reported before that.
    pub(crate) is_told: bool,
    /// `Incoming` was reported at the end of the handshake, and the engine has not yet added it to the events of this kind
    /// that nobody has taken.
    pub(crate) is_told_late: bool,
}

impl Default for Arrival {
    fn default() -> Self {
        Self { standing: Standing::Uncounted, prefix: None, is_told: true, is_told_late: false }
    }
}

impl Arrival {
    /// The handshake is complete. Whether `Incoming` has to be reported now.
    pub(crate) fn tell(&mut self) -> bool {
        self.is_told_late = !std::mem::replace(&mut self.is_told, true);
        self.is_told_late
    }
}

#[derive(Debug)]
struct HalfOpen {
    /// When the handshake has taken too long; `None` if that is beyond what the clock can express.
    due: Option<Instant>,
    newcomer: Newcomer,
}

/// What is counted of one address.
#[derive(Debug, Default)]
struct Address {
    /// Half-open ones included.
    connections: usize,
    half_open: usize,
    /// The handshakes that began here; each owes its share of [`PERIOD`].
    handshakes: Rate,
}

#[derive(Debug)]
pub(crate) struct Newcomers {
    /// What a server's owner allows, given once; before that there are no limits but `max_connections`.
    limits: NewcomerLimits,
    /// Connections at once, half-open ones included.
    max_connections: usize,
    /// By the engine's ID, which is the order in which they began. Bounded by `limits.half_open` and `max_connections`.
    half_open: BTreeMap<u64, HalfOpen>,
    /// How many of these began at addresses that were not validated.
    unvalidated: usize,
    /// How many addresses have any of them.
    half_open_addresses: usize,
    /// Those with connections, and others of which a rate is remembered. Attackers choose the keys, so the hash must not be
    /// predictable. Bounded by the connections and [`RATES_KEPT`].
    addresses: HashMap<Prefix, Address>,
    /// Half-open connections that are over, the oldest first; some are forgotten already. Bounded by [`ENDED_KEPT`].
    ended: VecDeque<u64>,
    /// When a hello was answered with a Retry or a refusal, and which. Bounded by [`ANSWERS_KEPT`].
    answers: VecDeque<(Instant, u64)>,
    /// Counts since the engine was made, and the number of open connections. What `half_open` and `addresses` know is filled
    /// in when somebody asks.
    figures: NewcomerFigures,
}

impl Newcomers {
    pub(crate) fn new(limits: NewcomerLimits, max_connections: usize) -> Self {
        Self {
            limits,
            max_connections,
            half_open: BTreeMap::new(),
            unvalidated: 0,
            half_open_addresses: 0,
            addresses: HashMap::new(),
            ended: VecDeque::new(),
            answers: VecDeque::new(),
            figures: NewcomerFigures::default(),
        }
    }

    pub(crate) fn set_limits(&mut self, limits: NewcomerLimits) {
        self.limits = limits;
    }

    pub(crate) fn figures(&self) -> NewcomerFigures {
        NewcomerFigures { half_open: self.half_open.len(), addresses: self.addresses.len(), ..self.figures }
    }

    /// Whether a hello was answered just now: this is its other packet, or a copy.
    pub(crate) fn is_answered(&mut self, now: Instant, hello: u64) -> bool {
        while self.answers.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > HELLO_SPREAD) {
            self.answers.pop_front();
        }
        self.answers.iter().any(|(_, answered)| *answered == hello)
    }

    /// A hello is answered with a Retry or a refusal.
    pub(crate) fn note_answer(&mut self, now: Instant, hello: u64) {
        if self.answers.len() == ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back((now, hello));
    }

    /// Decide about a newcomer. `kept` is how many connections the engine remembers, those that are over included; `unseen`
    /// is how many events about new connections nobody has taken yet. Both are bounded here, because each takes memory.
    /// `has_room`: so says the memory budget.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        newcomer: Newcomer,
        kept: usize,
        unseen: usize,
        has_room: bool,
    ) -> Verdict {
        let most = self.max_connections;
        let most_kept = most.saturating_mul(2).saturating_add(self.limits.half_open);
        let is_validated = newcomer.is_validated;
        if self.figures.open >= most || unseen >= most || kept >= most_kept {
            self.figures.refused_capacity += 1;
            return Verdict::Refuse;
        }
        if !has_room && self.half_open.is_empty() {
            self.figures.refused_memory += 1;
            return Verdict::Refuse;
        }
        let address = self.addresses.get(&newcomer.prefix);
        if let Some(limit) = self.limits.connections_per_address {
            let connections = address.map_or(0, |address| address.connections);
            if connections >= if is_validated { limit } else { limit / 2 } {
                return self.turn_away(is_validated, |figures| &mut figures.refused_address);
            }
        }
        if let Some(rate) = self.limits.handshakes_per_address {
            let owed = address.map_or(Duration::ZERO, |address| address.handshakes.owed(now));
            if owed + PERIOD / rate > if is_validated { PERIOD } else { PERIOD / 2 } {
                return self.turn_away(is_validated, |figures| &mut figures.refused_rate);
            }
        }
        let present = self.figures.open + self.half_open.len();
        let is_full = !has_room || self.half_open.len() >= self.limits.half_open || present >= most;
        if !is_validated
            && (is_full || self.unvalidated >= self.limits.unvalidated || present >= self.limits.retry_from)
        {
            self.figures.retried += 1;
            return Verdict::Retry;
        }
        if !is_full {
            return Verdict::Accept;
        }
        let own = address.map_or(0, |address| address.half_open);
        if own > 0 && own * self.half_open_addresses >= self.half_open.len() {
            self.figures.refused_address += 1;
            return Verdict::Refuse;
        }
        match self.half_open.iter().find(|(_, one)| self.gives_way(one.newcomer, own)) {
            Some((id, _)) => Verdict::Displace(*id),
            None => {
                let figures = &mut self.figures;
                *if has_room { &mut figures.refused_capacity } else { &mut figures.refused_memory } += 1;
                Verdict::Refuse
            }
        }
    }

    /// Whether a half-open connection makes room for a newcomer with a validated address, which has `own` others there. It
    /// does if its address was not validated, or if its address has more than its share, and keeps as many as the newcomer's
    /// address will have.
    fn gives_way(&self, one: Newcomer, own: usize) -> bool {
        if !one.is_validated {
            return true;
        }
        let half_open = self.addresses.get(&one.prefix).map_or(0, |address| address.half_open);
        let addresses = self.half_open_addresses + usize::from(own == 0);
        half_open > own + 1 && half_open * addresses > self.half_open.len()
    }

    /// A limit of an address is reached. If the address is validated, the newcomer is refused, and `cause` says where that is
    /// counted. If not, it may validate it: the other half of the limit may still be free.
    fn turn_away(&mut self, is_validated: bool, cause: impl FnOnce(&mut NewcomerFigures) -> &mut u64) -> Verdict {
        if is_validated {
            *cause(&mut self.figures) += 1;
            return Verdict::Refuse;
        }
        self.figures.retried += 1;
        Verdict::Retry
    }

    /// Whether so many handshakes are under way, most of them probably a flood's, that the layers above should hear of a
    /// connection only when its handshake is complete.
    pub(crate) fn is_pressed(&self) -> bool {
        self.half_open.len() >= self.limits.half_open / 4
    }

    /// Count a connection that has begun.
    pub(crate) fn begin(&mut self, now: Instant, id: u64, newcomer: Newcomer) -> Standing {
        self.sweep(now);
        self.figures.accepted += 1;
        self.figures.validated += u64::from(newcomer.is_validated);
        self.unvalidated += usize::from(!newcomer.is_validated);
        let due = now.checked_add(self.limits.handshake_timeout);
        self.half_open.insert(id, HalfOpen { due, newcomer });
        let address = self.addresses.entry(newcomer.prefix).or_default();
        address.connections += 1;
        address.half_open += 1;
        self.half_open_addresses += usize::from(address.half_open == 1);
        if let Some(rate) = self.limits.handshakes_per_address {
            address.handshakes.count(now, PERIOD / rate);
        }
        Standing::HalfOpen(newcomer.prefix)
    }

    /// Count a connection anew, because its handshake is complete, or it is over (`is_closed`).
    pub(crate) fn note(&mut self, id: u64, standing: Standing, is_closed: bool) -> Standing {
        match standing {
            Standing::Uncounted => return standing,
            Standing::HalfOpen(prefix) => {
                self.end_half_open(id, prefix);
                if !is_closed {
                    self.figures.open += 1;
                    return Standing::Open(prefix);
                }
                self.ended.push_back(id);
            }
            Standing::Open(_) => self.figures.open -= 1,
        }
        if let Standing::HalfOpen(prefix) | Standing::Open(prefix) = standing
            && let Some(address) = self.addresses.get_mut(&prefix)
        {
            address.connections -= 1;
            if address.connections == 0 && self.limits.handshakes_per_address.is_none() {
                self.addresses.remove(&prefix);
            }
        }
        Standing::Uncounted
    }

    fn end_half_open(&mut self, id: u64, prefix: Prefix) {
        let Some(one) = self.half_open.remove(&id) else { return };
        self.unvalidated -= usize::from(!one.newcomer.is_validated);
        if let Some(address) = self.addresses.get_mut(&prefix) {
            address.half_open -= 1;
            self.half_open_addresses -= usize::from(address.half_open == 0);
        }
    }

    /// Forget rates of addresses without a connection, once there are many: first those that are as if they were new.
    fn sweep(&mut self, now: Instant) {
        let connections = self.figures.open + self.half_open.len();
        if self.addresses.len() < connections + RATES_KEPT {
            return;
        }
        self.addresses.retain(|_, one| one.connections > 0 || !one.handshakes.owed(now).is_zero());
        // Only half as many may stay, or the next newcomers would each have to sweep again.
        if self.addresses.len() > connections + RATES_KEPT / 2 {
            self.addresses.retain(|_, one| one.connections > 0);
        }
    }

    /// Whether [`Newcomers::overdue`] or [`Newcomers::superfluous`] may have anything.
    #[inline]
    pub(crate) fn has_chores(&self) -> bool {
        !self.half_open.is_empty() || self.ended.len() > ENDED_KEPT
    }

    /// When the oldest handshake has taken too long.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.half_open.is_empty() { None } else { self.half_open.first_key_value()?.1.due }
    }

    /// A connection whose handshake has taken too long. The caller ends it and calls [`Newcomers::note`].
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<u64> {
        let (id, one) = self.half_open.first_key_value()?;
        let id = one.due.is_some_and(|due| due <= now).then_some(*id)?;
        self.figures.handshake_timeouts += 1;
        Some(id)
    }

    pub(crate) fn note_displaced(&mut self) {
        self.figures.displaced += 1;
    }

    pub(crate) fn note_closing(&mut self) {
        self.figures.refused_closing += 1;
    }

    /// A half-open connection that is over and is to be forgotten now, because there are too many of them.
    pub(crate) fn superfluous(&mut self) -> Option<u64> {
        if self.ended.len() > ENDED_KEPT { self.ended.pop_front() } else { None }
    }

    /// Forget all connections.
    pub(crate) fn clear(&mut self) {
        *self = Self { figures: self.figures, ..Self::new(self.limits, self.max_connections) };
        self.figures.open = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: NewcomerLimits = NewcomerLimits {
        half_open: 10,
        unvalidated: 4,
        retry_from: 50,
        connections_per_address: None,
        handshakes_per_address: None,
        handshake_timeout: Duration::from_secs(10),
    };

    /// What the engine asks, with all of its connections alive.
    struct Crowd {
        newcomers: Newcomers,
        now: Instant,
        standings: BTreeMap<u64, Standing>,
        next: u64,
        has_room: bool,
    }

    impl Crowd {
        fn new(limits: NewcomerLimits, max_connections: usize) -> Self {
            let newcomers = Newcomers::new(limits, max_connections);
            Self { newcomers, now: Instant::now(), standings: BTreeMap::new(), next: 0, has_room: true }
        }

        fn come(&mut self, prefix: Prefix, is_validated: bool) -> Verdict {
            let newcomer = Newcomer { prefix, is_validated };
            let verdict = self.newcomers.judge(self.now, newcomer, self.standings.len(), 0, self.has_room);
            if let Verdict::Displace(id) = verdict {
                self.end(id);
            }
            if matches!(verdict, Verdict::Accept | Verdict::Displace(_)) {
                self.standings.insert(self.next, self.newcomers.begin(self.now, self.next, newcomer));
                self.next += 1;
            }
            verdict
        }

        fn open(&mut self, id: u64) {
            let standing = self.standings[&id];
            assert!(standing.is_outdated(true, false));
            self.standings.insert(id, self.newcomers.note(id, standing, false));
        }

        fn end(&mut self, id: u64) {
            let standing = self.standings.remove(&id).unwrap();
            assert!(standing.is_outdated(false, true));
            assert_eq!(self.newcomers.note(id, standing, true), Standing::Uncounted);
        }
    }

    fn v4(number: u32) -> Prefix {
        Prefix::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn an_address_is_one_of_ipv4_or_half_of_one_of_ipv6() {
        let prefix = |text: &str| Prefix::of(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(prefix("192.0.2.7"), prefix("::ffff:192.0.2.7"));
        assert_ne!(prefix("192.0.2.7"), prefix("192.0.2.8"));
        assert_eq!(prefix("2001:db8:1:2:3::4"), prefix("2001:db8:1:2::"));
        assert_ne!(prefix("2001:db8:1:2::"), prefix("2001:db8:1:3::"));
        assert_eq!(prefix("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(prefix("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn without_memory_newcomers_take_the_place_of_half_open_ones() {
        let mut crowd = Crowd::new(LIMITS, 100);
        assert_eq!(crowd.come(v4(1), true), Verdict::Accept);
        crowd.open(0);
        crowd.has_room = false;
        assert_eq!((crowd.come(v4(2), false), crowd.come(v4(2), true)), (Verdict::Refuse, Verdict::Refuse));
        crowd.has_room = true;
        assert_eq!(crowd.come(v4(3), false), Verdict::Accept);
        crowd.has_room = false;
        assert_eq!((crowd.come(v4(4), false), crowd.come(v4(4), true)), (Verdict::Retry, Verdict::Displace(1)));
        assert_eq!(crowd.come(v4(5), true), Verdict::Refuse, "the other one showed its address, too");
        let figures = crowd.newcomers.figures();
        assert_eq!((figures.refused_memory, figures.refused_capacity, figures.open), (3, 0, 1));
    }

    #[test]
    fn forged_addresses_leave_room_for_those_that_are_shown() {
        let mut crowd = Crowd::new(LIMITS, 100);
        for number in 0..4 {
            assert_eq!(crowd.come(v4(number), false), Verdict::Accept);
        }
        for number in 4..20_000 {
            assert_eq!(crowd.come(v4(number), false), Verdict::Retry);
        }
        for number in 0..6 {
            assert_eq!(crowd.come(v4(number), true), Verdict::Accept);
        }
        for id in 0..4 {
            assert_eq!(crowd.come(v4(100 + id as u32), true), Verdict::Displace(id), "the oldest that was not shown");
        }
        assert_eq!(crowd.come(v4(200), true), Verdict::Refuse, "all have shown theirs, each has one");
        assert_eq!(crowd.newcomers.figures().half_open, 10);
        assert_eq!(crowd.newcomers.figures().refused_capacity, 1);
    }

    #[test]
    fn an_address_with_more_than_its_share_makes_room() {
        let mut crowd = Crowd::new(LIMITS, 100);
        for _ in 0..10 {
            assert_eq!(crowd.come(v4(1), true), Verdict::Accept, "nobody else wants the room");
        }
        assert_eq!(crowd.come(v4(1), true), Verdict::Refuse);
        for id in 0..5 {
            assert_eq!(crowd.come(v4(2), true), Verdict::Displace(id));
        }
        assert_eq!(crowd.come(v4(2), true), Verdict::Refuse, "it has its share");
        assert_eq!(crowd.come(v4(1), true), Verdict::Refuse, "and so has the other");
        assert_eq!(crowd.come(v4(3), true), Verdict::Displace(5), "there are three now");
        assert_eq!(crowd.newcomers.figures().refused_address, 3);
    }

    #[test]
    fn connections_that_are_over_count_nowhere() {
        let limits = NewcomerLimits { connections_per_address: Some(4), unvalidated: usize::MAX, ..LIMITS };
        let mut crowd = Crowd::new(limits, 4);
        for round in 0..1000 {
            let first = 4 * round;
            for id in first..first + 4 {
                assert_eq!(crowd.come(v4(1), true), Verdict::Accept);
                crowd.open(id);
            }
            assert_eq!(crowd.come(v4(1), true), Verdict::Refuse);
            assert_eq!(crowd.come(v4(2), true), Verdict::Refuse);
            for id in first..first + 4 {
                crowd.end(id);
            }
        }
        let figures = crowd.newcomers.figures();
        assert_eq!((figures.open, figures.half_open, figures.addresses), (0, 0, 0));
        assert_eq!((figures.accepted, figures.refused_capacity), (4000, 2000));
    }

    #[test]
    fn half_of_an_addresss_limits_is_for_those_that_show_it() {
        let limits = NewcomerLimits { connections_per_address: Some(8), unvalidated: usize::MAX, ..LIMITS };
        let mut crowd = Crowd::new(limits, 100);
        for _ in 0..4 {
            assert_eq!(crowd.come(v4(1), false), Verdict::Accept);
        }
        assert_eq!(crowd.come(v4(1), false), Verdict::Retry);
        for _ in 0..4 {
            assert_eq!(crowd.come(v4(1), true), Verdict::Accept);
        }
        assert_eq!(crowd.come(v4(1), true), Verdict::Refuse);
        assert_eq!(crowd.come(v4(2), false), Verdict::Accept);
        assert_eq!(crowd.newcomers.figures().refused_address, 1);
    }

    #[test]
    fn an_address_may_begin_so_many_handshakes_in_a_second() {
        let limits = NewcomerLimits { handshakes_per_address: Some(100), half_open: 10_000, ..LIMITS };
        let mut crowd = Crowd::new(limits, 10_000);
        for _ in 0..100 {
            assert_eq!(crowd.come(v4(1), true), Verdict::Accept);
        }
        assert_eq!(crowd.come(v4(1), true), Verdict::Refuse);
        assert_eq!(crowd.come(v4(1), false), Verdict::Retry, "it may not even be there");
        assert_eq!(crowd.come(v4(2), true), Verdict::Accept);
        crowd.now += Duration::from_millis(100);
        for _ in 0..10 {
            assert_eq!(crowd.come(v4(1), true), Verdict::Accept);
        }
        assert_eq!(crowd.come(v4(1), true), Verdict::Refuse);
        assert_eq!(crowd.newcomers.figures().refused_rate, 2);
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let limits = NewcomerLimits { handshakes_per_address: Some(1), half_open: 10_000, ..LIMITS };
        let mut crowd = Crowd::new(limits, 100);
        for number in 0..100_000 {
            assert_eq!(crowd.come(v4(number), true), Verdict::Accept);
            crowd.end(u64::from(number));
            assert!(crowd.newcomers.figures().addresses <= RATES_KEPT + 1);
            assert!(crowd.newcomers.superfluous().is_none() || number >= 256);
        }
    }

    #[test]
    fn a_hello_is_answered_once_and_again_when_it_is_said_again() {
        let mut crowd = Crowd::new(LIMITS, 100);
        assert!(!crowd.newcomers.is_answered(crowd.now, 1));
        crowd.newcomers.note_answer(crowd.now, 1);
        crowd.now += HELLO_SPREAD;
        assert!(crowd.newcomers.is_answered(crowd.now, 1) && !crowd.newcomers.is_answered(crowd.now, 2));
        crowd.now += Duration::from_millis(1);
        assert!(!crowd.newcomers.is_answered(crowd.now, 1));
        for hello in 0..100_000 {
            crowd.newcomers.note_answer(crowd.now, hello);
            assert!(crowd.newcomers.answers.len() <= ANSWERS_KEPT);
        }
        assert!(crowd.newcomers.is_answered(crowd.now, 99_999));
    }

    #[test]
    fn handshakes_that_take_too_long_are_over() {
        let mut crowd = Crowd::new(LIMITS, 100);
        crowd.come(v4(1), true);
        crowd.now += Duration::from_secs(1);
        crowd.come(v4(2), true);
        crowd.come(v4(3), true);
        crowd.open(1);
        assert_eq!(crowd.newcomers.next_due(), Some(crowd.now + Duration::from_secs(9)));
        crowd.now += Duration::from_secs(9);
        assert_eq!(crowd.newcomers.overdue(crowd.now), Some(0));
        crowd.end(0);
        assert_eq!(crowd.newcomers.overdue(crowd.now), None);
        crowd.now += Duration::from_secs(1);
        assert_eq!(crowd.newcomers.overdue(crowd.now), Some(2), "the handshake of the other one is complete");
        assert_eq!(crowd.newcomers.figures().handshake_timeouts, 2);
    }
}
