//! A plain HTTP/1.1 client that shows answers as they are: status, headers, body.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long an answer may take, in a debug build on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body without the marks of chunks.
    pub body: String,
}

impl HttpAnswer {
    /// A header's value; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Asks one question over a connection of its own. A body goes as a form unless `kind` says another
/// type.
///
/// # Errors
///
/// No connection, or what comes is no HTTP.
pub fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> anyhow::Result<HttpAnswer> {
    HttpOpen::begin(address, method, path, kind, body)?.finish()
}

/// An answer whose head has come, and whose body comes piece by piece.
#[derive(Debug)]
pub struct HttpOpen {
    head: HttpAnswer,
    is_head: bool,
    stream: BufReader<TcpStream>,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct HttpQuestion<'q> {
    /// The method.
    pub method: &'q str,
    /// Path and query.
    pub path: &'q str,
    /// Beside those that HTTP needs.
    pub headers: &'q [(&'q str, &'q str)],
    /// May be empty.
    pub body: &'q str,
}

impl HttpOpen {
    /// Asks, and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// As [`ask`].
    pub fn begin(
        address: SocketAddr,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> anyhow::Result<Self> {
        let kind = [("Content-Type", kind)];
        let headers = if kind[0].1.is_empty() { &[] } else { &kind[..] };
        Self::question(address, &HttpQuestion { method, path, headers, body })
    }

    /// As [`Self::begin`], with headers.
    ///
    /// # Errors
    ///
    /// As [`ask`].
    pub fn question(address: SocketAddr, question: &HttpQuestion<'_>) -> anyhow::Result<Self> {
        let HttpQuestion { method, path, headers, body } = *question;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let len = body.len();
        text.push_str(&format!("Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"));
        stream.write_all(text.as_bytes())?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).context("reading the status")?;
        let status = line.split(' ').nth(1).context("no status")?.parse()?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            stream.read_line(&mut line).context("reading the headers")?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let head = HttpAnswer { status, headers, body: String::new() };
        Ok(Self { head, is_head: method == "HEAD", stream })
    }

    /// Status and headers.
    #[must_use]
    pub fn head(&self) -> &HttpAnswer {
        &self.head
    }

    /// The next chunk of the body; empty at its end.
    ///
    /// # Errors
    ///
    /// The connection ends before, or nothing comes.
    pub fn chunk(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("waiting for a chunk")?;
        let len = usize::from_str_radix(line.trim_end(), 16).context("no chunk's length")?;
        let mut chunk = vec![0; len + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(len);
        Ok(String::from_utf8(chunk)?)
    }

    /// Waits for the whole body.
    ///
    /// # Errors
    ///
    /// As [`ask`].
    pub fn finish(mut self) -> anyhow::Result<HttpAnswer> {
        let mut body = String::new();
        if self.is_head {
        } else if self.head.header("transfer-encoding") == "chunked" {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                body.push_str(&chunk);
            }
        } else if let Some(len) = self.head.headers.get("content-length") {
            let mut bytes = vec![0; len.parse()?];
            self.stream.read_exact(&mut bytes)?;
            body = String::from_utf8(bytes)?;
        } else if self.head.status != 204 {
            bail!("a body without an end: {:?}", self.head);
        }
        Ok(HttpAnswer { body, ..self.head })
    }
}
