//! What of the second generation's dialect needs servers or files of its own: TLS, imports, and a
//! cluster of several members.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use certificates::{Authority, Holder, write};
use support::server::Server;
use support::v2::{PATIENTLY, ours, server_program};

/// Both outputs and the exit code.
fn run(program: &Path, folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> String {
    let output = Command::new(program)
        .args(PATIENTLY)
        .args(words)
        .env_clear()
        .env("ETCDCTL_API", "2")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    format!("{stdout}[stderr] {stderr}[code] {:?}", output.status.code())
}

fn oracle() -> Option<PathBuf> {
    let folder = std::env::var_os("REAL_ETCD_34").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: REAL_ETCD_34 is not set");
    }
    Some(folder?.join("etcdctl"))
}

/// CTL2-04, SEED0-62 and SEED2-07 (certificates of clients are checked).
#[test]
fn flags_of_tls_lead_where_etcds_lead() {
    let (Some(program), folder) = (server_program(), tempfile::tempdir().unwrap()) else { return };
    let path = folder.path();
    let authority = Authority::new("authority");
    write(path, "ca.pem", authority.certificate());
    write(path, "other-ca.pem", Authority::new("other").certificate());
    let (cert, key) = authority.issue(&Holder::new("server", &["127.0.0.1"])).write(path, "server");
    let _client = authority.issue(&Holder::new("client", &[])).write(path, "client");
    let secure = format!("https://{}", ports::free_address().unwrap());
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let ca = path.join("ca.pem").display().to_string();
    let flags = [
        "--listen-client-urls",
        &secure,
        "--advertise-client-urls",
        &secure,
        "--cert-file",
        &cert,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
        "--client-cert-auth",
    ];
    let _server = Server::start_with(&program, &flags);
    let all = ["--ca-file", "ca.pem", "--cert-file", "client.pem", "--key-file", "client-key.pem"];
    let variables = [
        ("ETCDCTL_CA_FILE", "ca.pem"),
        ("ETCDCTL_CERT_FILE", "client.pem"),
        ("ETCDCTL_KEY_FILE", "client-key.pem"),
        ("ETCDCTL_ENDPOINTS", secure.as_str()),
    ];
    let said = run(&ours(), path, &["set", "key", "value"], &variables);
    assert_eq!(said, "value\n[stderr] [code] Some(0)");
    let Some(oracle) = oracle() else { return };
    for words in [
        &[&all[..], &["get", "key"]].concat()[..],
        &[&all[..], &["cluster-health"]].concat(),
        &[&all[2..], &["--ca-file", "none.pem", "ls"]].concat(),
        &[&all[..4], &["ls"]].concat(),
    ] {
        let words = [&["--endpoints", &secure], words].concat();
        let said = [&ours(), &oracle].map(|program| run(program, path, &words, &[]));
        assert_eq!(said[0], said[1], "{words:?}");
    }
    // Other releases of Go put it in other words.
    for words in [&["--ca-file", "other-ca.pem", "ls"][..], &["ls"]] {
        let words = [&["--endpoints", &secure], words].concat();
        for program in [&ours(), &oracle] {
            let said = run(program, path, &words, &[]);
            assert!(said.contains("certificate signed by unknown authority"), "{said}");
            assert!(said.ends_with("[code] Some(4)"), "{said}");
        }
    }
}

/// `import`.
#[test]
fn snapshot_files_of_old_releases_are_imported() {
    let Some(program) = server_program() else { return };
    let server = Server::start(&program);
    let folder = server.folder.path();
    let leaf =
        |value: &str| format!("{{\"Value\":\"{value}\",\"ExpireTime\":\"0001-01-01T00:00:00Z\"}}");
    let tree = format!(
        "{{\"Root\":{{\"Path\":\"/\",\"Children\":{{\"a\":{{\"Children\":{{\"b\":{}}}}},\"c\":{},\
         \"_h\":{{\"Children\":{{\"x\":{}}}}}}}}}}}",
        leaf("1"),
        leaf("2"),
        leaf("3")
    );
    fs::write(folder.join("snapshot"), tree).unwrap();
    let endpoint = format!("http://127.0.0.1:{}", server.client_port);
    let tool = |words: &[&str]| run(&ours(), folder, words, &[("ETCDCTL_ENDPOINTS", &endpoint)]);
    let said = tool(&["import", "--snap", "snapshot", "--hidden", "/_h"]);
    assert!(said.starts_with("starting to import snapshot snapshot with 10 clients\n"), "{said}");
    assert!(said.contains("\nfinished importing 3 keys\n"), "{said}");
    assert!(said.contains("entering dir: /a") && said.contains("copying key: /c"), "{said}");
    assert_eq!(tool(&["ls", "-r", "--sort"]), "/a\n/a/b\n/c\n[stderr] [code] Some(0)");
    assert_eq!(tool(&["get", "/_h/x"]), "3\n[stderr] [code] Some(0)");
    let none = "no snapshot file provided (use --snap)\n[stderr] [code] Some(1)";
    assert_eq!(tool(&["import"]), none);
    let none = "cannot read snapshot file none\n[stderr] [code] Some(1)";
    assert_eq!(tool(&["import", "--snap", "none"]), none);
}

/// CTL2-51.
#[test]
fn members_that_do_not_answer_are_told() {
    let Some(program) = server_program() else { return };
    let address = ports::free_address().unwrap();
    // Before every other in the order that members keep them in.
    let none = "http://127.0.0.1:1".to_owned();
    let own = format!("http://{address}");
    for urls in [none.clone(), format!("{none},{own}")] {
        let flags = ["--listen-client-urls", &own, "--advertise-client-urls", &urls];
        let server = Server::start_with(&program, &flags);
        let folder = server.folder.path();
        let words = ["--endpoints", &own, "cluster-health"];
        let said = run(&ours(), folder, &words, &[]);
        let id = said.split(' ').nth(7).unwrap().to_owned();
        let failed = format!(
            "failed to check the health of member {id} on {none}: Get \"{none}/health\": dial tcp \
             {}: connect: connection refused\n",
            none.trim_start_matches("http://")
        );
        let expected = if urls == none {
            format!(
                "{failed}member {id} is unreachable: [{none}] are all unreachable\ncluster is \
                 unavailable\n[stderr] [code] Some(5)"
            )
        } else {
            format!(
                "{failed}member {id} is healthy: got healthy result from {own}\ncluster is \
                 healthy\n[stderr] [code] Some(0)"
            )
        };
        assert_eq!(said, expected);
        if let Some(oracle) = oracle() {
            assert_eq!(run(&oracle, folder, &words, &[]), expected);
        }
    }
}
