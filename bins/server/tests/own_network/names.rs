//! A name server for a network of one's own: SRV records of one domain, all of whose hosts are here.

use std::net::UdpSocket;

/// A service such as `_etcd-client._tcp` and its hosts, without the domain, with their ports.
pub(crate) type Service = (String, Vec<(String, u16)>);

/// Serves names for the rest of the process.
pub(crate) fn serve(domain: &'static str, services: Vec<Service>) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", 53))?;
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            // Who is gone asks again.
            let _sent = socket.send_to(&answer(&query[..len], domain, &services), from);
        }
    });
    Ok(())
}

/// Answers what a name server knows of the domain: SRV records, and addresses.
fn answer(query: &[u8], domain: &str, services: &[Service]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap_or_default();
    let (mut labels, mut at) = (Vec::new(), 12);
    while at < end {
        let len = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + len]).to_lowercase());
        at += len + 1;
    }
    let name = labels.join(".");
    let first = name.strip_suffix(domain).and_then(|name| name.strip_suffix('.'));
    let hosts = || services.iter().flat_map(|(_, hosts)| hosts);
    let is_host = first.is_some_and(|first| hosts().any(|(host, _)| host == first));
    let service = services.iter().find(|(service, _)| Some(service.as_str()) == first);
    let kind = query[end + 2];
    let data: Vec<Vec<u8>> = match (kind, service) {
        (1, _) if is_host => vec![vec![127, 0, 0, 1]],
        (33, Some((_, hosts))) => {
            let record = |(host, port): &(String, u16)| {
                let mut bytes = [&[0, 1, 0, 1], &port.to_be_bytes()[..]].concat();
                for label in std::iter::once(host.as_str()).chain(domain.split('.')) {
                    bytes.push(u8::try_from(label.len()).expect("labels are short"));
                    bytes.extend(label.bytes());
                }
                bytes.push(0);
                bytes
            };
            hosts.iter().map(record).collect()
        }
        _ => Vec::new(),
    };
    let code = if is_host || service.is_some() { 0x80 } else { 0x83 };
    let count = u8::try_from(data.len()).expect("records are few");
    let mut bytes = [&query[..2], &[0x85, code, 0, 1, 0, count, 0, 0, 0, 0]].concat();
    bytes.extend(&query[12..end + 5]);
    for data in data {
        bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60]);
        bytes.extend(u16::try_from(data.len()).expect("records are short").to_be_bytes());
        bytes.extend(data);
    }
    bytes
}
