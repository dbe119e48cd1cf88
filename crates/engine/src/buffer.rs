//! The two buffers of a stream: received bytes that a reader has asked for, and bytes of a writer that wait for the core.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Writes below this size are copied together into one chunk.
const SMALL_WRITE: usize = 4096;
/// Size at which collected small writes become a chunk of their own.
const CHUNK: usize = 16 * 1024;

/// Received bytes in order: a joined head that separators are searched in, and the chunks that came after it.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer {
    /// Of a stream that is read by lines or the like.
    joined: Option<Box<Joined>>,
    /// Most messages are one chunk, for which nothing is allocated. Empty only where `rest` is `None`.
    first: Bytes,
    #[expect(
        clippy::box_collection,
        reason = "most streams have none, and there are three of them on an idle connection"
    )]
    rest: Option<Box<VecDeque<Bytes>>>,
    length: usize,
}

#[derive(Debug, Default)]
struct Joined {
    head: BytesMut,
    separator: Vec<u8>,
    /// How much of the head does not hold the separator.
    searched: usize,
}

impl ReceiveBuffer {
    /// Bytes in the buffer.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is in the buffer.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Append a chunk.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.length += chunk.len();
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.rest.get_or_insert_default().push_back(chunk);
        }
    }

    /// Drop everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Move the first `out.len()` bytes into `out`; there must be that many.
    pub(crate) fn take_into(&mut self, mut out: &mut [u8]) {
        self.length -= out.len();
        if let Some(joined) = &mut self.joined {
            joined.searched = 0;
            let part = joined.head.len().min(out.len());
            out[..part].copy_from_slice(&joined.head.split_to(part));
            out = &mut out[part..];
        }
        while !out.is_empty() {
            let part = self.first.len().min(out.len());
            if part == 0 {
                return;
            }
            out[..part].copy_from_slice(&self.first[..part]);
            out = &mut out[part..];
            if part < self.first.len() {
                self.first.advance(part);
                return;
            }
            self.first = match self.rest.as_mut().and_then(|rest| rest.pop_front()) {
                Some(chunk) => chunk,
                None => {
                    // Most streams of an idle connection have had their bytes.
                    self.rest = None;
                    Bytes::new()
                }
            };
        }
    }

    /// Length through the first occurrence of `separator`, if it is in the buffer.
    ///
    /// Bytes are joined once and looked at once, so a line that arrives in many pieces costs linear time.
    pub(crate) fn find(&mut self, separator: &[u8]) -> Option<usize> {
        let joined = self.joined.get_or_insert_default();
        if joined.separator != separator {
            joined.separator = separator.to_vec();
            joined.searched = 0;
        }
        let rest = self.rest.take().into_iter().flat_map(|rest| *rest);
        for chunk in std::iter::once(std::mem::take(&mut self.first)).chain(rest) {
            joined.head.extend_from_slice(&chunk);
        }
        let rest = &joined.head[joined.searched..];
        let found = match separator {
            [byte] => memchr::memchr(*byte, rest),
            _ => memchr::memmem::find(rest, separator),
        };
        match found {
            Some(position) => Some(joined.searched + position + separator.len()),
            None => {
                joined.searched = joined.head.len().saturating_sub(separator.len() - 1);
                None
            }
        }
    }
}

/// Bytes accepted from a writer and not yet given to the QUIC core.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl SendQueue {
    /// Bytes in the queue.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Append `data` as it is.
    pub(crate) fn push_whole(&mut self, data: Bytes) {
        self.length += data.len();
        self.seal();
        self.chunks.push_back(data);
    }

    /// Append a copy of `data`; small pieces are joined.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.length += data.len();
        if data.len() < SMALL_WRITE {
            self.tail.extend_from_slice(data);
            if self.tail.len() >= CHUNK {
                self.seal();
            }
        } else {
            self.seal();
            self.chunks.push_back(Bytes::copy_from_slice(data));
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.chunks.push_back(tail.freeze());
        }
    }

    /// Drop everything; how much it was.
    pub(crate) fn clear(&mut self) -> usize {
        self.chunks.clear();
        self.tail.clear();
        std::mem::take(&mut self.length)
    }

    /// The front chunk, to be handed on in part or whole, at most `most` bytes.
    pub(crate) fn take_front(&mut self, most: usize) -> Option<Bytes> {
        let taken = match self.chunks.front_mut() {
            Some(chunk) if chunk.len() > most => chunk.split_to(most),
            Some(_) => self.chunks.pop_front()?,
            None if self.tail.is_empty() => return None,
            None if self.tail.len() > most => self.tail.split_to(most).freeze(),
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.length -= taken.len();
        Some(taken)
    }

    /// Put back what could not be handed on.
    pub(crate) fn put_back(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        if !chunk.is_empty() {
            self.chunks.push_front(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(chunks: &[&[u8]]) -> ReceiveBuffer {
        let mut buffer = ReceiveBuffer::default();
        for chunk in chunks {
            buffer.push(Bytes::copy_from_slice(chunk));
        }
        buffer
    }

    #[test]
    fn separator_is_found_in_every_split() {
        let text = b"one--two-x--three";
        for first in 0..text.len() {
            for second in first..text.len() {
                for third in second..text.len() {
                    let mut b = buffer(&[&text[..first], &text[first..second], &text[second..third], &text[third..]]);
                    assert_eq!(b.find(b"--"), Some(5), "split at {first} {second} {third}");
                    assert_eq!(b.find(b"-x--"), Some(12), "split at {first} {second} {third}");
                    assert_eq!(b.find(b"three"), Some(17));
                    assert_eq!(b.find(b"zz"), None);
                }
            }
        }
    }

    #[test]
    fn separator_is_found_byte_by_byte() {
        let mut b = ReceiveBuffer::default();
        for byte in b"aab\r\r" {
            b.push(Bytes::copy_from_slice(&[*byte]));
            assert_eq!(b.find(b"\r\n"), None);
        }
        b.push(Bytes::from_static(b"\n"));
        assert_eq!(b.find(b"\r\n"), Some(6));
    }

    #[test]
    fn take_into_crosses_chunks() {
        let mut b = buffer(&[b"abc", b"def"]);
        let mut out = [0; 4];
        b.take_into(&mut out);
        assert_eq!(&out, b"abcd");
        assert_eq!(b.len(), 2);
    }

    #[test]
    fn small_writes_join_and_keep_order() {
        let mut queue = SendQueue::default();
        queue.push(b"ab");
        queue.push(b"cd");
        queue.push(&[b'x'; SMALL_WRITE]);
        queue.push(b"e");
        let first = queue.take_front(usize::MAX).unwrap();
        assert_eq!(&first[..], b"abcd");
        let part = queue.take_front(10).unwrap();
        assert_eq!(part.len(), 10);
        queue.put_back(part);
        assert_eq!(queue.take_front(usize::MAX).unwrap().len(), 10);
        assert_eq!(queue.take_front(usize::MAX).unwrap().len(), SMALL_WRITE - 10);
        assert_eq!(&queue.take_front(1).unwrap()[..], b"e");
        assert!(queue.is_empty());
    }
}
