//! One TLS policy for every listener and dialer.
