//! Requests of plain HTTP/1.1, a connection for each, so that a test sees every byte of the answer.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The number of its status.
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// What was sent, whether in chunks or not.
    pub body: String,
}

/// Sends one request and reads all of its answer.
///
/// # Errors
///
/// The connection's, or no answer of HTTP.
pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n");
    // At once: who refuses a request for its head may close before the body comes.
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the headers")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok(Answer { status: status.parse()?, headers: headers.collect(), body })
}

fn unchunk(mut body: &str) -> anyhow::Result<String> {
    let mut whole = String::new();
    loop {
        let (len, rest) = body.split_once("\r\n").context("no chunk")?;
        let len = usize::from_str_radix(len, 16)?;
        if len == 0 {
            return Ok(whole);
        }
        whole.push_str(&rest[..len]);
        body = &rest[len + 2..];
    }
}
