//! Who wrote the libraries that are in the programs, and under which licences: a text made of what
//! cargo says of them and of the files that their authors put beside their sources.
//!
//! Each text stands once. The Apache licence, which is ours too, is the file LICENSE beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::PROGRAMS;

/// How files begin that hold licences, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// For whoever left the text out.
const MIT: &str = "packaging/licenses/MIT";

/// The whole text.
pub(super) fn text() -> anyhow::Result<Vec<u8>> {
    let linked = linked()?;
    let described = cargo(&["metadata", "--format-version", "1", "--filter-platform", &host()?])?;
    let described: Value = serde_json::from_str(&described).context("reading cargo's metadata")?;
    let packages = described["packages"].as_array().context("cargo lists packages")?;
    let mut libraries = BTreeMap::new();
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        if linked.contains(&name) {
            libraries.insert(name, package);
        }
    }
    let mut texts = Texts::default();
    let mut about = String::new();
    for (name, package) in &libraries {
        describe(name, package, &mut texts, &mut about)?;
    }
    writeln!(about, "{}", rustc()?)?;
    writeln!(about, "    licence: MIT OR Apache-2.0, the file LICENSE")?;
    writeln!(about, "    by: the contributors of the Rust project\n")?;
    let mut whole = String::from(
        "Libraries in the programs of retcd\n\n\
         Each is followed by its licence and the numbers of the texts below that its authors\n\
         distribute with it. Of several licences joined by OR any one may be chosen.\n\n",
    );
    whole.push_str(&about);
    for (number, text) in (1..).zip(&texts.known) {
        writeln!(whole, "{}\nText {number}\n\n{}\n", "-".repeat(72), text.trim_matches('\n'))?;
    }
    Ok(whole.into_bytes())
}

fn describe(
    name: &str,
    package: &Value,
    texts: &mut Texts,
    about: &mut String,
) -> anyhow::Result<()> {
    let licence = package["license"].as_str().unwrap_or("see its text");
    let manifest = package["manifest_path"].as_str().context("a package lies somewhere")?;
    let folder = Path::new(manifest).parent().context("a package lies in a folder")?;
    let mut found = BTreeSet::new();
    collect(folder, &mut found).with_context(|| format!("reading the licences of {name}"))?;
    let mut numbers = BTreeSet::new();
    for path in &found {
        let text = String::from_utf8_lossy(&fs::read(path)?).replace("\r\n", "\n");
        if !is_apache(&text) {
            numbers.insert(texts.number(&text));
        }
    }
    let authors: Vec<_> = package["authors"].as_array().into_iter().flatten().collect();
    let authors: Vec<_> = authors.iter().filter_map(|author| author.as_str()).collect();
    if found.is_empty() && !licence.contains("Apache-2.0") {
        ensure!(licence == "MIT", "{name} has no text of its licence, {licence}");
        let standard = String::from_utf8(super::pieces::read(MIT)?)?;
        let holder = if authors.is_empty() { "its authors".to_owned() } else { authors.join(", ") };
        numbers.insert(texts.number(&standard.replace("@holder@", &holder)));
    }
    writeln!(about, "{name}")?;
    writeln!(about, "    licence: {licence}")?;
    if licence.contains("Apache-2.0") {
        writeln!(about, "    the Apache licence: the file LICENSE")?;
    }
    if !numbers.is_empty() {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        writeln!(about, "    texts: {}", numbers.join(", "))?;
    }
    if !authors.is_empty() {
        writeln!(about, "    by: {}", authors.join(", "))?;
    }
    if let Some(place) = package["repository"].as_str() {
        writeln!(about, "    at: {place}")?;
    }
    about.push('\n');
    Ok(())
}

/// Texts in the order in which they were first needed.
#[derive(Debug, Default)]
struct Texts {
    known: Vec<String>,
    /// By their words: authors break lines where they like.
    numbers: BTreeMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        *self.numbers.entry(words).or_insert_with(|| {
            self.known.push(text.to_owned());
            self.known.len()
        })
    }
}

/// Whether a file is the Apache licence and nothing else.
fn is_apache(text: &str) -> bool {
    const BYTES_MAX: usize = 12_000;
    let start: Vec<_> = text.split_whitespace().take(5).collect();
    text.len() < BYTES_MAX && start.join(" ").starts_with("Apache License Version 2.0")
}

/// Licences beside the sources and of what was taken into them.
fn collect(folder: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_dir() {
            collect(&path, found)?;
        } else if NAMES.iter().any(|start| name.starts_with(start)) && !name.ends_with(".RS") {
            found.insert(path);
        }
    }
    Ok(())
}

/// Names and versions of what is linked into the programs, as they are built for this machine.
fn linked() -> anyhow::Result<BTreeSet<String>> {
    let mut words = vec!["tree", "--edges", "normal,no-proc-macro", "--prefix", "none"];
    words.extend(["--format", "{p}"]);
    words.extend(PROGRAMS.iter().flat_map(|program| ["--package", program]));
    let said = cargo(&words)?;
    let package = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(format!("{name} {version}"))
    };
    Ok(said.lines().filter_map(package).collect())
}

fn cargo(words: &[&str]) -> anyhow::Result<String> {
    said(Command::new("cargo").args(words).arg("--locked"))
}

/// The kind of machine that programs are built for here.
fn host() -> anyhow::Result<String> {
    let about = said(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

/// The compiler, whose library is in every program.
fn rustc() -> anyhow::Result<String> {
    let about = said(Command::new("rustc").arg("--version"))?;
    let version = about.split(' ').nth(1).context("rustc has a version")?;
    Ok(format!("the standard library of Rust {version}"))
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.current_dir(crate::root()).output();
    let output = output.with_context(|| format!("running {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {complaint}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
