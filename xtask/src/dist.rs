//! Packages of the programs: a `tar.gz` for any Linux and a `.deb`, and the checksums of both.
//!
//! The same programs and the same sources give the same bytes: entries are sorted, owners are root,
//! modes are said here, and all times are that of the commit (or `SOURCE_DATE_EPOCH`).

mod archive;
mod debian;
mod notice;
mod pieces;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

/// What is in every package.
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// What the command line says.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Folder with programs that are built already; without it a release is built.
    programs: Option<PathBuf>,
    /// Where the packages go; without it `dist` in the target folder.
    out: Option<PathBuf>,
}

impl Options {
    /// Reads the words behind `dist`.
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a folder"))?;
            match *word {
                "--programs" => options.programs = Some(value.into()),
                "--out" => options.out = Some(value.into()),
                _ => bail!("no such flag of dist: {word}; there are --programs and --out"),
            }
        }
        Ok(options)
    }
}

/// What the packages are named after.
#[derive(Debug)]
struct Release {
    /// The product's.
    version: String,
    /// The release of etcd it stands in for.
    compatible: String,
    /// As Debian and Go name it.
    architecture: String,
    /// Seconds of Unix time that every file gets.
    time_seconds: u64,
}

/// Makes both packages and says where they are.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    for program in PROGRAMS {
        let path = programs.join(program);
        ensure!(
            path.is_file(),
            "there is no {}; build it, or leave out --programs",
            path.display()
        );
    }
    let out = match &options.out {
        Some(folder) => folder.clone(),
        None => target_folder()?.join("dist"),
    };
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let release = Release::of(&programs)?;
    let pieces = pieces::gather(&programs)?;
    let archive = archive::write(&out, &release, &pieces).context("writing the archive")?;
    let debian = debian::write(&out, &release, &pieces).context("writing the Debian package")?;
    let sums = out.join("SHA256SUMS");
    write_sums(&sums, &[&archive, &debian]).context("writing the checksums")?;
    for path in [archive, debian, sums] {
        println!("{}", path.display());
    }
    Ok(())
}

/// What `sha256sum --check` reads.
fn write_sums(sums: &Path, packages: &[&Path]) -> anyhow::Result<()> {
    let mut text = String::new();
    for path in packages {
        let mut digest = Sha256::new();
        digest.update(fs::read(path)?);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for byte in digest.finalize() {
            write!(text, "{byte:02x}")?;
        }
        writeln!(text, "  {name}")?;
    }
    Ok(fs::write(sums, text)?)
}

impl Release {
    /// As the server says of itself.
    fn of(programs: &Path) -> anyhow::Result<Self> {
        let text = ask(&programs.join("etcd"), &["--version"])?;
        let text = String::from_utf8(text).context("reading the version")?;
        let fact = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name));
            found
                .map(str::to_owned)
                .with_context(|| format!("etcd --version has no {name}: {text}"))
        };
        let machine = fact("OS/Arch: ")?;
        let architecture = machine.strip_prefix("linux/").context("packages are for Linux")?;
        Ok(Self {
            version: fact("Product: retcd ")?,
            compatible: fact("etcd Version: ")?,
            architecture: architecture.to_owned(),
            time_seconds: time_seconds()?,
        })
    }
}

/// `SOURCE_DATE_EPOCH`, else the commit's time; 0 where the sources are no repository.
fn time_seconds() -> anyhow::Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text}"));
    }
    Ok(git(&["log", "-1", "--format=%ct"]).and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// What git says, if it can say it.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(crate::root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Builds the release; returns the folder with the programs.
///
/// Line tables, two thirds of a program, are left out. The names of functions stay, a quarter of what
/// then is left: the trace of a panic names its functions, and its message names file and line in any
/// case.
fn build() -> anyhow::Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags()?);
    command.args(["build", "--release", "--locked"]).current_dir(crate::root());
    for program in PROGRAMS {
        command.args(["--package", program]);
    }
    if let Some(commit) = git(&["rev-parse", "--short=9", "HEAD"]) {
        command.env("RETCD_GIT_SHA", commit);
    }
    let status = command.status().context("running cargo")?;
    ensure!(status.success(), "building the release ended with {status}");
    Ok(target_folder()?.join("release"))
}

/// The user's flags for the compiler, and that no text in a program names a folder of this machine.
fn flags() -> anyhow::Result<String> {
    let encoded = std::env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let plain = || std::env::var("RUSTFLAGS").ok().map(|flags| flags.replace(' ', "\u{1f}"));
    let given = encoded.or_else(plain).filter(|flags| !flags.is_empty());
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let sources = crate::root();
    let own = [
        format!("--remap-path-prefix={home}/registry/src=registry"),
        format!("--remap-path-prefix={}=retcd", sources.display()),
    ];
    Ok(given.into_iter().chain(own).collect::<Vec<_>>().join("\u{1f}"))
}

fn target_folder() -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(crate::root())
        .output()
        .context("running cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading cargo's metadata")?;
    let folder = metadata["target_directory"].as_str().context("cargo names no target folder")?;
    Ok(folder.into())
}

/// What a program prints. It sees no variables: a user's settings do not belong in a package.
fn ask(program: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let asked = || format!("asking {} for {}", program.display(), args.join(" "));
    let output = Command::new(program).args(args).env_clear().output().with_context(asked)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {complaint}", asked(), output.status);
    ensure!(!output.stdout.is_empty(), "{}: no answer", asked());
    Ok(output.stdout)
}
