//! Numbers and texts as bytes; small numbers take few. The ledger and the functions' logs store their rows so.
//!
//! Writing cannot fail and cannot panic. Reading returns `None` for invalid bytes.

/// Bits of a number in each byte. The highest bit of a byte says that more bytes follow.
const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

/// Appends `number`: seven bits per byte, the lowest first.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= u64::from(MORE) {
        out.push(number as u8 | MORE);
        number >>= BITS;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative. Numbers close to zero are short, on either side of it.
pub fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number << 1 ^ number >> (i64::BITS - 1)).cast_unsigned());
}

/// Appends `text` with its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The bytes that are not read yet.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether all of them are read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number that [`put`] wrote.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(BITS as usize) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & !MORE) << shift;
            if *first < MORE {
                return Some(number);
            }
        }
        None
    }

    /// A number that [`put_signed`] wrote.
    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number that fits into `u32`.
    pub fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    /// So many bytes as they are.
    pub fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// A text that [`put_text`] wrote.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        let (first, rest) = self.0.split_at_checked(length.try_into().ok()?)?;
        self.0 = rest;
        std::str::from_utf8(first).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_survive() {
        let mut out = Vec::new();
        let numbers: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]).chain([u64::MAX]).collect();
        for number in &numbers {
            put(&mut out, *number);
            put_signed(&mut out, number.cast_signed());
            put_signed(&mut out, number.cast_signed().wrapping_neg());
        }
        put_text(&mut out, "grüße");
        let mut bytes = Bytes(&out);
        for number in numbers {
            assert_eq!(bytes.number(), Some(number));
            assert_eq!(bytes.signed(), Some(number.cast_signed()));
            assert_eq!(bytes.signed(), Some(number.cast_signed().wrapping_neg()));
        }
        assert_eq!(bytes.text(), Some("grüße"));
        assert!(bytes.is_empty());
    }

    #[test]
    fn small_numbers_are_short() {
        for (number, length) in [(0, 1), (63, 1), (-64, 1), (64, 2), (1 << 20, 4)] {
            let mut out = Vec::new();
            put_signed(&mut out, number);
            assert_eq!(out.len(), length, "{number}");
        }
    }

    #[test]
    fn bytes_that_nobody_wrote_are_none() {
        assert_eq!(Bytes(&[]).number(), None);
        assert_eq!(Bytes(&[0x80; 20]).number(), None);
        assert_eq!(Bytes(&[9, b'a']).text(), None);
        assert_eq!(Bytes(&[1, 0xff]).text(), None);
        assert_eq!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0x7f]).small(), None);
        assert_eq!(Bytes(&[1, 2]).array::<3>(), None);
    }
}
