//! The one place that puts aside what differs between two runs that did the same.
//!
//! Put aside, and nothing else:
//!
//! - ids of clusters, members and leases, addresses, folders, the release of the tool: by names, as
//!   [`Names`] has learned them;
//! - what clocks decide: durations behind `took`, what is left of a lease's time;
//! - what the files of a member decide: sizes of a database, indexes of its log; hashes that cover ids;
//! - blanks in the text of an alarm;
//! - all but the first lines of help in the layout that 3.7 gave up;
//! - the order of members, which is that of their ids, and the paddings of tables, which follow the
//!   width of ids;
//! - log lines on the standard error: JSON of `etcdctl`; of `etcdutl` those of the library under the
//!   database, and times and places in the code in the others; traces of Go's stack.
//!
//! Revisions, terms, versions and counts are compared as they are.

/// Texts of one side and the names that stand for them in outputs; applied in order.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, String)>);

impl Names {
    /// Lets `name` stand for a text.
    pub(crate) fn learn(&mut self, text: impl Into<String>, name: &str) {
        self.0.push((text.into(), name.to_owned()));
    }

    /// Lets `name` stand for an id however it is written.
    pub(crate) fn learn_id(&mut self, id: u64, name: &str) {
        for text in [format!("{id:016x}"), format!("{id:x}"), id.to_string()] {
            self.learn(text, name);
        }
    }

    /// A text without what differs from run to run.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, name) in &self.0 {
            text = text.replace(value, name);
        }
        // Some texts pad short ids with blanks.
        for name in ["CLUSTER", "MEMBER", "ADDED"] {
            text = text.replace(&format!("  {name} "), &format!(" {name} "));
            text = text.replace(&format!("  {name}\n"), &format!(" {name}\n"));
        }
        // Help as 3.5 lays it out, which nobody has to print any more.
        if text.starts_with("NAME:\n") {
            return text.lines().take(2).map(|line| format!("{line}\n")).collect();
        }
        // How many blanks protobuf's text format of 3.7 has is decided by a hash of the program.
        let text = text.replace("MEMBER  alarm", "MEMBER alarm").replace(":NOSPACE ", ":NOSPACE");
        let mut lines: Vec<String> = text.lines().map(line).collect();
        order_members(&mut lines);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Whether a line of standard error is one that scripts do not look at: logs of the client, logs of
/// the library under the database and of the resolver, and traces of Go's stack.
pub(crate) fn is_log(line: &str) -> bool {
    let starts = [
        "{\"level\":",
        // It complains where there is no terminal.
        "stty: ",
        "go.etcd.io/",
        "github.com/",
        "main.",
        "runtime.",
        "\tgo.etcd.io/",
        "\tgithub.com/",
        "\truntime/",
        "\t/",
        "go.uber.org/",
        "\tgo.uber.org/",
        "goroutine ",
        "created by ",
        "[signal ",
    ];
    let parts = [
        "Opening db file (",
        "Opening bbolt db (",
        "failed to lock db file (",
        "\tresolved URL Host\t",
    ];
    starts.iter().any(|start| line.starts_with(start)) || parts.iter().any(|it| line.contains(it))
}

