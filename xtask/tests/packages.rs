//! The packages: what is in them, that the same programs give the same bytes, and that the Debian
//! package installs into a clean root where its service starts and its client puts and gets.
//!
//! They are made of the programs that stand beside the task, which a test run of the whole workspace
//! has built. What the machine cannot do (no programs, no dpkg, not root) is left out and said.

#![allow(clippy::print_stdout, reason = "a test tells what it left out")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use retcd_conformance::service::{self, Service};

const TASK: &str = env!("CARGO_BIN_EXE_xtask");

/// How long a service may take to start, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the packages are made of; `None`, and a note, where that is not there.
fn programs() -> Option<&'static Path> {
    let folder = Path::new(TASK).parent()?;
    let is_whole = ["etcd", "etcdctl", "etcdutl"].iter().all(|name| folder.join(name).is_file());
    if !is_whole {
        println!("skipped: the programs are not built; test the whole workspace");
        return None;
    }
    if !succeeds(Command::new("dpkg-deb").arg("--version")) {
        println!("skipped: there is no dpkg-deb");
        return None;
    }
    Some(folder)
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a command to its end; its standard output.
fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {complaint}", output.status);
    Ok(output.stdout)
}

/// The archive, the Debian package and the checksums of both.
struct Packages {
    archive: PathBuf,
    debian: PathBuf,
    sums: PathBuf,
}

/// Makes both in a folder.
fn make(programs: &Path, out: &Path) -> anyhow::Result<Packages> {
    let mut task = Command::new(TASK);
    task.arg("dist").arg("--programs").arg(programs).arg("--out").arg(out);
    let said = String::from_utf8(run(&mut task)?)?;
    let paths: Vec<_> = said.lines().map(PathBuf::from).collect();
    let [archive, debian, sums] = paths.try_into().ok().context("there are two packages")?;
    Ok(Packages { archive, debian, sums })
}

/// Made once for all tests; the folder is emptied by the next run.
fn packages(programs: &Path) -> &'static Packages {
    static MADE: OnceLock<Packages> = OnceLock::new();
    MADE.get_or_init(|| make(programs, &scratch("packages")).expect("packages"))
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("a folder of this test");
    }
    folder
}

/// What an archive says of a file, and its start: programs are big.
#[derive(Debug)]
struct Entry {
    mode: u32,
    start: Vec<u8>,
}

/// Entries by path; all are root's, in order, of one time.
fn entries(archive: impl std::io::Read) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut found = BTreeMap::new();
    let mut times = std::collections::BTreeSet::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let header = entry.header();
        let mode = header.mode()?;
        ensure!((header.uid()?, header.gid()?) == (0, 0), "{path} is not root's");
        ensure!(header.username()? == Some("root"), "{path} is not root's by name");
        times.insert(header.mtime()?);
        let is_folder = header.entry_type().is_dir();
        ensure!(!is_folder || mode & 0o7777 == 0o755, "{path}: {mode:o}");
        let mut start = Vec::new();
        entry.by_ref().take(64 << 10).read_to_end(&mut start)?;
        if !is_folder {
            found.insert(path, Entry { mode, start });
        }
    }
    ensure!(times.len() == 1, "several times: {times:?}");
    Ok(found)
}

/// The text of a compressed entry.
fn unzipped(entry: &Entry) -> anyhow::Result<String> {
    ensure!(entry.start[4..8] == [0; 4], "it holds the time of its making");
    let mut text = String::new();
    flate2::read::GzDecoder::new(entry.start.as_slice()).read_to_string(&mut text)?;
    Ok(text)
}

/// What a program's file says of the machine it is for, as packages name machines.
fn machine(program: &Entry) -> anyhow::Result<&'static str> {
    ensure!(program.start.starts_with(b"\x7fELF"), "no program");
    match program.start[18..20] {
        [62, 0] => Ok("amd64"),
        [183, 0] => Ok("arm64"),
        ref other => anyhow::bail!("a machine without packages: {other:?}"),
    }
}

