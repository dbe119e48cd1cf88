//! Memory for received packets, which is used again.
//!
//! The QUIC core wants each packet in memory of its own, and keeps it while a stream's bytes in it wait for their
//! reader. With the system's allocator, each packet would be a large block. As megabytes of packets come and go, the
//! allocator would return the heap to the system and take it again, page by page.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Smaller packets come from the allocator, because they would keep a large block for few bytes.
const SMALL: usize = 1024;
/// Size of a full-size packet. Sizes are rounded up, so that blocks fit the packets that come next.
const BLOCK: usize = 1536;
/// Most bytes of blocks that are remembered.
const LIMIT: usize = 2 * 1024 * 1024;
/// Bytes of blocks that are kept while there is little traffic.
const KEPT: usize = 16 * BLOCK;

/// Blocks with their sizes, oldest first. Each is a handle to the empty end of a block; the packet is another handle.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    blocks: VecDeque<(BytesMut, usize)>,
    size: usize,
}

impl Packets {
    /// A copy of a datagram.
    pub(crate) fn copy(&mut self, datagram: &[u8]) -> BytesMut {
        if datagram.len() < SMALL {
            return BytesMut::from(datagram);
        }
        let size = datagram.len().next_multiple_of(BLOCK);
        // Packets are mostly freed in the order of their arrival, and have one size. A block that stays in use, or has
        // another size, delays the others only until new blocks push it out.
        let is_free = self.blocks.front_mut().is_some_and(|(oldest, its)| *its == size && oldest.try_reclaim(size));
        let reused = if is_free { self.take_oldest() } else { None };
        let mut block = reused.unwrap_or_else(|| BytesMut::with_capacity(size));
        block.extend_from_slice(datagram);
        let packet = block.split();
        self.blocks.push_back((block, size));
        self.size += size;
        while self.size > LIMIT {
            self.take_oldest();
        }
        packet
    }

    /// Free one block. Call this while there is little traffic.
    pub(crate) fn shrink(&mut self) {
        if self.size > KEPT {
            self.take_oldest();
        }
    }

    fn take_oldest(&mut self) -> Option<BytesMut> {
        let (block, size) = self.blocks.pop_front()?;
        self.size -= size;
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(length: usize, fill: u8) -> Vec<u8> {
        vec![fill; length]
    }

    #[test]
    fn a_packet_that_was_let_go_lends_its_memory_to_the_next() {
        let mut packets = Packets::default();
        let first = packets.copy(&datagram(1452, 1));
        let place = first.as_ptr();
        assert_eq!(first, datagram(1452, 1));
        drop(first);
        let second = packets.copy(&datagram(1472, 2));
        assert_eq!(second, datagram(1472, 2));
        assert_eq!(second.as_ptr(), place);
    }

    #[test]
    fn a_packet_that_is_kept_stays_as_it_is() {
        let mut packets = Packets::default();
        let kept = packets.copy(&datagram(1200, 1)).freeze().slice(600..);
        for fill in 2..200 {
            assert_eq!(packets.copy(&datagram(1452, fill)), datagram(1452, fill));
        }
        assert_eq!(kept, datagram(600, 1));
    }

    #[test]
    fn memory_is_bounded_however_many_are_kept() {
        let mut packets = Packets::default();
        let kept: Vec<BytesMut> = (0..4000).map(|_| packets.copy(&datagram(1452, 7))).collect();
        assert!(packets.size <= LIMIT);
        assert!(kept.iter().all(|packet| packet == &datagram(1452, 7)));
        drop(kept);
        for _ in 0..4000 {
            packets.shrink();
        }
        assert!(packets.size <= KEPT);
    }

    #[test]
    fn no_packet_keeps_a_block_that_was_made_for_a_larger_one() {
        let mut packets = Packets::default();
        let large = packets.copy(&datagram(60_000, 1));
        let place = large.as_ptr();
        drop(large);
        let small = packets.copy(&datagram(1452, 2));
        assert_ne!(small.as_ptr(), place);
        assert_eq!(small, datagram(1452, 2));
    }

    #[test]
    fn larger_packets_get_larger_blocks_and_small_ones_none() {
        let mut packets = Packets::default();
        drop(packets.copy(&datagram(1452, 1)));
        assert_eq!(packets.copy(&datagram(9000, 2)), datagram(9000, 2));
        let blocks = packets.blocks.len();
        assert_eq!(packets.copy(&datagram(60, 3)), datagram(60, 3));
        assert_eq!(packets.blocks.len(), blocks);
    }
}