/// What `snapshot status` tells without its hash, which covers ids, and its size.
pub(crate) fn without_hash(text: &str) -> String {
    let line = |line: &str| {
        for (before, after) in
            [("{\"hash\":", ","), ("\"Hash\" : ", "\n"), ("│ ", " │"), ("", ", ")]
        {
            let Some(rest) = line.strip_prefix(before) else { continue };
            let end = rest.find(after).unwrap_or(rest.len());
            if !rest[..end].bytes().all(|byte| byte.is_ascii_hexdigit()) {
                continue;
            }
            return without_size(&format!("{before}HASH{}", &rest[end..]));
        }
        without_size(line)
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

/// The cell of a line that is a size for people.
fn without_size(line: &str) -> String {
    let is_size = |cell: &str| cell.ends_with(" kB") || cell.ends_with(" MB");
    let separator = if line.starts_with('│') { " │ " } else { ", " };
    let cells = line.split(separator).map(|cell| if is_size(cell) { "SIZE" } else { cell });
    cells.collect::<Vec<_>>().join(separator)
}

fn line(line: &str) -> String {
    let line = without_positions(&without_times(line));
    without_chance(&without_place(&without_padding(&line)))
}

/// Replaces what a clock decides: durations behind `took`, and remaining seconds of leases.
fn without_times(line: &str) -> String {
    let mut line = line.to_owned();
    for (before, after) in [
        ("took = ", ""),
        (". took ", ""),
        ("\"took\":\"", "\""),
        ("\"Took\" : ", ""),
        ("\"took\": \"", "\""),
        ("remaining(", ")"),
        ("\"ttl\":", ","),
        ("\"TTL\" : ", ""),
    ] {
        let Some(start) = line.find(before).map(|start| start + before.len()) else {
            continue;
        };
        let rest = &line[start..];
        let end = if after.is_empty() { None } else { rest.find(after) };
        let end = end.unwrap_or_else(|| rest.find(". (").unwrap_or(rest.len()));
        line.replace_range(start..start + end, "TIME");
    }
    line
}

/// Fields whose numbers depend on how a member has laid out its files.
const POSITIONS: [&str; 15] = [
    "\"raftIndex\":",
    "\"raftAppliedIndex\":",
    "\"dbSize\":",
    "\"dbSizeInUse\":",
    "\"totalSize\":",
    "\"RaftIndex\" : ",
    "\"RaftAppliedIndex\" : ",
    "\"DBSize\" : ",
    "\"DBSizeInUse\" : ",
    "\"Size\" : ",
    "\"Total Size\" : ",
    "\"backend-size-bytes\": ",
    "\"backend-size-in-use-bytes\": ",
    "\"initial-memory-map-size\": ",
    "\"snapshot-size\": ",
];

fn without_positions(line: &str) -> String {
    // What `etcdutl defrag` found and left.
    if let Some((before, _)) = line.split_once("\"current-db-size-bytes") {
        return format!("{before}SIZES");
    }
    let mut line = line.to_owned();
    for field in POSITIONS {
        let mut from = 0;
        while let Some(start) = line[from..].find(field).map(|at| from + at + field.len()) {
            let digits = line[start..].bytes().take_while(u8::is_ascii_digit).count();
            line.replace_range(start..start + digits, "N");
            from = start;
        }
    }
    // What `endpoint status` shows of a member, alone or in a table.
    for separator in [", ", " │ ", " | "] {
        let mut cells: Vec<&str> = line.split(separator).collect();
        let columns: &[usize] = match cells.len() {
            10 => &[3, 7, 8],
            16 => &[4, 5, 6, 11, 12],
            _ => continue,
        };
        if cells[1].trim() == "MEMBER" {
            columns.iter().for_each(|column| cells[*column] = "N");
            line = cells.join(separator);
        }
    }
    line
}

/// Tables are as wide as their widest cells.
fn without_padding(line: &str) -> String {
    if !line.starts_with(['+', '|', '┌', '├', '└', '│']) {
        return line.to_owned();
    }
    let mut out = String::new();
    for character in line.chars() {
        if !(" -─".contains(character) && out.ends_with(character)) {
            out.push(character);
        }
    }
    // A cell that is a duration.
    let is_time = |cell: &str| {
        cell.starts_with(|first: char| first.is_ascii_digit())
            && cell.ends_with('s')
            && cell.chars().all(|it| it.is_ascii_digit() || ".mµns".contains(it))
    };
    let cells = out.split(" │ ").map(|cell| if is_time(cell) { "TIME" } else { cell });
    cells.collect::<Vec<_>>().join(" │ ")
}

/// Log lines of `etcdutl`: a time, a level, a place, a message, fields.
fn without_place(line: &str) -> String {
    let parts: Vec<&str> = line.split('\t').collect();
    match parts[..] {
        [_, level @ ("info" | "warn" | "error" | "panic" | "fatal"), _, ..] => {
            [&[level], &parts[3..]].concat().join("\t")
        }
        _ => line.to_owned(),
    }
}

/// Replaces what random ids decide: the order of members, and the names of lock keys.
fn without_chance(line: &str) -> String {
    if let Some(members) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") {
        let mut members: Vec<_> = members.trim_matches('"').split(',').collect();
        members.sort_unstable();
        return format!("ETCD_INITIAL_CLUSTER={}", members.join(","));
    }
    if line.starts_with("name/") { "name/LEASE".to_owned() } else { line.to_owned() }
}

/// Members stand in the order of their ids, and that of an added one is anything.
fn order_members(lines: &mut [String]) {
    for at in 1..lines.len() {
        let is_added = |line: &str| line.trim_start_matches(['│', '|', ' ']).starts_with("ADDED");
        let is_own = |line: &str| line.trim_start_matches(['│', '|', ' ']).starts_with("MEMBER");
        if is_added(&lines[at - 1]) && is_own(&lines[at]) {
            lines.swap(at - 1, at);
        }
    }
}
