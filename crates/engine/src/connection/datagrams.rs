//! Datagrams of all sessions of a connection, between their queues and the core.

use bytes::Bytes;

use super::{Connection, ConnectionMut};
use crate::{datagrams, event::Event};

/// Datagrams below this size are copied, so that they do not keep a whole receive buffer alive.
const COPY_BELOW: usize = 4096;

impl ConnectionMut<'_> {
    /// Give received datagrams to their sessions, or keep them for sessions to come.
    pub(super) fn take_datagrams(&mut self) {
        let connection = &mut *self.connection;
        let id = connection.id;
        while let Some(data) = connection.core.receive_datagram() {
            let Some((session_id, length)) = datagrams::read_session_id(&data) else {
                self.events.push(Event::DatagramError { connection: id });
                continue;
            };
            let payload =
                if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data[length..]) } else { data.slice(length..) };
            match connection.sessions.keep_datagram(session_id, payload) {
                Ok(true) => self.events.push(Event::DatagramReadable { connection: id, session: session_id }),
                Ok(false) => {}
                Err(payload) => {
                    if connection.sessions.end_code(session_id).is_none() && connection.early.push(session_id, payload)
                    {
                        self.events.push(Event::DatagramId { connection: id, session: session_id });
                    }
                }
            }
        }
    }

    /// Hand datagrams that wait to the core.
    pub(super) fn flush_datagrams(&mut self) {
        let Connection { core, sessions, outgoing, .. } = &mut *self.connection;
        if outgoing.is_empty() {
            return;
        }
        outgoing.flush(
            self.now,
            |data| core.send_datagram(data),
            |session_id, fate| {
                if let Some(session) = sessions.get_mut(session_id) {
                    session.datagrams.note(fate);
                }
            },
        );
    }
}
