//! The type of a body, as far as Go looks at it before it reads a form.
//!
//! Source: Go's mime/mediatype.go, for the texts too.

/// The type without its parameters, in small letters; the error is Go's text.
pub(super) fn parse(text: &str) -> Result<String, &'static str> {
    let (kind, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let kind = kind.trim().to_ascii_lowercase();
    check_kind(&kind)?;
    check_parameters(parameters)?;
    Ok(kind)
}

fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (name, rest) = token(kind);
    if name.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let rest = rest.strip_prefix('/').ok_or("mime: expected slash after first token")?;
    match token(rest) {
        ("", _) => Err("mime: expected token after slash"),
        (_, "") => Ok(()),
        _ => Err("mime: unexpected content after media subtype"),
    }
}

fn check_parameters(mut rest: &str) -> Result<(), &'static str> {
    let mut known: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        let Some((name, value, behind)) = parameter(rest) else {
            // A semicolon at the end is forgiven.
            return if rest.trim() == ";" { Ok(()) } else { Err("mime: invalid media parameter") };
        };
        if known.iter().any(|(other, old)| *other == name && *old != value) {
            return Err("mime: duplicate parameter name");
        }
        known.push((name, value));
        rest = behind;
    }
}

/// Name and value of the first parameter, and what is behind it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => quoted(rest)?,
        None => {
            let (value, behind) = token(rest);
            if value.is_empty() && behind == rest {
                return None;
            }
            (value.to_owned(), behind)
        }
    };
    Some((name.to_ascii_lowercase(), value, rest))
}

/// What stands before the quote that ends it, and what is behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\r' | '\n' => return None,
            '\\' => match letters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            letter => value.push(letter),
        }
    }
    None
}

/// Splits behind the letters that may stand without quotes.
fn token(text: &str) -> (&str, &str) {
    let is_special = |c: char| !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?=".contains(c);
    text.split_at(text.find(is_special).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-035, V2-067.
    #[test]
    fn types_are_read_as_go_does() {
        for (text, expected) in [
            ("Application/X-WWW-Form-Urlencoded", Ok("application/x-www-form-urlencoded")),
            ("text", Ok("text")),
            ("a/b; charset=utf-8;", Ok("a/b")),
            ("a/b; x=\"q;\\\"\" ; y = 1", Ok("a/b")),
            ("a/b; x=1; x=1", Ok("a/b")),
            (";", Err("mime: no media type")),
            ("/", Err("mime: no media type")),
            ("a b", Err("mime: expected slash after first token")),
            ("a/", Err("mime: expected token after slash")),
            ("a/b/c", Err("mime: unexpected content after media subtype")),
            ("a/b; x", Err("mime: invalid media parameter")),
            ("a/b; x=", Err("mime: invalid media parameter")),
            ("a/b; x=\"", Err("mime: invalid media parameter")),
            ("a/b; x=1; X=2", Err("mime: duplicate parameter name")),
        ] {
            assert_eq!(parse(text), expected.map(str::to_owned), "{text}");
        }
    }
}
