//! The names of an address, for certificates of members that carry only names (CB-72).

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use tls::ReverseLookup;

/// Asks as this machine resolves names. Nothing is kept: whoever asks may be on any thread, it
/// happens once for a connection, and the machine's settings may change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReverseDns;

impl ReverseLookup for ReverseDns {
    fn names_of(
        &self,
        address: IpAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<String>>> + Send + '_>> {
        Box::pin(async move {
            let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
            let resolver = resolver.map_err(io::Error::other)?;
            let found = resolver.reverse_lookup(address).await.map_err(io::Error::other)?;
            let names = found.answers().iter().filter_map(|record| {
                let RData::PTR(name) = &record.data else { return None };
                Some(name.0.to_utf8())
            });
            Ok(names.collect())
        })
    }
}
