//! A member of ours that is found in DNS: one of its ports for clients speaks TLS, the other does not.

use std::path::Path;

use certificates::{Authority, Holder};
use retcd_conformance::{Server, ServerOptions};

use super::names;

/// The domain that knows it, as `m0`.
pub(crate) const DOMAIN: &str = "srv.test";

/// The member.
pub(crate) struct Named {
    pub(crate) server: Server,
    /// The port without TLS, which `_etcd-client-plain._tcp` names, and that with it, which
    /// `_etcd-client-ssl._tcp` and `_etcd-client-ssl-secure._tcp` name.
    pub(crate) ports: [u16; 2],
    /// The file of who vouches for it.
    pub(crate) bundle: String,
}

impl Named {
    /// Starts it with a certificate for these names; name service is on until this process ends.
    pub(crate) fn start(program: &str, folder: &Path, held: &[&str]) -> anyhow::Result<Self> {
        let authority = Authority::new("authority");
        let bundle = certificates::write(folder, "ca.pem", authority.certificate());
        let pair = authority.issue(&Holder::new("member", held));
        let (certificate, key) = pair.write(folder, "member");
        let mut server = Server::start(Path::new(program), folder, ServerOptions::default())?;
        server.stop()?;
        let (plain, secure) = (server.client_port(), ports::free()?);
        server.add_flags(&[
            &format!("--listen-client-urls=http://127.0.0.1:{plain},https://127.0.0.1:{secure}"),
            &format!("--advertise-client-urls=http://127.0.0.1:{plain}"),
            &format!("--cert-file={}", certificate.display()),
            &format!("--key-file={}", key.display()),
        ]);
        server.restart(Path::new(program))?;
        let at = |port: u16| vec![("m0".to_owned(), port)];
        names::serve(
            DOMAIN,
            vec![
                ("_etcd-client-plain._tcp".to_owned(), at(plain)),
                ("_etcd-client-ssl-secure._tcp".to_owned(), at(secure)),
                ("_etcd-client-ssl._tcp".to_owned(), at(secure)),
            ],
        )?;
        Ok(Self { server, ports: [plain, secure], bundle: bundle.display().to_string() })
    }
}
