//! Texts for people, compared with what is checked in; `UPDATE=1` rewrites them.

use super::*;

#[track_caller]
fn golden(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = expected.lines().zip(actual.lines()).find(|(left, right)| left != right);
    let equal = expected == actual;
    assert!(equal, "{} is outdated, run with UPDATE=1: {differing:?}", path.display());
}

/// SRV-011.
#[test]
fn help_lists_every_flag() {
    golden("testdata/help.txt", &help_text());
}

/// The document of flags is the table.
#[test]
fn flags_are_documented() {
    golden("../../docs/operating/flags.md", &flags_document());
}

/// SRV-011.
#[test]
fn manual_page_has_every_flag() {
    let page = man_page();
    let help = help_text();
    let names = help.lines().filter_map(|line| line.strip_prefix("  --"));
    for name in names.filter_map(|line| line.split(' ').next()) {
        let entry = format!(".TP\n\\fB\\-\\-{}\\fR", name.replace('-', "\\-"));
        assert!(page.contains(&entry), "no {entry}");
    }
}

/// SRV-010, R8.
#[test]
fn version_has_four_lines() {
    let text = version_text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    assert!(lines[1].starts_with("Git SHA: "));
    assert_eq!(lines[2], format!("Product: retcd {}", env!("CARGO_PKG_VERSION")));
    assert!(lines[3].starts_with("OS/Arch: linux/"));
}

/// SRV-014, process contract section 4.
#[test]
fn the_settings_in_force_are_told() {
    let (config, _) = Given::flags(&["--name=a", "--snapshot-catchup-entries=1000"]).config();
    let fields = serde_json::Value::Object(echo::start_fields(&config)).to_string();
    for field in [
        r#""etcd-version":"3.7.1""#,
        r#""member-initialized":false,"name":"a","data-dir":"a.etcd""#,
        r#""heartbeat-interval":"100ms","election-timeout":"1s""#,
        r#""snapshot-catchup-entries":1000"#,
        r#""listen-peer-urls":["http://localhost:2380"]"#,
        r#""quota-backend-bytes":2147483648"#,
        r#""compact-check-time-interval":"1m0s""#,
    ] {
        assert!(fields.contains(field), "{field} in {fields}");
    }
}
