//! The clock of Windows ticks every 15.6 ms, and a sleep on a completion port ends with a tick. That is late for pacing
//! and for loss timers, which are often due within a millisecond.

use std::time::Duration;

use windows_sys::Win32::Media::{timeBeginPeriod, timeEndPeriod};

/// A sleep longer than this may end with the next tick of the usual clock.
const SHORT: Duration = Duration::from_millis(100);
/// The finest period that there is, in milliseconds.
const FINEST: u32 = 1;

/// While this lives, the process has a clock that ticks every millisecond, which takes power. So it is held for short
/// sleeps only: an idle endpoint has none.
pub(crate) struct FineTimers;

impl FineTimers {
    pub(crate) fn for_sleep(time: Duration) -> Option<Self> {
        if time.is_zero() || time > SHORT {
            return None;
        }
        #[expect(unsafe_code, reason = "a function of the system")]
        // SAFETY: it takes a number and touches no memory of ours.
        unsafe {
            timeBeginPeriod(FINEST);
        }
        Some(Self)
    }
}

impl Drop for FineTimers {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a function of the system")]
        // SAFETY: as above; it ends what `for_sleep` has begun.
        unsafe {
            timeEndPeriod(FINEST);
        }
    }
}
