//! One line of comma-separated values, as list flags are written.

use crate::quote::quote;

/// A list that cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parse error on line 1, column {column}: {reason}")]
pub struct CsvError {
    column: usize,
    reason: String,
}

/// Splits at commas outside of double quotes. An empty text is an empty list.
pub(crate) fn split(text: &str) -> Result<Vec<String>, CsvError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let column = text.len() - rest.len() + 1;
        let (field, after) = if rest.starts_with('"') {
            quoted_field(rest, column)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if let Some(bare) = field.find('"').filter(|_| !rest.starts_with('"')) {
            let reason = format!("bare {} in non-quoted-field", quote(b"\""));
            return Err(CsvError { column: column + bare, reason });
        }
        fields.push(field);
        let Some(next) = after.strip_prefix(',') else {
            return Ok(fields);
        };
        rest = next;
    }
}

/// Reads a field that begins with a quote; two quotes inside stand for one.
fn quoted_field(text: &str, column: usize) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    let mut rest = &text[1..];
    loop {
        let error = || CsvError {
            column,
            reason: format!("extraneous or missing {} in quoted-field", quote(b"\"")),
        };
        let (inside, after) = rest.split_once('"').ok_or_else(error)?;
        field.push_str(inside);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn commas_split_outside_quotes() {
        assert_eq!(split("").unwrap(), Vec::<String>::new());
        assert_eq!(split("a,b").unwrap(), ["a", "b"]);
        assert_eq!(split("a,").unwrap(), ["a", ""]);
        assert_eq!(split(r#""a,b",c"#).unwrap(), ["a,b", "c"]);
        assert_eq!(split(r#""a""b""#).unwrap(), ["a\"b"]);
        assert!(split(r#"a"b"#).is_err());
    }
}
