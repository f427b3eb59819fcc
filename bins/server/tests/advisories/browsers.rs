//! Requests that a page makes a browser send. A13.

use std::net::SocketAddr;

use retcd_conformance::ask;

use super::{exchange, start};

fn post(address: SocketAddr, path: &str, heads: &[&str], body: &str) -> anyhow::Result<String> {
    let heads: String = heads.iter().map(|head| format!("{head}\r\n")).collect();
    let request = format!(
        "POST {path} HTTP/1.1\r\n{heads}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(address, request.as_bytes())?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A put of key `foo`.
const PUT: &str = "{\"key\":\"Zm9v\",\"value\":\"YmFy\"}";

fn is_there(address: SocketAddr) -> anyhow::Result<bool> {
    let range = ask(address, "POST", "/v3/kv/range", "{\"key\":\"Zm9v\"}")?;
    Ok(range.body.contains("\"kvs\""))
}

/// CVE-2018-1098 (cross-site requests): where `--cors` names the pages that may ask, what another
/// page sends is not done, however simple the request looks to a browser.
#[test]
fn what_another_page_sends_is_not_done() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--cors=http://page.example:80"])?;
    let address = server.address();
    let host = format!("Host: {address}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json"] {
        let heads =
            [host.as_str(), "Origin: http://evil.example", &format!("Content-Type: {kind}")];
        assert_eq!(post(address, "/v3/kv/put", &heads, PUT)?, "403", "{kind}");
        assert_eq!(post(address, "/v2/keys/foo", &heads, "value=bar")?, "403", "{kind}");
        assert_eq!(post(address, "/v3/kv/put", &[&host, "Origin: null"], PUT)?, "403");
    }
    assert!(!is_there(address)?);
    // The page that may, one of this very server, and what is no page at all.
    let own = format!("Origin: http://{address}");
    for heads in [&[host.as_str(), "Origin: http://page.example"][..], &[&host, &own], &[&host]] {
        assert_eq!(post(address, "/v3/kv/put", heads, PUT)?, "200", "{heads:?}");
    }
    assert!(is_there(address)?);
    Ok(())
}

/// CVE-2018-1099 (DNS rebinding): a page whose own name suddenly leads here is not answered, on
/// neither API.
#[test]
fn a_name_that_is_not_ours_is_not_answered() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--host-whitelist=127.0.0.1,localhost"])?;
    let address = server.address();
    for (path, body) in [("/v3/kv/put", PUT), ("/v2/keys/foo", "value=bar")] {
        assert_eq!(post(address, path, &["Host: evil.example:2379"], body)?, "421", "{path}");
    }
    assert!(!is_there(address)?);
    Ok(())
}
