//! `history check FILE`: judges a recorded history, one JSON object a line.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, path] = &arguments[..] else { return usage() };
    if command != "check" {
        return usage();
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("error: opening {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let history = match retcd_history::read(BufReader::new(file)) {
        Ok(history) => history,
        Err(error) => {
            eprintln!("error: {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match retcd_history::judge(&history) {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(violations) => {
            for violation in &violations {
                println!("{}", violation.story(&history));
            }
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: history check FILE");
    ExitCode::from(2)
}
