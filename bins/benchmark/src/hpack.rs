//! Request headers of gRPC calls as HPACK writes them.
//!
//! Not a codec: it knows the six fields of a call. The first call on a connection puts its fields
//! into the server's table, every later one refers to them, as official clients do, so that a
//! server decodes six bytes per request.
//!
//! Invariant: `inserted` counts the entries of the server's table; none is ever evicted, because
//! the few fields stay far below the table's default of 4,096 bytes.
//!
//! Source: RFC 7541.

/// The encoder of one connection.
#[derive(Debug)]
pub(crate) struct RequestHeaders {
    authority: String,
    inserted: u8,
    /// Each method's path and the number of its entry, counted from the first insertion.
    paths: Vec<(&'static str, u8)>,
    /// Entry number of the first of the common fields, once they are inserted.
    common: Option<u8>,
}

const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
/// Literal with incremental indexing; the low six bits name a field of the static table.
const LITERAL: u8 = 0x40;
const NAME_AUTHORITY: u8 = 1;
const NAME_PATH: u8 = 4;
const NAME_CONTENT_TYPE: u8 = 31;
const NAME_USER_AGENT: u8 = 58;
const DYNAMIC_FIRST: u8 = 62;
const COMMON_FIELDS: u8 = 4;
const PATHS_MAX: usize = 16;
/// String lengths are written as one byte.
const STRING_BYTES_MAX: usize = 126;

impl RequestHeaders {
    /// An encoder for a fresh connection.
    ///
    /// # Panics
    /// If `authority` is longer than 126 bytes.
    pub(crate) fn new(authority: &str) -> Self {
        assert!(authority.len() <= STRING_BYTES_MAX, "authority of {} bytes", authority.len());
        Self { authority: authority.to_owned(), inserted: 0, paths: Vec::new(), common: None }
    }

    /// Appends the header block of a call.
    pub(crate) fn encode(&mut self, path: &'static str, out: &mut Vec<u8>) {
        out.extend_from_slice(&[METHOD_POST, SCHEME_HTTP]);
        let known = self.paths.iter().find(|(known, _)| *known == path);
        match known {
            Some((_, entry)) => out.push(self.indexed(*entry)),
            None => {
                assert!(self.paths.len() < PATHS_MAX, "{} methods on a connection", PATHS_MAX);
                self.paths.push((path, self.inserted));
                self.insert(NAME_PATH, None, path, out);
            }
        }
        if let Some(first) = self.common {
            for entry in first..first + COMMON_FIELDS {
                out.push(self.indexed(entry));
            }
        } else {
            self.common = Some(self.inserted);
            let authority = std::mem::take(&mut self.authority);
            self.insert(NAME_AUTHORITY, None, &authority, out);
            self.authority = authority;
            self.insert(NAME_CONTENT_TYPE, None, "application/grpc", out);
            self.insert(0, Some("te"), "trailers", out);
            self.insert(NAME_USER_AGENT, None, "retcd-benchmark", out);
        }
    }

    fn indexed(&self, entry: u8) -> u8 {
        0x80 | (DYNAMIC_FIRST + (self.inserted - 1 - entry))
    }

    fn insert(&mut self, name: u8, literal_name: Option<&str>, value: &str, out: &mut Vec<u8>) {
        out.push(LITERAL | name);
        for string in literal_name.into_iter().chain([value]) {
            assert!(string.len() <= STRING_BYTES_MAX, "header of {} bytes", string.len());
            out.push(u8::try_from(string.len()).expect("checked above"));
            out.extend_from_slice(string.as_bytes());
        }
        self.inserted += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_calls_refer_to_the_first_ones_fields() {
        let mut headers = RequestHeaders::new("127.0.0.1:1");
        let mut first = Vec::new();
        headers.encode("/a", &mut first);
        assert_eq!(&first[..6], &[0x83, 0x86, 0x44, 2, b'/', b'a']);
        assert_eq!(&first[6..19], b"\x41\x0b127.0.0.1:1");
        let mut second = Vec::new();
        headers.encode("/a", &mut second);
        // The path went in first, so it is the oldest of five.
        assert_eq!(second, [0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
    }

    #[test]
    fn another_method_shifts_the_older_entries() {
        let mut headers = RequestHeaders::new("h");
        headers.encode("/a", &mut Vec::new());
        let mut other = Vec::new();
        headers.encode("/b", &mut other);
        assert_eq!(&other[..6], &[0x83, 0x86, 0x44, 2, b'/', b'b']);
        assert_eq!(&other[6..], &[0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63]);
        let mut again = Vec::new();
        headers.encode("/a", &mut again);
        assert_eq!(again[2], 0x80 | 67);
    }
}
