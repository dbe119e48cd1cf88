//! What the peer may use of a connection as a whole: when it is told of more.

use std::time::Instant;

use super::{Connection, ConnectionMut};
use crate::{
    event::Event,
    stream::{ReceiveState, direction, direction_index, is_bidirectional},
};

impl ConnectionMut<'_> {
    /// Announce the credit that came back since a session ended.
    pub(super) fn announce_credit(&mut self) {
        let Connection { core, streams, sessions, peer_credit, .. } = &mut *self.connection;
        // What the core keeps beyond the streams of other sessions is stopped and has not come to its end.
        peer_credit.announce(core, || {
            let mut others = [0; 2];
            for (stream_id, stream) in streams.iter().filter(|(_, stream)| stream.life.is_from_peer) {
                let stays = match stream.life.session_id {
                    Some(session_id) => sessions.end_code(session_id).is_none(),
                    // Of a stream whose header has not come nobody knows whether it is one of them. A request is over with
                    // its session, though its peer may end it later; other raw streams last as long as the connection.
                    None if is_bidirectional(*stream_id) => sessions.is_registered(*stream_id),
                    None => stream.receiving.is_raw() && stream.receiving.state == ReceiveState::Open,
                };
                others[direction(*stream_id)] += u64::from(stays);
            }
            others
        });
    }

    /// How many streams the peer may have open at once from now on; what is open already stays.
    pub fn set_concurrent_streams(&mut self, bidirectional: bool, count: u64) {
        let connection = &mut *self.connection;
        if !connection.is_closed {
            // Sessions that stay take a stream each, and the core would announce the room for another only after some.
            connection.peer_credit.allow(&mut connection.core, direction_index(bidirectional), count);
        }
    }

    /// After packets were sent: announce credit of the connection that the core would not.
    #[inline]
    pub(crate) fn relieve_peer(&mut self) {
        let Connection { core, peer_credit, is_closed, .. } = &mut *self.connection;
        if !*is_closed {
            peer_credit.announce_scarce(core);
            peer_credit.relieve(self.now, core);
        }
    }

    /// When [`Engine::process`](crate::Engine::process) has to look at the connection again.
    #[inline]
    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        let Connection { core, peer_credit, sessions, is_closed, .. } = &mut *self.connection;
        let timer = core.next_timer();
        if *is_closed {
            return timer;
        }
        let timer = earlier(timer, peer_credit.next_relief());
        match &sessions.waiting {
            Some(waiting) => earlier(timer, waiting.next()),
            None => timer,
        }
    }

    /// Let readers go on whose session may be read again, and report sessions that had too much.
    pub(super) fn note_paces(&mut self) {
        let connection = self.connection.id;
        for session in self.connection.sessions.full.drain(..) {
            self.events.push(Event::BytesExceeded { connection, session });
        }
        while let Some(waiting) = &mut self.connection.sessions.waiting
            && let Some(stream_id) = waiting.take(self.now)
        {
            if let Some(mut half) = self.receiving(stream_id) {
                let _ = half.readable();
            }
        }
    }
}

#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match other {
        Some(other) => Some(one.map_or(other, |one| one.min(other))),
        None => one,
    }
}
