//! Turns `proto/*.proto` into `crates/proto/src/generated/*.rs`, without protoc, and with
//! `proto/http_rules.txt` into the documents of the JSON gateway in `docs/api`.
//!
//! The result is committed, so that a plain build runs no generator; `--check` tells whether it is
//! current.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use prost::Message as _;
use prost_reflect::DescriptorPool;

use crate::openapi;

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
    emptied(&staged)?;
    let documents = root.join("target/codegen-api");
    emptied(&documents)?;

    let descriptors = protox::compile(FILES, [root.join("proto")]).context("compiling proto/")?;
    let encoded = descriptors.encode_to_vec();
    fs::write(staged.join("descriptors.bin"), &encoded)?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .out_dir(&staged)
        .compile_fds(descriptors)
        .context("generating Rust")?;
    let rules = fs::read_to_string(root.join("proto/http_rules.txt"))?;
    let rules = openapi::rules(&rules)?;
    fs::write(staged.join("http_rules.rs"), openapi::rust(&rules))?;
    let pool = DescriptorPool::decode(&encoded[..])?;
    for (name, text) in openapi::documents(&pool, &rules)? {
        fs::write(documents.join(name), text)?;
    }

    let mut stale = put(&staged, &root.join("crates/proto/src/generated"), check)?;
    stale.extend(put(&documents, &root.join("docs/api"), check)?);
    if !stale.is_empty() {
        bail!("generated code is not current: {stale:?}; run `cargo xtask codegen`");
    }
    Ok(())
}

/// Makes a folder, or takes its files away.
fn emptied(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Puts what was generated in its place, or with `check` names what differs from it.
fn put(staged: &Path, target: &Path, check: bool) -> anyhow::Result<Vec<OsString>> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(staged)? {
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
            fs::create_dir_all(target)?;
            fs::write(&committed, fresh)?;
        }
    }
    Ok(stale)
}
