//! Errors as clients of the second generation see them: a code, its text and status.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2error/error.go.

use crate::json;

/// What went wrong; the numbers are known to clients. Some are never sent, neither by etcd 3.4 nor
/// by this store: clients that know them from older servers find their text and status here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// V2-090.
    KeyNotFound = 100,
    /// V2-091.
    CompareFailed = 101,
    /// V2-092.
    NotFile = 102,
    /// V2-093, never sent.
    NoMorePeers = 103,
    /// V2-094.
    NotDirectory = 104,
    /// V2-095.
    KeyExists = 105,
    /// V2-097, never sent.
    KeyIsReserved = 106,
    /// V2-098.
    RootReadOnly = 107,
    /// V2-099.
    DirectoryNotEmpty = 108,
    /// V2-100, never sent.
    PeerAddressExists = 109,
    /// V2-101.
    Unauthorized = 110,
    /// V2-102, never sent.
    ValueRequired = 200,
    /// V2-103.
    PreviousValueRequired = 201,
    /// V2-104.
    TtlNotNumber = 202,
    /// V2-105.
    IndexNotNumber = 203,
    /// V2-106, never sent.
    ValueOrTtlRequired = 204,
    /// V2-107, never sent.
    TimeoutNotNumber = 205,
    /// V2-108, never sent.
    NameRequired = 206,
    /// V2-109, never sent.
    IndexOrValueRequired = 207,
    /// V2-110, never sent.
    IndexAndValue = 208,
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
    /// V2-115, never sent.
    LeaderElection = 301,
    /// V2-116, never sent: the watcher is closed without a word.
    WatcherCleared = 400,
    /// V2-117.
    EventIndexCleared = 401,
    /// V2-118, never sent.
    StandbyInternal = 402,
    /// V2-119, never sent.
    InvalidActiveSize = 403,
    /// V2-120, never sent.
    StandbyRemoveDelay = 404,
    /// V2-121, never sent.
    ClientInternal = 500,
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
            Self::NoMorePeers => "Reached the max number of peers in the cluster",
            Self::NotDirectory => "Not a directory",
            Self::KeyExists => "Key already exists",
            Self::KeyIsReserved => "The prefix of given key is a keyword in etcd",
            Self::RootReadOnly => "Root is read only",
            Self::DirectoryNotEmpty => "Directory not empty",
            Self::PeerAddressExists => "Peer address has existed",
            Self::Unauthorized => "The request requires user authentication",
            Self::ValueRequired => "Value is Required in POST form",
            Self::PreviousValueRequired => "PrevValue is Required in POST form",
            Self::TtlNotNumber => "The given TTL in POST form is not a number",
            Self::IndexNotNumber => "The given index in POST form is not a number",
            Self::ValueOrTtlRequired => "Value or TTL is required in POST form",
            Self::TimeoutNotNumber => "The given timeout in POST form is not a number",
            Self::NameRequired => "Name is required in POST form",
            Self::IndexOrValueRequired => "Index or value is required",
            Self::IndexAndValue => "Index and value cannot both be specified",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::ValueOnRefresh => "Value provided on refresh",
            Self::RefreshWithoutTtl => "A TTL must be provided on refresh",
            Self::RaftInternal => "Raft Internal Error",
            Self::LeaderElection => "During Leader Election",
            Self::WatcherCleared => "watcher is cleared due to etcd recovery",
            Self::EventIndexCleared => "The event in requested index is outdated and cleared",
            Self::StandbyInternal => "Standby Internal Error",
            Self::InvalidActiveSize => "Invalid active size",
            Self::StandbyRemoveDelay => "Standby remove delay",
            Self::ClientInternal => "Client Internal Error",
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
            Self::RaftInternal | Self::LeaderElection => 500,
            Self::NoMorePeers
            | Self::NotDirectory
            | Self::KeyIsReserved
            | Self::RootReadOnly
            | Self::PeerAddressExists
            | Self::ValueRequired
            | Self::PreviousValueRequired
            | Self::TtlNotNumber
            | Self::IndexNotNumber
            | Self::ValueOrTtlRequired
            | Self::TimeoutNotNumber
            | Self::NameRequired
            | Self::IndexOrValueRequired
            | Self::IndexAndValue
            | Self::InvalidField
            | Self::InvalidForm
            | Self::ValueOnRefresh
            | Self::RefreshWithoutTtl
            | Self::WatcherCleared
            | Self::EventIndexCleared
            | Self::StandbyInternal
            | Self::InvalidActiveSize
            | Self::StandbyRemoveDelay
            | Self::ClientInternal => 400,
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

    /// V2-090 to V2-121.
    #[test]
    fn numbers_texts_and_statuses_are_etcds() {
        let table = [
            (Code::KeyNotFound, 100, "Key not found", 404),
            (Code::CompareFailed, 101, "Compare failed", 412),
            (Code::NotFile, 102, "Not a file", 403),
            (Code::NoMorePeers, 103, "Reached the max number of peers in the cluster", 400),
            (Code::NotDirectory, 104, "Not a directory", 400),
            (Code::KeyExists, 105, "Key already exists", 412),
            (Code::KeyIsReserved, 106, "The prefix of given key is a keyword in etcd", 400),
            (Code::RootReadOnly, 107, "Root is read only", 400),
            (Code::DirectoryNotEmpty, 108, "Directory not empty", 403),
            (Code::PeerAddressExists, 109, "Peer address has existed", 400),
            (Code::Unauthorized, 110, "The request requires user authentication", 401),
            (Code::ValueRequired, 200, "Value is Required in POST form", 400),
            (Code::PreviousValueRequired, 201, "PrevValue is Required in POST form", 400),
            (Code::TtlNotNumber, 202, "The given TTL in POST form is not a number", 400),
            (Code::IndexNotNumber, 203, "The given index in POST form is not a number", 400),
            (Code::ValueOrTtlRequired, 204, "Value or TTL is required in POST form", 400),
            (Code::TimeoutNotNumber, 205, "The given timeout in POST form is not a number", 400),
            (Code::NameRequired, 206, "Name is required in POST form", 400),
            (Code::IndexOrValueRequired, 207, "Index or value is required", 400),
            (Code::IndexAndValue, 208, "Index and value cannot both be specified", 400),
            (Code::InvalidField, 209, "Invalid field", 400),
            (Code::InvalidForm, 210, "Invalid POST form", 400),
            (Code::ValueOnRefresh, 211, "Value provided on refresh", 400),
            (Code::RefreshWithoutTtl, 212, "A TTL must be provided on refresh", 400),
            (Code::RaftInternal, 300, "Raft Internal Error", 500),
            (Code::LeaderElection, 301, "During Leader Election", 500),
            (Code::WatcherCleared, 400, "watcher is cleared due to etcd recovery", 400),
            (
                Code::EventIndexCleared,
                401,
                "The event in requested index is outdated and cleared",
                400,
            ),
            (Code::StandbyInternal, 402, "Standby Internal Error", 400),
            (Code::InvalidActiveSize, 403, "Invalid active size", 400),
            (Code::StandbyRemoveDelay, 404, "Standby remove delay", 400),
            (Code::ClientInternal, 500, "Client Internal Error", 400),
        ];
        for (code, number, message, status) in table {
            assert_eq!((code.number(), code.message(), code.status()), (number, message, status));
        }
    }
}
