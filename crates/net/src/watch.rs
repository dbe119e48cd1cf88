//! What passes between an endpoint and the guardian that looks after it.
//!
//! The guardian is built on the endpoint. The endpoint knows nothing of the guardian but this module: how long work may
//! wait, the answer to a look, and the line on which it asks for the next one. Threads and rounds are the guardian's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use crate::poller::Poller;

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

/// The way to the guardian, of which each of its endpoints has a copy.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Ids of endpoints to look at again. Sending never blocks; an id is sent at most once per look.
    touched: Sender<u64>,
    /// What the guardian sleeps on.
    poller: Arc<Poller>,
    /// The guardian sleeps for as long as nothing happens, and has to be woken. Set by the guardian; cleared by it or by the
    /// first who wakes it.
    is_resting: Arc<AtomicBool>,
}

impl Line {
    /// A line to a guardian that sleeps on `poller`, and its end, at which the ids arrive.
    pub(crate) fn new(poller: Arc<Poller>) -> (Self, Receiver<u64>) {
        let (touched, touches) = channel();
        (Self { touched, poller, is_resting: Arc::default() }, touches)
    }

    /// What the guardian sleeps on.
    pub(crate) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// The guardian is about to rest. What was sent before may not have woken it, so that it has to look once more.
    pub(crate) fn begin_rest(&self) {
        self.is_resting.store(true, Ordering::Relaxed);
        // Of this and `touch`, at least one sees what the other has written.
        fence(Ordering::SeqCst);
    }

    /// The guardian has rested.
    pub(crate) fn end_rest(&self) {
        self.is_resting.store(false, Ordering::Relaxed);
        self.poller.drain();
    }

    fn touch(&self, id: u64) {
        // Sending fails once the guardian has ended, and then there is nothing to look after the endpoint any more.
        let _ = self.touched.send(id);
        fence(Ordering::SeqCst);
        if self.is_resting.load(Ordering::Relaxed) && self.is_resting.swap(false, Ordering::Relaxed) {
            self.poller.wake();
        }
    }
}

/// The endpoint's end of the line to the guardian. Dropped when the endpoint closes.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The guardian's name for this endpoint, which also names its socket in the poller.
    id: u64,
    line: Line,
    /// The guardian does not look by itself. Set by its look, cleared when the id is sent.
    is_left_alone: bool,
}

impl Watch {
    pub(crate) fn new(id: u64, line: Line) -> Self {
        Self { id, line, is_left_alone: false }
    }

    /// The guardian relies on the poller, on the timer and on `touch` from now on.
    pub(crate) fn leave_alone(&mut self) {
        self.is_left_alone = true;
    }

    /// The endpoint was used: output or an earlier timer may be there now.
    pub(crate) fn touch(&mut self) {
        if std::mem::take(&mut self.is_left_alone) {
            self.line.touch(self.id);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The guardian sees that the endpoint is closed or gone, and forgets it.
        self.touch();
    }
}
