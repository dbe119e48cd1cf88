//! QUIC variable-length integers (RFC 9000, section 16).

/// Read one varint at the start of `bytes`: the value and its length, or `None` when more bytes are needed.
#[must_use]
#[inline]
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let (value, rest) = split(bytes)?;
    Some((value, bytes.len() - rest.len()))
}

/// As [`read`], but with what follows the varint in place of its length.
#[must_use]
#[inline]
pub fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    Some(match first >> 6 {
        0 => (u64::from(first), rest),
        1 => {
            let (raw, rest) = bytes.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*raw) & 0x3fff), rest)
        }
        2 => {
            let (raw, rest) = bytes.split_first_chunk()?;
            (u64::from(u32::from_be_bytes(*raw) & 0x3fff_ffff), rest)
        }
        _ => {
            let (raw, rest) = bytes.split_first_chunk()?;
            (u64::from_be_bytes(*raw) & 0x3fff_ffff_ffff_ffff, rest)
        }
    })
}

/// Bytes that [`write`] appends for `value`.
#[must_use]
#[inline]
pub fn length(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Append `value` in its shortest form. Values above 2^62-1 cannot be written and are cut to that maximum.
pub fn write(value: u64, out: &mut Vec<u8>) {
    let value = value.min((1 << 62) - 1);
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9000_vectors_round_trip() {
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            assert_eq!(read(bytes), Some((value, bytes.len())));
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn longer_than_needed_is_read_by_value() {
        assert_eq!(read(&[0x40, 0x25]), Some((37, 2)));
    }
}
