//! The head of a peer's stream, which distinguishes WebTransport data streams from all others.

use crate::varint;

/// First varint of a bidirectional WebTransport stream (draft-ietf-webtrans-http3, section 4.3).
const BIDIRECTIONAL_SIGNAL: u64 = 0x41;
/// Stream type of a unidirectional WebTransport stream (section 4.2).
const UNIDIRECTIONAL_TYPE: u64 = 0x54;
/// A stream's header: two varints at most.
pub(crate) const HEADER_LIMIT: usize = 16;

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// Not enough bytes to decide.
    Incomplete,
    /// A data stream of this session; its payload begins after `length` bytes.
    Data { session: u64, length: usize },
    /// Any other stream, of which nothing is consumed.
    Raw,
}

/// Read the one or two varints at the head of a stream.
pub(crate) fn read(head: &[u8], bidirectional: bool) -> Header {
    let Some((kind, first)) = varint::read(head) else { return Header::Incomplete };
    if kind != if bidirectional { BIDIRECTIONAL_SIGNAL } else { UNIDIRECTIONAL_TYPE } {
        return Header::Raw;
    }
    match varint::read(&head[first..]) {
        Some((session, second)) => Header::Data { session, length: first + second },
        None => Header::Incomplete,
    }
}
