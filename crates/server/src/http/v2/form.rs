//! Parameters of a request as Go's `ParseForm` finds them: those of the body before those of the
//! query, a name's first value counts (V2-067).
//!
//! Source: Go's net/http/request.go, net/url/url.go, for the texts too.

use axum::http::{HeaderMap, Method, header};

use super::{BodyError, media_type};

/// Parameters in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Reads query and body; the error is Go's text.
    pub(super) fn parse(
        query: &str,
        headers: &HeaderMap,
        body: Result<&[u8], BodyError>,
    ) -> Result<Self, String> {
        let mut form = Self::default();
        let of_body = form.add_body(headers, body);
        let of_query = form.add(query.as_bytes());
        of_body.and(of_query)?;
        Ok(form)
    }

    fn add_body(
        &mut self,
        headers: &HeaderMap,
        body: Result<&[u8], BodyError>,
    ) -> Result<(), String> {
        let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
        let Some(kind) = kind.filter(|kind| !kind.is_empty()) else { return Ok(()) };
        if media_type::parse(kind)? != "application/x-www-form-urlencoded" {
            return Ok(());
        }
        match body {
            Ok(body) => self.add(body),
            Err(BodyError::TooLarge) => Err("http: POST too large".to_owned()),
            Err(BodyError::Broken) => Err("unexpected EOF".to_owned()),
        }
    }

    fn add(&mut self, text: &[u8]) -> Result<(), String> {
        let mut wrong = None;
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if pair.contains(&b';') {
                wrong = Some("invalid semicolon separator in query".to_owned());
                continue;
            }
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            match (unescape(name), unescape(value)) {
                (Ok(name), Ok(value)) => self.pairs.push((name, value)),
                (Err(error), _) | (_, Err(error)) => {
                    wrong.get_or_insert(error);
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The first value of a name, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// A number without a sign; 0 if it is not there.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            None => Some(0),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
        }
    }

    /// A flag (V2-034); `false` if it is not there.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Some(false),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Some(true),
            Some(_) => None,
        }
    }
}

/// Whether a request's body is looked at for parameters.
pub(super) fn has_body(method: &Method) -> bool {
    [Method::POST, Method::PUT].contains(method)
}

fn unescape(text: &[u8]) -> Result<String, String> {
    let digit = |byte: Option<&u8>| {
        let digit = char::from(*byte?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (high, low) = (digit(text.get(at + 1)), digit(text.get(at + 2)));
                let (Some(high), Some(low)) = (high, low) else {
                    let end = text.len().min(at + 3);
                    let part = String::from_utf8_lossy(&text[at..end]);
                    return Err(format!("invalid URL escape {part:?}"));
                };
                decoded.push((high << 4) | low);
                at += 2;
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    Ok(v2store::text::of_bytes(&decoded))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parse(query: &str, kind: &'static str, body: &str) -> Result<Form, String> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Form::parse(query, &headers, Ok(body.as_bytes()))
    }

    /// V2-020, V2-034, V2-035, V2-067.
    #[test]
    fn parameters_are_found_as_go_finds_them() {
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let form = parse("value=query&dir=t&ttl=5", kind, "value=a+b%26&prevExist=maybe").unwrap();
        assert_eq!(form.text("value"), "a b&");
        assert_eq!((form.flag("dir"), form.flag("wait")), (Some(true), Some(false)));
        assert_eq!(form.flag("prevExist"), None);
        assert_eq!((form.number("ttl"), form.number("prevIndex")), (Some(5), Some(0)));
        let form = parse("value=query&n=+5&e=", "application/json", "{}").unwrap();
        assert_eq!((form.text("value"), form.number("n"), form.number("e")), ("query", None, None));
        assert_eq!(parse("", "", "value=x").unwrap().get("value"), None);
        for (query, expected) in [
            ("a=%zz1", "invalid URL escape \"%zz\""),
            ("a=%", "invalid URL escape \"%\""),
            ("a=1;b=2", "invalid semicolon separator in query"),
        ] {
            assert_eq!(parse(query, "", "").unwrap_err(), expected);
        }
    }
}