/// SEED1-01: who takes a package by its name gets programs that run there.
#[test]
fn packages_are_for_the_machine_of_their_name() -> anyhow::Result<()> {
    let Some(programs) = programs() else { return Ok(()) };
    let Packages { archive, debian, .. } = packages(programs);
    let file = entries(flate2::read::GzDecoder::new(File::open(archive)?))?;
    let tar = run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(debian))?;
    let system = entries(tar.as_slice())?;
    let field = ["--field"].map(str::to_owned);
    let said = run(Command::new("dpkg-deb").args(field).arg(debian).arg("Architecture"))?;
    let said = String::from_utf8(said)?.trim().to_owned();
    let name = archive.file_name().and_then(|name| name.to_str()).context("it has a name")?;
    let found = file.iter().chain(&system).filter(|(path, _)| {
        ["/etcd", "/etcdctl", "/etcdutl"].iter().any(|end| path.ends_with(end))
    });
    let found: Vec<_> = found.filter(|(_, entry)| entry.mode & 0o111 != 0).collect();
    assert_eq!(found.len(), 6);
    for (path, program) in found {
        let machine = machine(program).with_context(|| path.clone())?;
        ensure!(name.ends_with(&format!("-linux-{machine}.tar.gz")), "{name}: {machine}");
        ensure!(said == machine, "{said} {machine}");
    }
    Ok(())
}

/// In the folder of documents.
const DOCUMENTS: [&str; 7] = [
    "copyright",
    "LICENSE",
    "LIBRARIES",
    "changelog.gz",
    "README",
    "dashboard.json",
    "alerts.yaml",
];

/// Issue 6, point 7; SEED0-01, SEED2-01: everything is in its place, with its mode.
#[test]
fn packages_hold_everything_with_its_mode() -> anyhow::Result<()> {
    let Some(programs) = programs() else { return Ok(()) };
    let Packages { archive, debian, .. } = packages(programs);

    let file = entries(flate2::read::GzDecoder::new(File::open(archive)?))?;
    let top = archive.file_name().and_then(|name| name.to_str()).context("it has a name")?;
    let top = top.strip_suffix(".tar.gz").context("it is compressed")?;
    // SEED0-01, SEED0-02.
    for program in ["etcd", "etcdctl", "etcdutl"] {
        let entry = &file[&format!("{top}/{program}")];
        ensure!(entry.mode == 0o755, "{program}: {:o}", entry.mode);
    }
    let plain = ["README.md", "etcd.service", "etcd.default", "LICENSE", "LIBRARIES.txt"];
    for name in plain.into_iter().chain(["completions/fish/etcdctl.fish"]) {
        ensure!(file[&format!("{top}/{name}")].mode == 0o644, "{name}");
    }

    let tar = run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(debian))?;
    let system = entries(tar.as_slice())?;
    let expected: BTreeMap<String, u32> = ["etcd", "etcdctl", "etcdutl"]
        .into_iter()
        .flat_map(|name| {
            [(format!("usr/bin/{name}"), 0o755), (format!("usr/share/man/man1/{name}.1.gz"), 0o644)]
        })
        .chain(["etcdctl", "etcdutl"].into_iter().flat_map(|tool| {
            [
                (format!("usr/share/bash-completion/completions/{tool}"), 0o644),
                (format!("usr/share/zsh/vendor-completions/_{tool}"), 0o644),
                (format!("usr/share/fish/vendor_completions.d/{tool}.fish"), 0o644),
            ]
        }))
        .chain(DOCUMENTS.map(|name| (format!("usr/share/doc/retcd/{name}"), 0o644)))
        .chain(
            ["etc/default/etcd", "usr/lib/systemd/system/etcd.service"]
                .map(|path| (path.to_owned(), 0o644)),
        )
        .collect();
    let found = system.iter().map(|(path, entry)| (path.clone(), entry.mode & 0o7777)).collect();
    assert_eq!(expected, found);
    for (program, word) in [
        ("etcd", "\\-\\-initial\\-cluster\\-state"),
        ("etcdctl", "make\\-mirror"),
        ("etcdutl", "hashkv"),
    ] {
        let page = unzipped(&system[&format!("usr/share/man/man1/{program}.1.gz")])?;
        ensure!(page.contains(&format!(".TH {} 1", program.to_uppercase())), "{program}");
        ensure!(page.contains(word), "no {word} in the page of {program}");
    }
    unzipped(&system["usr/share/doc/retcd/changelog.gz"])?;
    let about = run(Command::new("dpkg-deb").arg("--field").arg(debian))?;
    let about = String::from_utf8(about)?;
    for line in [
        "Package: retcd",
        "Conflicts: etcd-server, etcd-client",
        "Replaces: etcd-server, etcd-client",
        "Provides: etcd-server (= 3.7.1), etcd-client (= 3.7.1)",
        "Depends: libc6 (>= 2.",
    ] {
        ensure!(about.contains(line), "no {line} in {about}");
    }
    let tar = run(Command::new("dpkg-deb").arg("--ctrl-tarfile").arg(debian))?;
    let control = entries(tar.as_slice())?;
    ensure!(control["conffiles"].start == b"/etc/default/etcd\n");
    for script in ["postinst", "prerm", "postrm"] {
        ensure!(control[script].mode & 0o7777 == 0o755, "{script}");
    }
    Ok(())
}

