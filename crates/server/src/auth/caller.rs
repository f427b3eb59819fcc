//! What a call says of its caller: a token in its metadata, a certificate of its connection.

use std::sync::Arc;

use http::HeaderValue;
use opentelemetry::KeyValue;

use crate::guard::Secured;
use crate::traces::Trace;

/// The caller of one call or stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    token: Option<HeaderValue>,
    certificate: Option<Arc<tls::Identity>>,
    trace: Trace,
}

impl Caller {
    /// A caller with the token of its metadata, on a connection with this security. The gateway's
    /// own calls have none (CB-77).
    pub(crate) fn new(token: Option<&HeaderValue>, secured: Option<&Secured>) -> Self {
        let certificate = secured.and_then(|secured| secured.identity.clone());
        Self { token: token.cloned(), certificate, trace: Trace::default() }
    }

    /// The same caller, whose call is traced as `trace` is.
    #[must_use]
    pub(crate) fn traced(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// The same caller within a span of its own, which ends when this is dropped.
    #[must_use]
    pub(crate) fn within(
        mut self,
        span: &'static str,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        self.trace = self.trace.within(span, attributes);
        self
    }

    /// What its call is traced as.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The token, without the word some clients put before it (G-004). What is no text is a token
    /// of nobody.
    pub(crate) fn token(&self) -> Option<&str> {
        let token = self.token.as_ref()?.to_str().unwrap_or_default();
        Some(token.strip_prefix("Bearer ").unwrap_or(token))
    }

    /// The token as it came, to be passed on to another member.
    pub(crate) fn token_as_it_came(&self) -> Option<&HeaderValue> {
        self.token.as_ref()
    }

    /// The common name of its certificate, if the port demands certificates. An empty one is
    /// nobody's.
    pub(crate) fn common_name(&self) -> Option<&str> {
        let name = &*self.certificate.as_ref()?.common_name;
        (!name.is_empty()).then_some(name)
    }
}

/// Whether a header is one that gateways to gRPC and HTTP proxies add: then the certificate is not
/// that of who asks (CB-77).
pub(crate) fn is_of_proxy(name: &str) -> bool {
    name == "forwarded" || name.starts_with("x-forwarded-") || name.starts_with("grpcgateway-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-004, CB-77.
    #[test]
    fn a_token_may_have_a_word_before_it() {
        for (header, token) in
            [("abc.1", "abc.1"), ("Bearer abc.1", "abc.1"), ("bearer a", "bearer a")]
        {
            let caller = Caller::new(Some(&HeaderValue::from_static(header)), None);
            assert_eq!(caller.token(), Some(token));
            assert_eq!(caller.common_name(), None);
        }
        let certificate =
            |name: &str| tls::Identity { common_name: name.to_owned(), ..Default::default() };
        let secured = |name: &str| Secured { identity: Some(Arc::new(certificate(name))) };
        let caller = Caller::new(None, Some(&secured("alice")));
        assert_eq!((caller.token(), caller.common_name()), (None, Some("alice")));
        assert_eq!(Caller::new(None, Some(&secured(""))).common_name(), None);
    }
}
