//! Turns `proto/*.proto` into `crates/proto/src/generated/*.rs`, without protoc.
//!
//! The result is committed, so that a plain build runs no generator; `--check` tells whether it is
//! current.

use std::fs;

use anyhow::{Context, bail};
use prost::Message as _;

const FILES: [&str; 13] = [
    "mvccpb.proto",
    "authpb.proto",
    "rpc.proto",
    "leasepb.proto",
    "membershippb.proto",
    "etcdserverpb_internal.proto",
    "raftpb.proto",
    "walpb.proto",
    "snappb.proto",
    "v2pb.proto",
    "health.proto",
    "v3lockpb.proto",
    "v3electionpb.proto",
];

/// Generates, or with `check` compares with what is committed.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = crate::root();
    let staged = root.join("target/codegen");
    fs::create_dir_all(&staged)?;
    for entry in fs::read_dir(&staged)? {
        fs::remove_file(entry?.path())?;
    }

    let descriptors = protox::compile(FILES, [root.join("proto")]).context("compiling proto/")?;
    fs::write(staged.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .out_dir(&staged)
        .compile_fds(descriptors)
        .context("generating Rust")?;
    let target = root.join("crates/proto/src/generated");
    let mut stale = Vec::new();
    for entry in fs::read_dir(&staged)? {
        let path = entry?.path();
        let name = path.file_name().context("a generated file has a name")?.to_owned();
        let fresh = fs::read(&path)?;
        let committed = target.join(&name);
        if fs::read(&committed).ok().as_deref() == Some(&fresh) {
            continue;
        }
        if check {
            stale.push(name);
        } else {
            fs::create_dir_all(&target)?;
            fs::write(&committed, fresh)?;
        }
    }
    if !stale.is_empty() {
        bail!("generated code is not current: {stale:?}; run `cargo xtask codegen`");
    }
    Ok(())
}
