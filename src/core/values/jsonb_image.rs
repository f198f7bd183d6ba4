//! `jsonb` as PostgreSQL stores it, walked without a tree and without recursion.
//!
//! Pure. It gives the text that `jsonb_out` prints, token by token, so that a large value need
//! not be printed in full before its size is known.

/// A piece of the printed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Punctuation and literals, as they are.
    Plain(&'static [u8]),
    /// The text of a string, without quotes and escapes.
    String(&'a [u8]),
    /// A stored numeric with its length header.
    Number(&'a [u8]),
}

const WORD: usize = 4;
const COUNT_MASK: u32 = 0x0FFF_FFFF;
const IS_SCALAR: u32 = 0x1000_0000;
const IS_OBJECT: u32 = 0x2000_0000;

/// An entry holds a length, or every so often the end's offset, and the kind of its value.
const LENGTH_MASK: u32 = 0x0FFF_FFFF;
const KIND_MASK: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const KIND_STRING: u32 = 0x0000_0000;
const KIND_NUMERIC: u32 = 0x1000_0000;
const KIND_FALSE: u32 = 0x2000_0000;
const KIND_TRUE: u32 = 0x3000_0000;
const KIND_NULL: u32 = 0x4000_0000;
const KIND_CONTAINER: u32 = 0x5000_0000;

/// An array or object whose members are being given.
struct Container<'a> {
    entries: &'a [u8],
    data: &'a [u8],
    count: usize,
    next: usize,
    is_object: bool,
    is_scalar: bool,
    key_offset: usize,
    value_offset: usize,
}

impl<'a> Container<'a> {
    fn parse(image: &'a [u8]) -> Option<Self> {
        let header = word(image, 0)?;
        let count = (header & COUNT_MASK) as usize;
        let is_object = header & IS_OBJECT != 0;
        let entries = if is_object { count * 2 } else { count };
        let data_at = WORD + entries * WORD;
        let mut container = Self {
            entries: image.get(WORD..data_at)?,
            data: &image[data_at..],
            count,
            next: 0,
            is_object,
            is_scalar: header & IS_SCALAR != 0,
            key_offset: 0,
            value_offset: 0,
        };
        if is_object {
            container.value_offset = container.offset_of(count)?;
        }
        Some(container)
    }

    /// Where the value of an entry starts: behind the one before it.
    fn offset_of(&self, index: usize) -> Option<usize> {
        let mut offset = 0;
        for before in (0..index).rev() {
            let entry = word(self.entries, before * WORD)?;
            offset += (entry & LENGTH_MASK) as usize;
            if entry & HAS_OFFSET != 0 {
                break;
            }
        }
        Some(offset)
    }

    /// Kind and bytes of the entry's value, which starts at `offset`; and where it ends.
    fn value(&self, index: usize, offset: usize) -> Option<(u32, &'a [u8], usize)> {
        let entry = word(self.entries, index * WORD)?;
        let length = (entry & LENGTH_MASK) as usize;
        let end = if entry & HAS_OFFSET != 0 {
            length
        } else {
            offset + length
        };
        let kind = entry & KIND_MASK;
        // Numbers and containers are aligned to words; their length counts the padding.
        let start = match kind {
            KIND_NUMERIC | KIND_CONTAINER => offset.next_multiple_of(WORD),
            _ => offset,
        };
        Some((kind, self.data.get(start..end)?, end))
    }

    fn opening(&self) -> &'static [u8] {
        match (self.is_scalar, self.is_object) {
            (true, _) => b"",
            (_, true) => b"{",
            _ => b"[",
        }
    }

    fn closing(&self) -> &'static [u8] {
        match (self.is_scalar, self.is_object) {
            (true, _) => b"",
            (_, true) => b"}",
            _ => b"]",
        }
    }

    fn next_key(&mut self) -> Option<&'a [u8]> {
        let (_, key, end) = self.value(self.next, self.key_offset)?;
        self.key_offset = end;
        Some(key)
    }

    fn next_value(&mut self) -> Option<(u32, &'a [u8])> {
        let index = if self.is_object { self.count } else { 0 } + self.next;
        let (kind, value, end) = self.value(index, self.value_offset)?;
        self.value_offset = end;
        self.next += 1;
        Some((kind, value))
    }
}

