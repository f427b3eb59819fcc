//! The little of DER that is needed beside the parser: the outermost shape of a value.
//!
//! Lengths are those of DER: definite, and at most four bytes long.

/// Splits the first value off: its tag, its whole encoding and its content, then what follows.
pub(crate) fn split(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    let whole = &bytes[..bytes.len() - rest.len()];
    Some((Value { tag, whole, content }, rest))
}

/// One value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) whole: &'a [u8],
    pub(crate) content: &'a [u8],
}

/// The content of a SEQUENCE.
const SEQUENCE: u8 = 0x30;
/// A string of bits, whose first byte counts the unused ones.
const BIT_STRING: u8 = 0x03;

/// The three parts of everything that is signed in X.509, and of a public key the last two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    /// What is signed, as encoded.
    pub(crate) message: &'a [u8],
    /// Content of the algorithm's identifier.
    pub(crate) algorithm: &'a [u8],
    /// The signature.
    pub(crate) signature: &'a [u8],
}

/// Takes a certificate apart.
pub(crate) fn signed(bytes: &[u8]) -> Option<Signed<'_>> {
    let (outer, _) =
        split(bytes).filter(|(value, rest)| value.tag == SEQUENCE && rest.is_empty())?;
    let (message, rest) = split(outer.content)?;
    let (algorithm, signature) = algorithm_and_bits(rest)?;
    Some(Signed { message: message.whole, algorithm, signature })
}

/// Takes a public key apart: the content of its algorithm's identifier, and its bits.
pub(crate) fn public_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (outer, _) = split(bytes).filter(|(value, _)| value.tag == SEQUENCE)?;
    algorithm_and_bits(outer.content)
}

fn algorithm_and_bits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (algorithm, rest) = split(bytes).filter(|(value, _)| value.tag == SEQUENCE)?;
    let (bits, _) = split(rest).filter(|(value, _)| value.tag == BIT_STRING)?;
    let (_unused, bits) = bits.content.split_first().filter(|(unused, _)| **unused == 0)?;
    Some((algorithm.content, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_bounded() {
        let (value, rest) = split(&[0x04, 0x02, 1, 2, 9]).unwrap();
        assert_eq!((value.tag, value.content, rest), (4, &[1, 2][..], &[9][..]));
        let mut long = vec![0x04, 0x82, 0x01, 0x00];
        long.extend([7; 256]);
        assert_eq!(split(&long).unwrap().0.content.len(), 256);
        for cut in [&[][..], &[4], &[4, 2, 1], &[4, 0x80], &[4, 0x85, 0, 0, 0, 0, 0], &long[..100]]
        {
            assert!(split(cut).is_none(), "{cut:?}");
        }
    }
}
