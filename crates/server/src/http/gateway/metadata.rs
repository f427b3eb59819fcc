//! What of a request's headers goes into the call's metadata (GW-22, GW-23; source: grpc-gateway,
//! runtime/context.go).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, alphabet};
use tonic::Status;

/// What a browser says in front of metadata.
const PREFIX: &str = "grpc-metadata-";

const TIMEOUT: &str = "grpc-timeout";

/// In less no call begins.
const BEGINNING_NANOSECONDS: i128 = 1_000;

/// The greatest number in a timeout of gRPC.
const TIMEOUT_MAX: i128 = 99_999_999;

/// Nanoseconds of the units of gRPC, shortest first.
const UNITS: [(char, i128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// The token, the time the call may take, and what is said to be metadata.
///
/// # Errors
///
/// Headers that are none of these, in the words of etcd's gateway.
pub(super) fn metadata(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let name = match name.as_str() {
            "authorization" => name.clone(),
            other => match other.strip_prefix(PREFIX) {
                Some(said) => named(other, said, value)?,
                None => continue,
            },
        };
        metadata.append(name, value.clone());
    }
    metadata.remove(TIMEOUT);
    if let Some(text) = headers.get(TIMEOUT).filter(|text| !text.is_empty())
        && let Some(timeout) = timeout(text)?
    {
        metadata.insert(TIMEOUT, timeout);
    }
    let is_grpc = HeaderValue::from_static("application/grpc");
    metadata.insert(header::CONTENT_TYPE, is_grpc);
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata.remove("grpc-encoding");
    metadata.remove("grpc-accept-encoding");
    Ok(metadata)
}

/// The name of metadata that a header says.
fn named(header: &str, said: &str, value: &HeaderValue) -> Result<HeaderName, Status> {
    if said.is_empty() {
        return Err(Status::internal("there is an empty key in the header"));
    }
    if said.ends_with("-bin")
        && let Some(at) = not_base64_at(value.as_bytes())
    {
        let header = canonical(header);
        let text =
            format!("invalid binary header {header}: illegal base64 data at input byte {at}");
        return Err(Status::invalid_argument(text));
    }
    Ok(HeaderName::try_from(said).expect("part of a name"))
}

/// A header's name as Go writes it.
fn canonical(name: &str) -> String {
    let mut is_first = true;
    let upper = |letter: char| {
        let letter = if is_first { letter.to_ascii_uppercase() } else { letter };
        is_first = letter == '-';
        letter
    };
    name.chars().map(upper).collect()
}

/// Where a text stops being base64, filled up if its length says so.
fn not_base64_at(text: &[u8]) -> Option<usize> {
    let padding = if text.len().is_multiple_of(4) {
        DecodePaddingMode::RequireCanonical
    } else {
        DecodePaddingMode::RequireNone
    };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    match GeneralPurpose::new(&alphabet::STANDARD, config).decode(text) {
        Ok(_) => None,
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => Some(at),
        Err(DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => Some(text.len() - 1),
    }
}

/// The time a call may take, as gRPC says it; `None` for none at all, which means any.
fn timeout(value: &HeaderValue) -> Result<Option<HeaderValue>, Status> {
    let text = String::from_utf8_lossy(value.as_bytes());
    let count_and_unit = || {
        let unit = text.chars().next_back()?;
        let (_, unit_nanoseconds) = UNITS.iter().find(|(known, _)| *known == unit)?;
        let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(i128::from(count) * unit_nanoseconds)
    };
    let nanoseconds = count_and_unit()
        .ok_or_else(|| Status::invalid_argument(format!("invalid grpc-timeout: {text}")))?;
    if nanoseconds == 0 {
        return Ok(None);
    }
    if nanoseconds < BEGINNING_NANOSECONDS {
        return Err(late());
    }
    let fitting = UNITS.iter().find(|(_, unit)| nanoseconds / unit <= TIMEOUT_MAX);
    let text = fitting.map_or_else(
        || format!("{TIMEOUT_MAX}H"),
        |(unit, unit_nanoseconds)| format!("{}{unit}", nanoseconds / unit_nanoseconds),
    );
    Ok(Some(HeaderValue::from_str(&text).expect("digits and a letter")))
}

/// What is said of a call whose time is over.
pub(super) fn late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Result<HeaderMap, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        metadata(&map)
    }

    /// GW-22, GW-23.
    #[test]
    fn metadata_is_what_is_named_so() {
        let metadata = of(&[
            ("authorization", "token"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-x-bin", "YQ"),
            ("cookie", "c"),
        ])
        .unwrap();
        assert_eq!(metadata.get("authorization").unwrap(), "token");
        assert_eq!(metadata.get("hasleader").unwrap(), "true");
        assert_eq!(metadata.get("x-bin").unwrap(), "YQ");
        assert!(metadata.get("cookie").is_none() && metadata.get("grpc-encoding").is_none());
    }

    /// GW-22: seen at 3.7.1.
    #[test]
    fn what_is_no_metadata_is_refused() {
        for (name, value, words) in [
            ("grpc-metadata-", "a", "there is an empty key in the header"),
            (
                "grpc-metadata-x-bin",
                "%%",
                "invalid binary header Grpc-Metadata-X-Bin: illegal base64 data at input byte 0",
            ),
            (
                "grpc-metadata-x-bin",
                "Zm9vY",
                "invalid binary header Grpc-Metadata-X-Bin: illegal base64 data at input byte 4",
            ),
            ("grpc-timeout", "x", "invalid grpc-timeout: x"),
            ("grpc-timeout", "1.5S", "invalid grpc-timeout: 1.5S"),
            ("grpc-timeout", "-1S", "context deadline exceeded"),
            ("grpc-timeout", "1n", "context deadline exceeded"),
        ] {
            assert_eq!(of(&[(name, value)]).unwrap_err().message(), words, "{name}: {value}");
        }
    }

    #[test]
    fn a_timeout_is_said_as_grpc_says_it() {
        for (text, expected) in [
            ("", None),
            ("0S", None),
            ("1S", Some("1000000u")),
            ("+5m", Some("5000000n")),
            ("123456789S", Some("2057613M")),
            ("9223372036854775807H", Some("99999999H")),
        ] {
            let metadata = of(&[("grpc-timeout", text)]).unwrap();
            let told = metadata.get(TIMEOUT).map(|told| told.to_str().unwrap());
            assert_eq!(told, expected, "{text}");
        }
    }
}
