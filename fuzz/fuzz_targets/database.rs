//! Any bytes as a database file: refused or read, never a panic.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use vfs::{Dir as _, Open, memory::MemoryDir};

fuzz_target!(|bytes: &[u8]| {
    let dir = MemoryDir::new().shared();
    let file = dir.open("db", Open::Create).expect("a memory disk takes a file");
    file.write_at(bytes, 0).expect("a memory disk takes bytes");
    let Ok(database) = backend::ReadOnly::open(file, "db") else { return };
    drop(database.check());
    drop(database.scan_all(&mut |_, _, _| ControlFlow::Continue(())));
});
