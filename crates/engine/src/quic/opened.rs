//! Which packets were opened before.

/// The numbers of packets that were opened: the highest, and which of the 128 below it. Older ones count as seen. The core
/// remembers exactly as much, so that both drop the same packets.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Bit `n` stands for the packet `n + 1` below the highest.
    pub(super) window: u128,
    /// One more than the highest; 0 before the first.
    pub(super) next: u64,
}

impl Opened {
    /// Note a packet; whether it was not seen before.
    pub(super) fn is_new(&mut self, packet: u64) -> bool {
        if packet >= self.next {
            // The one that was the highest so far gets a bit of its own.
            let distance = packet - self.next + 1;
            let shifted = u32::try_from(distance).ok().and_then(|by| self.window.checked_shl(by)).unwrap_or(0);
            let last = u32::try_from(distance - 1).ok().and_then(|by| 1u128.checked_shl(by)).unwrap_or(0);
            self.window = shifted | if self.next > 0 { last } else { 0 };
            self.next = packet + 1;
            return true;
        }
        let Some(below) = (self.next - 1 - packet).checked_sub(1) else { return false };
        let Some(bit) = u32::try_from(below).ok().and_then(|by| 1u128.checked_shl(by)) else { return false };
        let is_new = self.window & bit == 0;
        self.window |= bit;
        is_new
    }
}
