//! What passes between an endpoint and the guardian that looks after it.
//!
//! The guardian is built on the endpoint. The endpoint knows nothing of the guardian but this module: how long work may
//! wait, the answer to a look, and the channel on which it asks for the next one. Threads and rounds are the guardian's.

use std::{
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

/// How long something may wait for the loop before a thread of ours does it.
pub(crate) const GRACE: Duration = Duration::from_millis(3);

/// What the guardian finds when it looks at an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Closed,
    /// Something waits that the loop should have handled by now.
    Waiting,
    /// Nothing waits.
    Idle,
    /// Nothing waits before this timer, unless the poller reports the socket or the endpoint is touched.
    LeftAlone {
        timer: Option<Instant>,
    },
}

/// The endpoint's end of the channel to the guardian. Dropped when the endpoint closes.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The guardian's name for this endpoint, which also names its socket in the poller.
    id: u64,
    /// Ids of endpoints to look at again. Sending never blocks; an id is sent at most once per look.
    touched: Sender<u64>,
    /// The guardian does not look by itself. Set by its look, cleared when the id is sent.
    is_left_alone: bool,
}

impl Watch {
    pub(crate) fn new(id: u64, touched: Sender<u64>) -> Self {
        Self { id, touched, is_left_alone: false }
    }

    /// The guardian relies on the poller, on the timer and on `touch` from now on.
    pub(crate) fn leave_alone(&mut self) {
        self.is_left_alone = true;
    }

    /// The endpoint was used: output or an earlier timer may be there now.
    pub(crate) fn touch(&mut self) {
        if std::mem::take(&mut self.is_left_alone) {
            // Sending fails once the guardian has ended, and then there is nothing to look after the endpoint any more.
            let _ = self.touched.send(self.id);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The guardian sees that the endpoint is closed or gone, and forgets it.
        self.touch();
    }
}
