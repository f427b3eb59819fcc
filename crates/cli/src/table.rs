//! Tables drawn with box characters, headers centred and upper-case, cells to the right.
//!
//! etcd: `etcdctl/ctlv3/command/printer_table.go` over `tablewriter` v1.

use std::fmt::Write as _;

/// Draws a table. Every row has as many cells as the header.
///
/// # Panics
///
/// A row has another number of cells.
#[must_use]
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> =
        header.iter().map(|title| title.replace('_', " ").to_uppercase()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| {
                assert_eq!(row.len(), header.len(), "cells of a row against the header's");
                row[column].as_str()
            });
            cells.chain([header[column].as_str()]).map(width).max().unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    rule(&mut out, &widths, ["┌", "┬", "┐"]);
    line(&mut out, &header, &widths, centred);
    if !rows.is_empty() {
        rule(&mut out, &widths, ["├", "┼", "┤"]);
    }
    for row in rows {
        line(&mut out, row, &widths, to_the_right);
    }
    rule(&mut out, &widths, ["└", "┴", "┘"]);
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn rule(out: &mut String, widths: &[usize], [left, middle, right]: [&str; 3]) {
    let parts: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    writeln!(out, "{left}{}{right}", parts.join(middle)).expect("writing to a string");
}

fn line(out: &mut String, cells: &[String], widths: &[usize], place: fn(&str, usize) -> String) {
    let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| place(cell, *width)).collect();
    writeln!(out, "│ {} │", cells.join(" │ ")).expect("writing to a string");
}

fn centred(text: &str, wanted: usize) -> String {
    let gap = wanted - width(text);
    format!("{}{text}{}", " ".repeat(gap / 2), " ".repeat(gap - gap / 2))
}

fn to_the_right(text: &str, wanted: usize) -> String {
    format!("{}{text}", " ".repeat(wanted - width(text)))
}

#[cfg(test)]
mod tests {
    use super::render;

    /// CTL3-19.
    #[test]
    fn headers_are_centred_and_cells_to_the_right() {
        let rows = [vec!["127.0.0.1:46579".to_owned(), "3628877040".to_owned(), "0".to_owned()]];
        let expected = "\
┌─────────────────┬────────────┬───────────────┐
│    ENDPOINT     │    HASH    │ HASH REVISION │
├─────────────────┼────────────┼───────────────┤
│ 127.0.0.1:46579 │ 3628877040 │             0 │
└─────────────────┴────────────┴───────────────┘
";
        assert_eq!(render(&["endpoint", "hash", "hash_revision"], &rows), expected);
    }

    #[test]
    fn table_without_rows_is_its_header() {
        assert_eq!(render(&["id"], &[]), "┌────┐\n│ ID │\n└────┘\n");
    }
}
