//! Any bytes as a log segment: refused or read, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfs::{Dir as _, Open, memory::MemoryDir};

fuzz_target!(|bytes: &[u8]| {
    let parent = MemoryDir::new().shared();
    let dir = parent.subdir("wal").expect("a memory disk takes a folder");
    let name = "0000000000000000-0000000000000000.wal";
    let file = dir.open(name, Open::Create).expect("a memory disk takes a file");
    file.write_at(bytes, 0).expect("a memory disk takes bytes");
    drop(wal::read(&*parent, "wal", |marks| marks.last().cloned()));
});
