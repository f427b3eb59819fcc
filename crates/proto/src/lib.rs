//! Generated messages of etcd's client API, peer protocol and log.
//!
//! Nothing else: the `.proto` files in `proto/` are the source, `cargo xtask codegen` makes
//! `src/generated/`, and CI checks that the two agree. Byte fields are [`bytes::Bytes`], so that a
//! key or a value is never copied on its way through the server.

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            rustdoc::all,
            clippy::all,
            clippy::pedantic,
            clippy::restriction,
            clippy::allow_attributes_without_reason,
            unreachable_pub,
            missing_debug_implementations,
            unused_qualifications,
            elided_lifetimes_in_paths,
            reason = "generated"
        )]
        pub mod $name {
            include!(concat!("generated/", $file));
        }
    };
}

generated!(
    /// Rows of the key space.
    mvccpb, "mvccpb.rs");
generated!(
    /// Users, roles, permissions.
    authpb, "authpb.rs");
generated!(
    /// The client API and the payload of log entries.
    etcdserverpb, "etcdserverpb.rs");
generated!(
    /// Stored leases.
    leasepb, "leasepb.rs");
generated!(
    /// Membership facts in the log.
    membershippb, "membershippb.rs");
generated!(
    /// Consensus messages, log entries, hard state.
    raftpb, "raftpb.rs");
generated!(
    /// Records of the write-ahead log.
    walpb, "walpb.rs");
generated!(
    /// Frame of a snapshot file.
    snappb, "snappb.rs");
generated!(
    /// Requests of the v2 generation in old logs.
    v2pb, "v2pb.rs");
generated!(
    /// gRPC's health service.
    health, "grpc.health.v1.rs");
generated!(
    /// Named locks.
    v3lockpb, "v3lockpb.rs");
generated!(
    /// Named elections.
    v3electionpb, "v3electionpb.rs");

/// The descriptors of every message and service, for reflection and the JSON gateway.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// The JSON gateway: the path behind `/v3/` and the call that it stands for, in order of the path.
pub const HTTP_RULES: &[(&str, &str)] = &include!("generated/http_rules.rs");
