//! A result of one row, in the formats of `--write-out`.
//!
//! etcd: `etcdutl/etcdutl/printer*.go`.

use std::fmt::Write as _;
use std::io::Write as _;

use cli::exit::{ExitCode, Failure};
use cli::printer::Format;
use cli::table;

/// What a command found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// In order.
    pub(crate) columns: Vec<Column>,
    /// The object, without a line end.
    pub(crate) json: String,
}

/// One fact in its different dresses.
#[derive(Debug)]
pub(crate) struct Column {
    /// Above the column of a table.
    pub(crate) title: &'static str,
    /// In a table and in the simple format.
    pub(crate) cell: String,
    /// Before the value among fields.
    pub(crate) name: &'static str,
    /// Among fields.
    pub(crate) value: String,
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        let text = self.render(format)?;
        let written = std::io::stdout().lock().write_all(text.as_bytes());
        written.map_err(|error| Failure::new(ExitCode::Io, error))
    }

    fn render(&self, format: Format) -> Result<String, Failure> {
        let cells = || self.columns.iter().map(|column| column.cell.clone()).collect::<Vec<_>>();
        Ok(match format {
            Format::Simple => cells().join(", ") + "\n",
            Format::Fields => {
                let mut text = String::new();
                for Column { name, value, .. } in &self.columns {
                    writeln!(text, "\"{name}\" : {value}").expect("writing to a string");
                }
                text
            }
            Format::Json => format!("{}\n", self.json),
            Format::Table => {
                let titles: Vec<_> = self.columns.iter().map(|column| column.title).collect();
                table::render(&titles, &[cells()])
            }
            Format::Protobuf => {
                let text = "protobuf not supported as output format";
                return Err(Failure::new(ExitCode::BadFeature, text));
            }
        })
    }
}