fn word(image: &[u8], at: usize) -> Option<u32> {
    let bytes = image.get(at..at + WORD)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Gives the tokens of a value (its bytes behind the length header) to `emit`, which may end the
/// walk. `None` if the bytes are damaged.
pub fn walk<'a, E>(
    image: &'a [u8],
    mut emit: impl FnMut(Token<'a>) -> Result<(), E>,
) -> Option<Result<(), E>> {
    let mut open: Vec<Container<'a>> = Vec::new();
    let mut entered = Some(Container::parse(image)?);
    // `?` ends the walk for damage, this for an error of `emit`.
    macro_rules! emit {
        ($token:expr) => {
            if let Err(error) = emit($token) {
                return Some(Err(error));
            }
        };
    }
    loop {
        if let Some(container) = entered.take() {
            emit!(Token::Plain(container.opening()));
            open.push(container);
        }
        let Some(container) = open.last_mut() else {
            return Some(Ok(()));
        };
        if container.next == container.count {
            emit!(Token::Plain(container.closing()));
            open.pop();
            continue;
        }
        if container.next > 0 {
            emit!(Token::Plain(b", "));
        }
        if container.is_object {
            emit!(Token::String(container.next_key()?));
            emit!(Token::Plain(b": "));
        }
        let (kind, value) = container.next_value()?;
        match kind {
            KIND_STRING => emit!(Token::String(value)),
            KIND_NUMERIC => emit!(Token::Number(value)),
            KIND_FALSE => emit!(Token::Plain(b"false")),
            KIND_TRUE => emit!(Token::Plain(b"true")),
            KIND_NULL => emit!(Token::Plain(b"null")),
            KIND_CONTAINER => entered = Some(Container::parse(value)?),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(image: &[u8]) -> Option<String> {
        let mut out = String::new();
        let walked = walk(image, |token| {
            match token {
                Token::Plain(bytes) => out.push_str(std::str::from_utf8(bytes).unwrap()),
                Token::String(bytes) => {
                    out.push_str(&format!("{:?}", String::from_utf8_lossy(bytes)));
                }
                Token::Number(bytes) => out.push_str(&format!("#{}", bytes.len())),
            }
            Ok::<(), ()>(())
        });
        walked.map(|_| out)
    }

    fn image(words: &[u32], data: &[u8]) -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        words.chain(data.iter().copied()).collect()
    }

    const ARRAY: u32 = 0x4000_0000;

    #[test]
    fn containers_and_scalars_are_printed_as_postgresql_does() {
        let scalar = image(&[ARRAY | IS_SCALAR | 1, KIND_STRING | 3], b"abc");
        assert_eq!(text(&scalar).as_deref(), Some("\"abc\""));
        assert_eq!(text(&image(&[ARRAY], b"")).as_deref(), Some("[]"));
        assert_eq!(text(&image(&[IS_OBJECT], b"")).as_deref(), Some("{}"));
        let list = image(
            &[
                ARRAY | 5,
                KIND_TRUE,
                KIND_STRING | 1,
                KIND_NULL,
                // three bytes of padding and a number of eight
                KIND_NUMERIC | 11,
                KIND_FALSE | HAS_OFFSET | 12,
            ],
            b"x\0\0\0numeric8",
        );
        assert_eq!(
            text(&list).as_deref(),
            Some("[true, \"x\", null, #8, false]")
        );
    }

    #[test]
    fn values_of_an_object_follow_all_its_keys() {
        let inner = image(&[ARRAY | 1, KIND_NULL], b"");
        let mut data = b"abc".to_vec();
        data.extend(b"yes");
        data.extend([0, 0]);
        data.extend(&inner);
        let object = image(
            &[
                IS_OBJECT | 2,
                KIND_STRING | HAS_OFFSET | 1,
                KIND_STRING | 2,
                KIND_STRING | 3,
                KIND_CONTAINER | (2 + inner.len() as u32),
            ],
            &data,
        );
        assert_eq!(
            text(&object).as_deref(),
            Some("{\"a\": \"yes\", \"bc\": [null]}")
        );
    }

    #[test]
    fn depth_costs_no_stack() {
        let mut value = image(&[ARRAY], b"");
        for _ in 0..2_000 {
            let entry = KIND_CONTAINER | HAS_OFFSET | value.len() as u32;
            value = image(&[ARRAY | 1, entry], &value);
        }
        let printed = text(&value).unwrap();
        assert_eq!(printed.len(), 2 * 2_001);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = text(&bytes);
        }
    }
}
