//! The dialect of the second generation beside etcd 3.4's own tool: the same command lines against
//! two fresh members of etcd 3.4, line by line, must print the same and leave with the same code.
//!
//! `REAL_ETCD_34` names a folder with `etcd` and `etcdctl` 3.4.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::server::Server;

/// CTL2-02 to CTL2-57; words in double quotes may have spaces, behind `<` stands the input.
const SCRIPT: &str = r#"
set key "Hello world"
set /key value
get key
get --quorum key
-o extended get key
-o json get key
--output foo get key
get nothing
set --ttl 1000 t x
set key new --swap-with-value bad
set --swap-with-value value key new
set --swap-with-index 1 key new
mk key x
mk made x
mk -in-order queue job
update key newer
update nothing x
mkdir dir
mkdir dir
setdir dir2
setdir dir2
updatedir dir2
updatedir nothing
get dir
ls --sort
ls --sort --recursive -p
ls dir
ls key
ls nothing
rm key
rm dir
rm --dir dir
rmdir dir2
rmdir queue
rm --recursive queue
rm nothing
set
get
set novalue
set fromstdin < piped
get fromstdin
set -- dash -5
get dash
watch --after-index 3 key
watch --recursive --after-index 3 /
cluster-health
member list
member add
member remove zz
nocmd
--endpoints http://127.0.0.1:1 get key
--endpoints http://127.0.0.1:1 cluster-health
"#;

fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

fn run(program: &Path, server: &Server, line: &str) -> String {
    let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
    let endpoint = format!("http://127.0.0.1:{}", server.client_port);
    let mut child = Command::new(program)
        .args(split(line))
        .env("ETCDCTL_API", "2")
        .env("ETCDCTL_ENDPOINTS", &endpoint)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let said = format!("{stdout}[stderr]\n{stderr}[code] {:?}\n", output.status.code());
    let said = said.replace(&server.client_port.to_string(), "CLIENT");
    hide_ids(&said.replace(&server.peer_port.to_string(), "PEER"))
}

/// Words of hexadecimal digits that are long enough for an id.
fn hide_ids(text: &str) -> String {
    let is_id = |word: &str| 12 < word.len() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = |word: &str| if is_id(word) { "ID".to_owned() } else { word.to_owned() };
    let lines = text.split('\n').map(|line| {
        line.split_inclusive([' ', ':']).map(|word| {
            let bare = word.trim_end_matches([' ', ':']);
            format!("{}{}", shown(bare), &word[bare.len()..])
        })
    });
    lines.map(Iterator::collect).collect::<Vec<String>>().join("\n")
}

#[test]
fn command_lines_print_what_etcds_own_prints() {
    let Some(folder) = std::env::var_os("REAL_ETCD_34").map(PathBuf::from) else {
        println!("skipped: REAL_ETCD_34 is not set");
        return;
    };
    let start = || Server::start_with(&folder.join("etcd"), &["--enable-v2", "--logger", "zap"]);
    let (left, right) = (start(), start());
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_etcdctl"));
    let mut differences = Vec::new();
    for line in SCRIPT.lines().filter(|line| !line.is_empty()) {
        let (ours, theirs) = (run(&ours, &left, line), run(&folder.join("etcdctl"), &right, line));
        if ours != theirs {
            differences.push(format!("== {line}\n-- ours\n{ours}-- etcd\n{theirs}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}
