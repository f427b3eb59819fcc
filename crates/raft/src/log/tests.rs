//! Facts about the log that no whole cluster is needed for.