/// Issue 6, point 7.
#[test]
fn same_programs_give_the_same_bytes() -> anyhow::Result<()> {
    let Some(programs) = programs() else { return Ok(()) };
    let first = packages(programs);
    let folder = scratch("packages-again");
    let second = make(programs, &folder)?;
    for (one, other) in [
        (&first.archive, &second.archive),
        (&first.debian, &second.debian),
        (&first.sums, &second.sums),
    ] {
        ensure!(one.file_name() == other.file_name());
        // Not shown when they differ: they are big.
        ensure!(fs::read(one)? == fs::read(other)?, "{} differs", one.display());
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// Issue 6, point 7: a copy can be checked, and what is in the programs is told with its licence.
#[test]
fn checksums_and_licences_are_told() -> anyhow::Result<()> {
    let Some(programs) = programs() else { return Ok(()) };
    let made = packages(programs);
    let folder = made.sums.parent().context("a file lies in a folder")?;
    let said = run(Command::new("sha256sum").arg("--check").arg(&made.sums).current_dir(folder))?;
    assert_eq!(String::from_utf8(said)?.matches(": OK").count(), 2);
    let tar = run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&made.debian))?;
    let mut system = tar::Archive::new(tar.as_slice());
    let mut text = String::new();
    for entry in system.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("usr/share/doc/retcd/LIBRARIES") {
            entry.read_to_string(&mut text)?;
        }
    }
    let tokio = text.split("\n\n").find(|about| about.starts_with("tokio 1."));
    let tokio = tokio.context("tokio is linked into the programs")?;
    let number = tokio.lines().find_map(|line| line.trim().strip_prefix("texts: "));
    let number = number.context("tokio's authors tell their licence")?;
    let (_, terms) = text.split_once(&format!("\nText {number}\n")).context("the text")?;
    ensure!(terms.trim_start().starts_with("MIT License\n\nCopyright (c) Tokio"), "{tokio}");
    for other in ["aws-lc-sys ", "libmimalloc-sys ", "the standard library of Rust 1."] {
        ensure!(text.contains(&format!("\n\n{other}")), "{other}");
    }
    // Neither what only builds or tests it, nor anything without a licence.
    for other in ["cc ", "tempfile ", "proptest "] {
        ensure!(!text.contains(&format!("\n\n{other}")), "{other}");
    }
    Ok(())
}

/// What the package's scripts and dpkg run in a root.
const TOOLS: [&str; 11] = [
    "sh", "getent", "groupadd", "useradd", "mkdir", "chmod", "chown", "rmdir", "rm", "tar", "true",
];

