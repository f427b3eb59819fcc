//! A service started as systemd would start it, where there is no systemd: in a root folder of the
//! test's own, by its unit file and environment file, as its user, until it says that it is ready.
//!
//! Of a unit only what a package of ours uses is understood: `Environment`, `EnvironmentFile`,
//! `User` and a simple `ExecStart`, `%p` and `%H`, and variables that are whole words of the command.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Where the service is to say that it is ready, below its root.
const SOCKET: &str = "run/notify";

/// A unit of a root folder.
#[derive(Debug)]
pub struct Service {
    root: PathBuf,
    settings: Vec<(String, String)>,
}

impl Service {
    /// Reads the unit at `unit`, a path below `root`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(root: &Path, unit: &str) -> anyhow::Result<Self> {
        let path = root.join(unit);
        let name = path.file_stem().and_then(|name| name.to_str()).context("a unit has a name")?;
        let text = fs::read_to_string(&path).with_context(|| format!("reading {unit}"))?;
        let pairs = assignments(&text);
        let settings = pairs.map(|(key, value)| (key.to_owned(), value.replace("%p", name)));
        Ok(Self { root: root.to_owned(), settings: settings.collect() })
    }

    /// The last value of a setting.
    ///
    /// # Errors
    ///
    /// The unit does not have it.
    pub fn setting(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.settings.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("the unit has no {name}"))
    }

    /// The service's variables: of the unit and of its environment file, in the unit's order.
    ///
    /// # Errors
    ///
    /// The environment file cannot be read and has no `-` in front.
    pub fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        let mut add = |(name, value): (&str, &str)| {
            let value = value.trim_matches('"').replace("%H", "host");
            variables.insert(name.to_owned(), value);
        };
        for (name, value) in &self.settings {
            match name.as_str() {
                "Environment" => assignments(value).for_each(&mut add),
                "EnvironmentFile" => {
                    let file = value.trim_start_matches('-');
                    match fs::read_to_string(self.root.join(file.trim_start_matches('/'))) {
                        Ok(text) => assignments(&text).for_each(&mut add),
                        Err(error) => ensure!(value.starts_with('-'), "reading {file}: {error}"),
                    }
                }
                _ => {}
            }
        }
        Ok(variables)
    }

    /// The service's command in its root, as its user if `as_user`; together with where its
    /// readiness will be heard.
    ///
    /// # Errors
    ///
    /// The unit or its files cannot be read, or lack a command or the user.
    pub fn command(&self, as_user: bool) -> anyhow::Result<(Command, Readiness)> {
        let environment = self.environment()?;
        let words = self.setting("ExecStart")?.split_whitespace().flat_map(|word| {
            let name = word.strip_prefix('$');
            let value = name.map(|name| environment.get(name).map_or("", String::as_str));
            value.unwrap_or(word).split_whitespace()
        });
        let mut command = Command::new("chroot");
        if as_user {
            let (uid, gid) = self.user()?;
            command.arg(format!("--userspec={uid}:{gid}"));
        }
        command.arg(&self.root).args(words).env_clear().envs(&environment);
        command.env("NOTIFY_SOCKET", format!("/{SOCKET}"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok((command, Readiness::listen(&self.root.join(SOCKET))?))
    }

    /// Numbers of the service's user and its group, by the root's `etc/passwd`.
    ///
    /// # Errors
    ///
    /// The unit names no user, or there is none of that name.
    pub fn user(&self) -> anyhow::Result<(u32, u32)> {
        let name = self.setting("User")?;
        let users = fs::read_to_string(self.root.join("etc/passwd")).context("reading passwd")?;
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.into_iter().find(|fields| fields[0] == name);
        let fields = found.with_context(|| format!("there is no user {name}"))?;
        ensure!(fields.len() == 7, "a line of passwd: {fields:?}");
        Ok((fields[2].parse()?, fields[3].parse()?))
    }
}

/// `name=value` of the lines that are no comments.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('='))
}

/// Hears that a service is ready.
#[derive(Debug)]
pub struct Readiness(UnixDatagram);

impl Readiness {
    fn listen(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_file(path)?;
        }
        let socket = UnixDatagram::bind(path).context("listening for the service")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        Ok(Self(socket))
    }

    /// Waits until the service says so.
    ///
    /// # Errors
    ///
    /// It says nothing for as long as `patience`, or something else.
    pub fn wait(&self, patience: Duration) -> anyhow::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        let mut text = [0; 256];
        let len = self.0.recv(&mut text).context("waiting for READY=1")?;
        let text = String::from_utf8_lossy(&text[..len]);
        ensure!(text.starts_with("READY=1"), "the service says {text}");
        Ok(())
    }
}

/// Copies what a program of this machine is linked to into a root, where it is here.
///
/// # Errors
///
/// There is no `ldd`, or a file cannot be copied.
pub fn copy_libraries(program: &Path, root: &Path) -> anyhow::Result<()> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8(output.stdout)?;
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

/// Copies a file, with its mode, into a folder that is made.
///
/// # Errors
///
/// As [`fs::copy`].
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    to.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::copy(from, to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_from_the_unit_and_then_from_its_file() {
        let root = tempfile::tempdir().unwrap();
        let unit = "[Service]\nEnvironment=A=%H\nEnvironment=B=1\nEnvironmentFile=-/etc/%p\n\
                    ExecStart=/bin/it $B $C --flag\n";
        fs::write(root.path().join("it.service"), unit).unwrap();
        let variables = || Service::read(root.path(), "it.service").unwrap().environment();
        let expected =
            |b: &str| BTreeMap::from([("A".into(), "host".into()), ("B".into(), b.into())]);
        assert_eq!(variables().unwrap(), expected("1"));
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/it"), "# A=2\nB=\"2 3\"\n").unwrap();
        assert_eq!(variables().unwrap(), expected("2 3"));
        fs::create_dir(root.path().join("run")).unwrap();
        let service = Service::read(root.path(), "it.service").unwrap();
        let (command, _readiness) = service.command(false).unwrap();
        let words: Vec<_> = command.get_args().skip(1).collect();
        assert_eq!(words, ["/bin/it", "2", "3", "--flag"]);
    }
}
