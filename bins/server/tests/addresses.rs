//! Clusters set up as documents tell it, at the addresses they give, in a network of this test
//! alone.
//!
//! Each test starts its own program again behind `unshare --net` and gives that network's loopback
//! interface the addresses; names are asked of this host in there. Where the machine does not allow
//! that, the test says so and passes.

#[path = "own_network/names.rs"]
mod names;
mod own_network;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use client::Client;
use own_network::{Members, enter};
use proto::etcdserverpb as pb;
use retcd_conformance::real_etcd;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long anything may take that is expected to happen, whatever else the machine does.
const TIME_MAX: Duration = Duration::from_secs(120);

fn logs(folder: &Path) -> String {
    let mut all = String::new();
    for name in ["0.log", "1.log", "2.log"] {
        all += &std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    }
    all
}

/// Asks until it is answered.
async fn ask<T>(
    folder: &Path,
    request: impl AsyncFn() -> Result<T, client::Error>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) if TIME_MAX < began.elapsed() => {
                bail!("{error}:\n{}", logs(folder));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Writes at one member, reads at every other, and looks who they are.
async fn assert_cluster(
    folder: &Path,
    endpoints: &[String],
    cluster_id: u64,
    expected: &[(u64, &str, String, String)],
) -> anyhow::Result<()> {
    let key = Bytes::from_static(b"name1");
    for (number, endpoint) in endpoints.iter().enumerate() {
        let client = Client::connect(client::Options::new(vec![endpoint.clone()])).await?;
        let value = Bytes::from(format!("batman{number}"));
        let put = pb::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
        ask(folder, async || client.put(put.clone()).await).await?;
        for other in endpoints {
            let client = Client::connect(client::Options::new(vec![other.clone()])).await?;
            let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
            let found = ask(folder, async || client.get(get.clone()).await).await?;
            ensure!(found.kvs.first().map(|kv| &kv.value) == Some(&value), "{other}: {found:?}");
            ensure!(found.header.is_some_and(|it| it.cluster_id == cluster_id), "{found:?}");
        }
    }
    let client = Client::connect(client::Options::new(endpoints.to_vec())).await?;
    let list = pb::MemberListRequest { linearizable: true };
    let began = Instant::now();
    loop {
        let members = ask(folder, async || client.member_list(list).await).await?.members;
        let mut found: Vec<_> = members
            .iter()
            .map(|it| (it.id, it.name.as_str(), it.peer_ur_ls.join(","), it.client_ur_ls.join(",")))
            .collect();
        found.sort();
        if found == expected {
            return Ok(());
        }
        // The last one may still be about to say its name.
        ensure!(began.elapsed() < TIME_MAX, "{found:?}:\n{}", logs(folder));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// SEED1-04: three machines, each with its file of environment variables.
fn environment_file(name: &str, ip: &str, data_dir: &Path) -> String {
    format!(
        "#[Member]\n\
         ETCD_NAME=\"{name}\"\n\
         ETCD_DATA_DIR=\"{}\"\n\
         ETCD_LISTEN_PEER_URLS=\"http://{ip}:2380\"\n\
         ETCD_LISTEN_CLIENT_URLS=\"http://{ip}:2379,http://127.0.0.1:2379\"\n\
         \n\
         #[Clustering]\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://{ip}:2380\"\n\
         ETCD_ADVERTISE_CLIENT_URLS=\"http://{ip}:2379\"\n\
         ETCD_INITIAL_CLUSTER=\"master=http://172.20.10.11:2380,node1=http://172.20.10.12:2380,\
         node2=http://172.20.10.13:2380\"\n\
         ETCD_INITIAL_CLUSTER_TOKEN=\"etcd-cluster\"\n\
         ETCD_INITIAL_CLUSTER_STATE=\"new\"\n",
        data_dir.display()
    )
}

/// A command with the variables of a file, read as systemd reads an `EnvironmentFile`.
fn with_environment(program: &Path, file: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.split_once('=') {
            command.env(name, value.trim_matches('"'));
        }
    }
    command
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// SEED1-04, SEEDX-03, CB-04. The loopback address, which is the same for each of the three
/// machines, is only the first one's here, where they share an interface.
#[test]
fn three_environment_files_make_a_cluster() -> anyhow::Result<()> {
    let hosts = [
        ("master", "172.20.10.11", 0xab28_1e9b_688c_7a95),
        ("node1", "172.20.10.12", 0xe0a8_f342_d377_2435),
        ("node2", "172.20.10.13", 0x8fc2_ab3b_1280_06d2),
    ];
    let test = "three_environment_files_make_a_cluster";
    if !enter(test, &hosts.map(|(_, ip, _)| ip))? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    for (number, (name, ip, _)) in hosts.iter().enumerate() {
        let mut file = environment_file(name, ip, &folder.path().join(name));
        if number > 0 {
            file = file.replace(",http://127.0.0.1:2379", "");
        }
        let command = with_environment(Path::new(OURS), &file);
        members.start(command, &folder.path().join(format!("{number}.log")))?;
    }
    let mut expected: Vec<_> = hosts
        .iter()
        .map(|(name, ip, id)| {
            (*id, *name, format!("http://{ip}:2380"), format!("http://{ip}:2379"))
        })
        .collect();
    expected.sort();
    let mut endpoints: Vec<String> =
        hosts.iter().map(|(_, ip, _)| format!("http://{ip}:2379")).collect();
    endpoints.push("http://127.0.0.1:2379".to_owned());
    let cluster = 0xf7f5_17c0_9893_2dae;
    runtime()?.block_on(assert_cluster(folder.path(), &endpoints, cluster, &expected))
}

const DIDI: [(&str, &str, u64); 3] = [
    ("etcd-1", "10.255.1.211", 0xe95f_fbf9_9d4a_ae9c),
    ("etcd-2", "10.255.1.40", 0x0dc6_b4b4_8ae0_0bf8),
    ("etcd-3", "10.255.1.181", 0xd602_0117_e8a2_dc38),
];

const DIDI_CLUSTER: &str = "etcd-1=http://10.255.1.211:2380,etcd-2=http://10.255.1.40:2380,etcd-3=http://10.255.1.181:2380";

/// SEED4-04: the line for each host.
fn with_flags(program: &Path, name: &str, ip: &str, loopback: bool) -> Command {
    let mut command = Command::new(program);
    let clients = format!("http://{ip}:2379");
    let listen =
        if loopback { format!("{clients},http://127.0.0.1:2379") } else { clients.clone() };
    let peer = format!("http://{ip}:2380");
    command
        .env_clear()
        .args(["--name", name, "--initial-advertise-peer-urls", &peer])
        .args(["--listen-peer-urls", &peer, "--listen-client-urls", &listen])
        .args(["--advertise-client-urls", &clients])
        .args(["--initial-cluster-token", "etcd-cluster-on-didicloud"])
        .args(["--initial-cluster", DIDI_CLUSTER, "--initial-cluster-state", "new"]);
    command
}

/// Runs the three hosts, the last one as another program if there is one.
fn three_hosts(variables: bool, other: Option<&Path>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    for (number, (name, ip, _)) in DIDI.iter().enumerate() {
        let program = other.filter(|_| number == 2).unwrap_or_else(|| Path::new(OURS));
        let mut command = with_flags(program, name, ip, number == 0);
        if variables {
            // SEED4-03 says the same of the cluster in variables.
            let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = Command::new(program);
            command.env_clear();
            for pair in given.chunks(2) {
                let [name, value] = pair else { bail!("{given:?} are no pairs") };
                let name = name.to_str().context("a flag")?.trim_start_matches("--");
                let name = format!("ETCD_{}", name.replace('-', "_").to_uppercase());
                command.env(name, value);
            }
        }
        // As `cd` into a folder of its own: the data directory is the default one there.
        let place = folder.path().join(name);
        std::fs::create_dir(&place)?;
        command.current_dir(place);
        members.start(command, &folder.path().join(format!("{number}.log")))?;
    }
    let mut expected: Vec<_> = DIDI
        .iter()
        .map(|(name, ip, id)| {
            (*id, *name, format!("http://{ip}:2380"), format!("http://{ip}:2379"))
        })
        .collect();
    expected.sort();
    let endpoints: Vec<String> =
        DIDI.iter().map(|(_, ip, _)| format!("http://{ip}:2379")).collect();
    let cluster = 0xce96_4c3a_01e6_3d53;
    runtime()?.block_on(assert_cluster(folder.path(), &endpoints, cluster, &expected))
}

/// SEED4-04, SEED4-06, CB-04.
#[test]
fn three_command_lines_make_a_cluster() -> anyhow::Result<()> {
    if enter("three_command_lines_make_a_cluster", &DIDI.map(|(_, ip, _)| ip))? {
        three_hosts(false, None)?;
    }
    Ok(())
}

/// SEED4-03.
#[test]
fn three_environments_make_a_cluster() -> anyhow::Result<()> {
    if enter("three_environments_make_a_cluster", &DIDI.map(|(_, ip, _)| ip))? {
        three_hosts(true, None)?;
    }
    Ok(())
}

/// SEED4-04 with a member of etcd 3.5 among them: it comes to the same ids.
#[test]
fn command_lines_make_a_cluster_with_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    if enter("command_lines_make_a_cluster_with_etcd", &DIDI.map(|(_, ip, _)| ip))? {
        three_hosts(false, Some(&real.join("etcd")))?;
    }
    Ok(())
}

const DOMAIN: &str = "srv.test";

/// The members' ports; their names are `m0`, `m1` and `m2` in the domain, all of this host.
const PORTS: [u16; 3] = [12380, 22380, 32380];

/// Serves the names of the members, with TLS, for the rest of the process.
fn serve_names() -> anyhow::Result<()> {
    let members = PORTS.into_iter().enumerate();
    let members = members.map(|(number, port)| (format!("m{number}"), port)).collect();
    names::serve(DOMAIN, vec![("_etcd-server-ssl._tcp".to_owned(), members)])
}

/// SRV-193, CB-20, CB-72: members find each other in DNS, and know each other by certificates that
/// carry nothing but names. One of them is etcd's, if it is there.
#[test]
fn names_and_their_certificates_make_a_cluster() -> anyhow::Result<()> {
    if !enter("names_and_their_certificates_make_a_cluster", &[])? {
        return Ok(());
    }
    serve_names()?;
    let folder = tempfile::tempdir()?;
    let authority = certificates::Authority::new("authority");
    let ca = certificates::write(folder.path(), "ca.pem", authority.certificate());
    let real = real_etcd("3.5").map(|folder| folder.join("etcd"));
    let mut members = Members::default();
    let mut endpoints = Vec::new();
    for (number, port) in PORTS.into_iter().enumerate() {
        let name = format!("m{number}.{DOMAIN}");
        let holder = certificates::Holder::new("member", &[name.as_str()]);
        let (cert, key) = authority.issue(&holder).write(folder.path(), &name);
        let program = real.as_deref().filter(|_| number == 2);
        let mut command = Command::new(program.unwrap_or_else(|| Path::new(OURS)));
        let client = format!("http://127.0.0.1:{}", port - 1);
        command
            .env_clear()
            .args(["--name", &name, "--data-dir"])
            .arg(folder.path().join(format!("data{number}")))
            .args(["--discovery-srv", DOMAIN, "--initial-cluster-token", "names"])
            .arg(format!("--initial-advertise-peer-urls=https://{name}:{port}"))
            .arg(format!("--listen-peer-urls=https://127.0.0.1:{port}"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .arg("--peer-client-cert-auth")
            .arg("--peer-cert-file")
            .arg(cert)
            .arg("--peer-key-file")
            .arg(key)
            .arg("--peer-trusted-ca-file")
            .arg(&ca);
        members.start(command, &folder.path().join(format!("{number}.log")))?;
        endpoints.push(client);
    }
    runtime()?.block_on(async {
        let client = Client::connect(client::Options::new(endpoints[..1].to_vec())).await?;
        let header = ask(folder.path(), async || client.status(pb::StatusRequest {}).await).await?;
        let cluster = header.header.context("a header")?.cluster_id;
        let list = pb::MemberListRequest { linearizable: true };
        let mut members =
            ask(folder.path(), async || client.member_list(list).await).await?.members;
        members.sort_by(|a, b| a.peer_ur_ls.cmp(&b.peer_ur_ls));
        ensure!(members.len() == 3, "{members:?}");
        let mut expected = Vec::new();
        let names = ["m0.srv.test", "m1.srv.test", "m2.srv.test"];
        for (number, member) in members.iter().enumerate() {
            let peer = format!("https://{}:{}", names[number], PORTS[number]);
            expected.push((member.id, names[number], peer, endpoints[number].clone()));
        }
        expected.sort();
        assert_cluster(folder.path(), &endpoints, cluster, &expected).await
    })
}
