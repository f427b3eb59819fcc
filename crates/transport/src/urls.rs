//! A peer's URLs and the one in use: the next is taken when it fails.

use parking_lot::Mutex;
use url::Url;

/// At least one URL.
#[derive(Debug)]
pub(crate) struct Urls {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    urls: Vec<Url>,
    picked: usize,
}

impl Urls {
    /// # Panics
    /// Without URLs.
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        assert!(!urls.is_empty(), "a peer without URLs");
        Self { inner: Mutex::new(Inner { urls, picked: 0 }) }
    }

    /// Those that can be read; what cannot is left out.
    pub(crate) fn parse<T: AsRef<str>>(texts: &[T]) -> Vec<Url> {
        let parse = |text: &T| Url::parse(text.as_ref()).ok().filter(Url::has_host);
        texts.iter().filter_map(parse).collect()
    }

    pub(crate) fn pick(&self) -> Url {
        let inner = self.inner.lock();
        inner.urls[inner.picked].clone()
    }

    /// Goes to the next URL if `url` is still the one in use.
    pub(crate) fn failed(&self, url: &Url) {
        let mut inner = self.inner.lock();
        if inner.urls[inner.picked] == *url {
            inner.picked = (inner.picked + 1) % inner.urls.len();
        }
    }

    /// Returns whether the URLs are different now.
    pub(crate) fn replace(&self, urls: Vec<Url>) -> bool {
        assert!(!urls.is_empty(), "a peer without URLs");
        let mut inner = self.inner.lock();
        if inner.urls == urls {
            return false;
        }
        *inner = Inner { urls, picked: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_url_gives_way_to_the_next() {
        let all = Urls::parse(&["http://a:1", "http://b:2", "no url", "data:,x"]);
        assert_eq!(all.len(), 2);
        let urls = Urls::new(all.clone());
        urls.failed(&all[1]);
        assert_eq!(urls.pick(), all[0]);
        urls.failed(&all[0]);
        urls.failed(&all[0]);
        assert_eq!(urls.pick(), all[1]);
        urls.failed(&all[1]);
        assert_eq!(urls.pick(), all[0]);
        assert!(!urls.replace(all.clone()));
        assert!(urls.replace(all[1..].to_vec()));
        assert_eq!(urls.pick(), all[1]);
    }
}
