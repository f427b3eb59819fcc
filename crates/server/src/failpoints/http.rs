//! The server that sets failpoints: one short answer for each connection, one after the other.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::{ANSWERING, NAMES, PointError, clear, set, set_all, show};

/// How long a client may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a request's head or body, at most.
const BYTES_MAX: u64 = 64 << 10;

/// Opens the server, before any failpoint is passed.
///
/// # Panics
///
/// If the address cannot be listened on: whoever asked for it would wait for ever.
pub(super) fn listen(address: &str) {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => panic!("GOFAIL_HTTP {address}: {error}"),
    };
    let serve = move || {
        for stream in listener.incoming().flatten() {
            // A client that breaks off harms nobody.
            drop(answer(&stream));
        }
    };
    std::thread::Builder::new()
        .name("failpoints".to_owned())
        .spawn(serve)
        .expect("a thread can be started at the start");
}

struct Request {
    method: String,
    path: String,
    body: String,
}

struct Reply {
    code: u16,
    text: String,
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read(stream)?;
    let _no_panic_before = ANSWERING.lock();
    let Reply { code, text } = reply(&request);
    let phrase = match code {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Method Not Allowed",
    };
    let len = text.len();
    let mut out = stream;
    // An answer without content has no length either.
    let length = if code == 204 { String::new() } else { format!("Content-Length: {len}\r\n") };
    write!(out, "HTTP/1.1 {code} {phrase}\r\n{length}Connection: close\r\n\r\n{text}")?;
    out.flush()
}

fn read(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream.take(BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut len = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(len).read_to_string(&mut body)?;
    Ok(Request { method, path, body })
}

fn reply(request: &Request) -> Reply {
    let name = request.path.trim_start_matches('/');
    let done = |result: Result<(), PointError>| match result {
        Ok(()) => Reply { code: 204, text: String::new() },
        Err(error) => Reply { code: 400, text: format!("{}\n", said(&error)) },
    };
    match (request.method.as_str(), name) {
        ("GET", "") => Reply { code: 200, text: list() },
        ("GET", name) => {
            let (point, wants_count) = match name.strip_suffix("/count") {
                Some(point) => (point, true),
                None => (name, false),
            };
            match show(point) {
                Ok((_, count)) if wants_count => Reply { code: 200, text: count.to_string() },
                Ok((terms, _)) => Reply { code: 200, text: format!("{terms}\n") },
                Err(error) => Reply { code: 404, text: format!("{}\n", said(&error)) },
            }
        }
        ("PUT", "failpoints") => done(set_all(&request.body)),
        ("PUT", name) => done(set(name, request.body.trim())),
        ("DELETE", name) => done(clear(name)),
        _ => Reply { code: 405, text: "method not allowed\n".to_owned() },
    }
}

/// An error with its cause.
fn said(error: &PointError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// Every name with its terms.
fn list() -> String {
    let mut text = String::new();
    for name in NAMES {
        let terms = show(name).map(|(terms, _)| terms).unwrap_or_default();
        writeln!(text, "{name}={terms}").expect("a string takes everything");
    }
    text
}