/// A root that has a shell, the tools, no package and no user but root.
fn clean_root(path: &Path) -> anyhow::Result<()> {
    for folder in
        ["etc", "run", "tmp", "dev", "usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates"]
    {
        fs::create_dir_all(path.join(folder))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    fs::write(path.join("var/lib/dpkg/status"), "")?;
    fs::write(path.join("var/lib/dpkg/available"), "")?;
    fs::write(path.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    fs::write(path.join("etc/group"), "root:x:0:\n")?;
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    for tool in TOOLS {
        let found = folders.iter().map(|folder| Path::new(folder).join(tool));
        let found = found.into_iter().find(|path| path.is_file());
        let found = found.with_context(|| format!("this machine has no {tool}"))?;
        service::copy(&found, &path.join("usr/bin").join(tool))?;
        service::copy_libraries(&found, path)?;
    }
    // The scripts name their shell by its older place.
    if !path.join("bin").exists() {
        std::os::unix::fs::symlink("usr/bin", path.join("bin"))?;
    }
    // Whatever this user's mask says.
    run(Command::new("chmod").args(["-R", "go+rX"]).arg(path)).map(drop)
}

/// The machine's dpkg on a root of its own.
fn dpkg(root: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("dpkg");
    // This machine's log tells of this machine.
    command.arg("--log=/dev/null");
    // What the package depends on was copied, not installed.
    command.arg(format!("--root={}", root.display())).args(["--force-depends", "--no-triggers"]);
    let output = run(command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // What is gone already needs no end.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Issue 6, point 7; SRV-150, SRV-160, SEED0-58, SEED3-02.
#[test]
fn debian_package_installs_and_its_service_serves() -> anyhow::Result<()> {
    let Some(programs) = programs() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let root = folder.path().join("root");
    clean_root(&root)?;
    if !succeeds(Command::new("chroot").arg(&root).args(["/bin/sh", "-c", "true"])) {
        println!("skipped: only root installs packages");
        return Ok(());
    }
    let package = packages(programs).debian.to_str().context("a path in UTF-8")?;
    dpkg(&root, &["--install", package])?;
    for program in ["etcd", "etcdctl"] {
        service::copy_libraries(&root.join("usr/bin").join(program), &root)?;
    }
    let unit = Service::read(&root, "usr/lib/systemd/system/etcd.service")?;
    assert_eq!(unit.setting("Type")?, "notify");
    let (uid, gid) = unit.user()?;
    ensure!(uid != 0 && gid != 0, "the service is root's");
    let data = root.join("var/lib/etcd");
    let found = fs::metadata(&data)?;
    ensure!((found.uid(), found.gid()) == (uid, gid), "{found:?}");
    ensure!(found.permissions().mode() & 0o777 == 0o700, "{:o}", found.permissions().mode());

    let settings = root.join("etc/default/etcd");
    let before = fs::read_to_string(&settings)?;
    ensure!(before.lines().all(|line| line.is_empty() || line.starts_with('#')), "{before}");
    let (client, peer) = (ports::free_url()?, ports::free_url()?);
    let own = format!(
        "ETCD_NAME=\"m1\"\nETCD_LISTEN_CLIENT_URLS=\"{client}\"\n\
         ETCD_ADVERTISE_CLIENT_URLS=\"{client}\"\nETCD_LISTEN_PEER_URLS=\"{peer}\"\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS=\"{peer}\"\nETCD_INITIAL_CLUSTER=\"m1={peer}\"\n\
         DAEMON_ARGS=\"--log-level warn --max-txn-ops=64\"\n"
    );
    fs::write(&settings, before + &own)?;
    let (mut command, readiness) = unit.command(true)?;
    let log = folder.path().join("log");
    let output = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let running = Running(command.spawn()?);
    readiness.wait(PATIENCE).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;

    let client_says = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(&root).args(["/usr/bin/etcdctl", "--endpoints", &client]).args(words);
        // On a busy machine five seconds are little.
        command.args(["--command-timeout", "60s"]).env_clear();
        run(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    };
    ensure!(client_says(&["put", "greeting", "hello"])? == b"OK\n");
    ensure!(client_says(&["get", "greeting"])? == b"greeting\nhello\n");
    let database = fs::metadata(data.join("default/member/snap/db"))?;
    ensure!((database.uid(), database.gid()) == (uid, gid), "{database:?}");
    drop(running);

    // Removal leaves the settings, purge removes them; the data is the operator's.
    dpkg(&root, &["--remove", "retcd"])?;
    ensure!(!root.join("usr/bin/etcd").exists() && settings.exists());
    let said = dpkg(&root, &["--purge", "retcd"])?;
    ensure!(said.contains("data is left in /var/lib/etcd"), "{said}");
    ensure!(!settings.exists() && data.join("default/member").is_dir());
    Ok(())
}
