//! Aligned plain-text tables.

/// Renders rows under a header: the first two columns left-aligned, figures right-aligned.
pub(crate) fn render<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let mut widths = header.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; COLUMNS]| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            text.push_str(gap);
            if column < LEFT_ALIGNED {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("{cell:>width$}"));
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut table = line(&header.map(str::to_owned));
    table.push_str(&line(&widths.map(|width| "-".repeat(width))));
    for row in rows {
        table.push_str(&line(row));
    }
    table
}

const LEFT_ALIGNED: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["put".to_owned(), "p50".to_owned(), "7".to_owned()],
            ["range-1000".to_owned(), "per second".to_owned(), "123456".to_owned()],
        ];
        let wanted = "\
measure     figure       theirs
----------  ----------  -------
put         p50               7
range-1000  per second   123456
";
        // The header's last title is the widest of its column.
        assert_eq!(render(["measure", "figure", " theirs"], &rows), wanted);
    }
}
