//! The header of a value of variable length, as PostgreSQL stores it on little-endian machines.
//!
//! Pure. The form is told by the first byte. The word of a long header is asked for only when
//! there is one: a short value may end where a page does.

/// The low bits of the first byte tell the forms apart.
const SHORT_BIT: u8 = 0x01;
const FORM_BITS: u8 = 0x03;
const FORM_COMPRESSED: u8 = 0x02;
/// A short header of length zero: a pointer to a value stored elsewhere.
const EXTERNAL: u8 = 0x01;

const SHORT_HEADER: usize = 1;
const LONG_HEADER: usize = 4;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// So many bytes follow a header of `start` bytes.
    Plain { start: usize, len: usize },
    /// Compressed, in so many bytes with the header.
    Compressed { stored: usize },
    /// A pointer.
    External,
}

/// A damaged length that is less than its header's is one of no bytes.
#[inline(always)]
pub fn read(first: u8, word: impl FnOnce() -> u32) -> Header {
    if first == EXTERNAL {
        return Header::External;
    }
    if first & SHORT_BIT != 0 {
        return Header::Plain {
            start: SHORT_HEADER,
            len: usize::from(first >> 1) - SHORT_HEADER,
        };
    }
    let stored = (word() >> 2) as usize;
    if first & FORM_BITS == FORM_COMPRESSED {
        return Header::Compressed { stored };
    }
    Header::Plain {
        start: LONG_HEADER,
        len: stored.saturating_sub(LONG_HEADER),
    }
}

/// The bytes behind the header of a plain value that lies within `image`. `None` for other forms,
/// and where the image ends before the value does.
pub fn plain_within(image: &[u8]) -> Option<&[u8]> {
    let first = *image.first()?;
    let word = image.first_chunk::<LONG_HEADER>();
    if first & SHORT_BIT == 0 && word.is_none() {
        return None;
    }
    match read(first, || word.map_or(0, |bytes| u32::from_ne_bytes(*bytes))) {
        Header::Plain { start, len } => image.get(start..start.checked_add(len)?),
        Header::Compressed { .. } | Header::External => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(stored: u32, form: u32) -> [u8; 4] {
        ((stored << 2) | form).to_le_bytes()
    }

    #[test]
    fn each_form_is_told() {
        let never = || -> u32 { panic!("a short header has no word") };
        assert_eq!(read(0x01, never), Header::External);
        assert_eq!(read(0x03, never), Header::Plain { start: 1, len: 0 });
        assert_eq!(read(0xff, never), Header::Plain { start: 1, len: 126 });
        for (stored, form, expected) in [
            (4, 0, Header::Plain { start: 4, len: 0 }),
            (0, 0, Header::Plain { start: 4, len: 0 }),
            (100, 2, Header::Compressed { stored: 100 }),
            (
                0x3fff_ffff,
                0,
                Header::Plain {
                    start: 4,
                    len: 0x3fff_fffb,
                },
            ),
        ] {
            let bytes = long(stored, form);
            assert_eq!(read(bytes[0], || u32::from_le_bytes(bytes)), expected);
        }
    }

    #[test]
    fn no_value_reaches_beyond_its_image() {
        assert_eq!(plain_within(b""), None);
        assert_eq!(plain_within(&[0x05]), None);
        assert_eq!(plain_within(&[0x05, b'a', b'b']), Some(b"a".as_slice()));
        assert_eq!(plain_within(&long(6, 0)), None);
        assert_eq!(plain_within(&[0, 0]), None);
        let mut image = long(6, 0).to_vec();
        image.extend(b"abc");
        assert_eq!(plain_within(&image), Some(b"ab".as_slice()));
    }
}
