//! Whole numbers as protojson reads them: `"7"`, `7`, `7.0` and `70e-1` are the same (source:
//! google.golang.org/protobuf, internal/encoding/json).

/// Digits of the greatest number of 64 bits.
const DIGITS_MAX: usize = 20;

/// The parts of a number's text, none of them checked for size.
struct Parts<'t> {
    is_negative: bool,
    /// Without a leading zero.
    whole: &'t str,
    /// Without zeros at its end.
    fraction: &'t str,
    exponent: &'t str,
}

/// The number at the start of `text`, in the digits of an integer; `None` if there is none, if it is
/// none, or if what follows it would belong to it.
pub(super) fn integer(text: &str) -> Option<String> {
    integer_of(&parts(text)?)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, mut rest) = match rest.strip_prefix('0') {
        Some(rest) => ("", rest),
        None => digits(rest),
    };
    if whole.is_empty() && !text.trim_start_matches('-').starts_with('0') {
        return None;
    }
    let mut fraction = "";
    if let Some((found, behind)) = rest.strip_prefix('.').map(digits)
        && !found.is_empty()
    {
        (fraction, rest) = (found.trim_end_matches('0'), behind);
    }
    let mut exponent = "";
    if let Some(behind) = rest.strip_prefix(['e', 'E']) {
        let unsigned = behind.strip_prefix(['+', '-']).unwrap_or(behind);
        let len = behind.len() - digits(unsigned).1.len();
        (exponent, rest) = behind.split_at(len);
        if digits(unsigned).0.is_empty() {
            return None;
        }
    }
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+._".contains(byte);
    if rest.as_bytes().first().is_some_and(goes_on) {
        return None;
    }
    Some(Parts { is_negative, whole, fraction, exponent })
}

fn integer_of(number: &Parts<'_>) -> Option<String> {
    let Parts { is_negative, whole, fraction, exponent } = *number;
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    let sign = if is_negative { "-" } else { "" };
    if exponent < 0 {
        let (kept, cut) = whole.split_at(whole.len().checked_sub(shift)?);
        let is_whole = fraction.is_empty() && cut.bytes().all(|digit| digit == b'0');
        return is_whole.then(|| format!("{sign}{kept}"));
    }
    if DIGITS_MAX < whole.len() + shift {
        return None;
    }
    let zeros = "0".repeat(shift.checked_sub(fraction.len())?);
    Some(format!("{sign}{whole}{fraction}{zeros}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_an_integer() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("7", "7"),
            ("-7", "-7"),
            ("7.0", "7"),
            ("70e-1", "7"),
            ("0.7e1", "7"),
            ("1.5E+3", "1500"),
            ("1 2", "1"),
            ("1,", "1"),
        ] {
            assert_eq!(integer(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_whole_or_no_number_is_none() {
        for text in [
            "",
            "-",
            "x",
            "1x",
            "0x1",
            "01",
            "+1",
            ".5",
            "1.",
            "1.5",
            "15e-1",
            "1e",
            "1e-",
            "1e21",
            "1e99999999999",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
