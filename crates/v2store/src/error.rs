//! Errors as clients of the second generation see them: a code, its text and status.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2error/error.go.

use crate::json;

/// What went wrong; the numbers are known to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// V2-090.
    KeyNotFound = 100,
    /// V2-091.
    CompareFailed = 101,
    /// V2-092.
    NotFile = 102,
    /// V2-094.
    NotDirectory = 104,
    /// V2-095.
    KeyExists = 105,
    /// V2-098.
    RootReadOnly = 107,
    /// V2-099.
    DirectoryNotEmpty = 108,
    /// V2-101.
    Unauthorized = 110,
    /// V2-103.
    PreviousValueRequired = 201,
    /// V2-104.
    TtlNotNumber = 202,
    /// V2-105.
    IndexNotNumber = 203,
    /// V2-111.
    InvalidField = 209,
    /// V2-112.
    InvalidForm = 210,
    /// V2-113.
    ValueOnRefresh = 211,
    /// V2-114.
    RefreshWithoutTtl = 212,
    /// V2-096.
    RaftInternal = 300,
    /// V2-117.
    EventIndexCleared = 401,
}

impl Code {
    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The text.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::CompareFailed => "Compare failed",
            Self::NotFile => "Not a file",
            Self::NotDirectory => "Not a directory",
            Self::KeyExists => "Key already exists",
            Self::RootReadOnly => "Root is read only",
            Self::DirectoryNotEmpty => "Directory not empty",
            Self::Unauthorized => "The request requires user authentication",
            Self::PreviousValueRequired => "PrevValue is Required in POST form",
            Self::TtlNotNumber => "The given TTL in POST form is not a number",
            Self::IndexNotNumber => "The given index in POST form is not a number",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::ValueOnRefresh => "Value provided on refresh",
            Self::RefreshWithoutTtl => "A TTL must be provided on refresh",
            Self::RaftInternal => "Raft Internal Error",
            Self::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }

    /// The status of the HTTP answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::KeyNotFound => 404,
            Self::NotFile | Self::DirectoryNotEmpty => 403,
            Self::Unauthorized => 401,
            Self::CompareFailed | Self::KeyExists => 412,
            Self::RaftInternal => 500,
            Self::NotDirectory
            | Self::RootReadOnly
            | Self::PreviousValueRequired
            | Self::TtlNotNumber
            | Self::IndexNotNumber
            | Self::InvalidField
            | Self::InvalidForm
            | Self::ValueOnRefresh
            | Self::RefreshWithoutTtl
            | Self::EventIndexCleared => 400,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} ({cause})", code.message())]
pub struct Error {
    /// What is wrong.
    pub code: Code,
    /// With what; mostly a path, with the namespace.
    pub cause: String,
    /// The index of the store then; 0 for a request that never reached it.
    pub index: u64,
}

impl Error {
    /// A refusal of a request that did not reach the store.
    #[must_use]
    pub fn of_request(code: Code, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), index: 0 }
    }

    /// The body of the answer, with a newline at the end; keys without the users' namespace.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(128);
        text.extend_from_slice(b"{\"errorCode\":");
        text.extend_from_slice(self.code.number().to_string().as_bytes());
        text.extend_from_slice(b",\"message\":");
        json::string(self.code.message(), &mut text);
        let cause = self.cause.strip_prefix(crate::KEYS).unwrap_or(&self.cause);
        if !cause.is_empty() {
            text.extend_from_slice(b",\"cause\":");
            json::string(cause, &mut text);
        }
        text.extend_from_slice(b",\"index\":");
        text.extend_from_slice(self.index.to_string().as_bytes());
        text.extend_from_slice(b"}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-050, V2-090.
    #[test]
    fn bodies_are_as_etcd_writes_them() {
        let error =
            Error { code: Code::CompareFailed, cause: "[two != one]".to_owned(), index: 15 };
        assert_eq!(
            error.to_json(),
            b"{\"errorCode\":101,\"message\":\"Compare failed\",\"cause\":\"[two != one]\",\
              \"index\":15}\n"
        );
        let error = Error { code: Code::KeyNotFound, cause: "/1/a".to_owned(), index: 3 };
        assert_eq!(
            error.to_json(),
            b"{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\",\"index\":3}\n"
        );
        let error = Error { code: Code::NotFile, cause: "/1".to_owned(), index: 3 };
        assert_eq!(
            error.to_json(),
            b"{\"errorCode\":102,\"message\":\"Not a file\",\"index\":3}\n"
        );
    }
}
