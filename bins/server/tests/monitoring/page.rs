//! What a new server shows: names, types, labels and bounds are those of etcd 3.7.
//!
//! `page.txt` holds it. With `REAL_ETCD_37` real etcd is asked as well, and with `UPDATE=1` what it
//! shows is written there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use retcd_conformance::real_etcd;

use super::OURS;
use super::steps::{LONG, Watched};

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/monitoring/page.txt");

/// What only one of the two has: Go's runtime, and this program's own.
const OWN: [&str; 2] = ["go_", "retcd_"];

/// What etcd shows in older releases, with the second generation of its interface.
const OLDER: [&str; 3] = ["etcd_debugging_mvcc_range_total", "etcd_debugging_store_", "etcd_http_"];

/// A label whose value is another with each server or release.
fn is_of_this_server(label: &str) -> bool {
    label.ends_with("_id") || ["Local", "Remote", "server_go_version"].contains(&label)
}

/// A series without its values; the bound of a bucket apart.
fn series(text: &str) -> (String, Option<&str>) {
    let Some((name, labels)) = text.split_once('{') else { return (text.to_owned(), None) };
    let (mut shown, mut bound) = (Vec::new(), None);
    for label in labels.trim_end_matches('}').split("\",") {
        let (label, value) = label.split_once("=\"").expect("a label has a value");
        let value = value.trim_end_matches('"');
        match label {
            "le" => bound = Some(value),
            _ if is_of_this_server(label) => shown.push(format!("{label}=...")),
            _ => shown.push(format!("{label}={value}")),
        }
    }
    (format!("{name} {}", shown.join(" ")).trim_end().to_owned(), bound)
}

/// The page without values: a line for each series, with all bounds of a histogram in one.
fn shape(page: &str) -> String {
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with("# HELP ")) {
        let name = line.strip_prefix("# TYPE ").unwrap_or(line);
        if OWN.iter().chain(&OLDER).any(|own| name.starts_with(own)) {
            continue;
        }
        if line.starts_with('#') {
            lines.entry(name.to_owned()).or_default();
            continue;
        }
        // Whether something was tried in vain at the start is no matter.
        if line.contains("success=\"false\"") {
            continue;
        }
        let (name, _) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, bound) = series(name);
        lines.entry(name).or_default().extend(bound);
    }
    let mut text = String::new();
    for (name, bounds) in lines {
        writeln!(text, "{}", format!("{name} {}", bounds.join(" ")).trim_end())
            .expect("a text takes everything");
    }
    text
}

/// Lines that only one of them has.
fn differences(expected: &str, shown: &str) -> Vec<String> {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let missing = expected.lines().filter(|line| lacks(shown, line));
    let more = shown.lines().filter(|line| lacks(expected, line));
    let missing = missing.map(|line| format!("missing: {line}"));
    missing.chain(more.map(|line| format!("more: {line}"))).collect()
}

/// What a member says of itself and of the cluster comes within its first moments.
fn compare(program: &Path) -> anyhow::Result<()> {
    let expected = std::fs::read_to_string(EXPECTED)?;
    let (watched, began) = (Watched::start(program)?, Instant::now());
    loop {
        let differences = differences(&expected, &shape(&watched.page()?));
        if differences.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < LONG, "{differences:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// MET-01 to MET-74.
#[test]
fn a_new_server_shows_what_etcd_shows() -> anyhow::Result<()> {
    match real_etcd("3.7").map(|folder| folder.join("etcd")) {
        None => println!("not compared with real etcd: REAL_ETCD_37 is not set"),
        Some(real) if std::env::var_os("UPDATE").is_some() => {
            std::fs::write(EXPECTED, shape(&Watched::start(&real)?.page()?))?;
        }
        Some(real) => compare(&real)?,
    }
    compare(Path::new(OURS))
}
