//! What is read, and the words of what is not: all of it seen at the gateways of etcd 3.5.30 and
//! 3.7.1.

use prost::Message as _;
use proto::etcdserverpb::{self as pb, RangeRequest, TxnRequest};

use super::super::Form;
use super::*;

fn range(text: &str) -> Result<RangeRequest, String> {
    let form = Form::of("/etcdserverpb.KV/Range").unwrap();
    let read = read(form.request, text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(RangeRequest::decode(&read.encode_to_vec()[..]).unwrap())
}

fn txn(text: &str) -> Result<TxnRequest, String> {
    let form = Form::of("/etcdserverpb.KV/Txn").unwrap();
    let read = read(form.request, text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(TxnRequest::decode(&read.encode_to_vec()[..]).unwrap())
}

/// GW-13.
#[test]
fn integers_come_as_numbers_or_text() {
    for (text, limit) in [
        ("7", 7),
        ("\"7\"", 7),
        ("7.0", 7),
        ("\"70e-1\"", 7),
        ("-0", 0),
        ("null", 0),
        ("\"-9223372036854775808\"", i64::MIN),
        ("\"7 8\"", 7),
    ] {
        let read = range(&format!(r#"{{"limit":{text}}}"#)).unwrap();
        assert_eq!(read.limit, limit, "{text}");
    }
    for text in ["1.5", "\"\"", "\" 1\"", "\"0x1\"", "9223372036854775808", "true", "[]", "{}"] {
        let error = range(&format!(r#"{{"limit":{text}}}"#)).unwrap_err();
        let token = if text.len() == 2 && !text.starts_with('"') { &text[..1] } else { text };
        assert_eq!(
            error,
            format!("proto: (line 1:10): invalid value for int64 field limit: {token}")
        );
    }
}

/// GW-13.
#[test]
fn bytes_come_in_either_alphabet() {
    for (text, key) in [
        ("Zm9v", &b"foo"[..]),
        ("_-8=", &[0xff, 0xef]),
        ("/+8", &[0xff, 0xef]),
        ("Zg", b"f"),
        ("Zh==", b"f"),
        (r"Zm\n9v", b"foo"),
        (r"\u005am9v", b"foo"),
        ("", b""),
    ] {
        assert_eq!(range(&format!(r#"{{"key":"{text}"}}"#)).unwrap().key, key, "{text}");
    }
    for text in ["Zm9v===", "Zg=", "Zm9v=", "Z m9v", "/-8=", "%%", "Zm9vY"] {
        let error = range(&format!(r#"{{"key":"{text}"}}"#)).unwrap_err();
        let expected = format!(r#"proto: (line 1:8): invalid value for bytes field key: "{text}""#);
        assert_eq!(error, expected);
    }
}

/// GW-14.
#[test]
fn enumerations_come_by_name_or_number() {
    for (text, order) in
        [("\"DESCEND\"", 2), ("2", 2), ("2.0", 2), ("7", 7), ("-1", -1), ("\"descend\"", 0)]
    {
        let read = range(&format!(r#"{{"sortOrder":{text}}}"#)).unwrap();
        assert_eq!(read.sort_order, order, "{text}");
    }
    let error = range(r#"{"sort_order":99999999999}"#).unwrap_err();
    assert_eq!(error, "proto: (line 1:15): invalid value for enum field sortOrder: 99999999999");
}

/// GW-14.
#[test]
fn what_nobody_knows_is_passed_over() {
    let text = r#"{"KEY":1,"x":{"a":[1,{"b":null}],"c":"}"},"[x]":{},"":[],"key":"YQ==","y":[[]]}"#;
    assert_eq!(range(text).unwrap(), RangeRequest { key: "a".into(), ..Default::default() });
}

#[test]
fn nothing_is_said_twice() {
    let error = range(r#"{"rangeEnd":"", "range_end":""}"#).unwrap_err();
    assert_eq!(error, r#"proto: (line 1:17): duplicate field "range_end""#);
    let error = txn(r#"{"compare":[{"key":"YQ==","version":1,"value":"YQ=="}]}"#).unwrap_err();
    let set = r#"error parsing "value", oneof etcdserverpb.Compare.target_union is already set"#;
    assert_eq!(error, format!("proto: (line 1:39): {set}"));
    // What is null is not there.
    assert!(txn(r#"{"compare":[{"version":null,"value":"YQ=="}]}"#).is_ok());
}

#[test]
fn what_is_no_message_is_named() {
    for (text, token) in [("null", "null"), ("[{}]", "["), ("\"x\"", "\"x\""), ("-1.5", "-1.5")] {
        let expected = format!("proto: syntax error (line 1:1): unexpected token {token}");
        assert_eq!(range(text).unwrap_err(), expected);
    }
    let error = txn("\n{\n \"compare\": [null]}").unwrap_err();
    assert_eq!(error, "proto: syntax error (line 2:14): unexpected token null");
    let error = txn(r#"{"é":0,"compare":{}}"#).unwrap_err();
    assert_eq!(error, "proto: syntax error (line 1:18): unexpected token {");
}

#[test]
fn strings_are_characters() {
    let form = Form::of("/etcdserverpb.Auth/UserAdd").unwrap();
    let name = |text: &[u8]| {
        let read = read(form.request.clone(), text).map_err(|error| error.to_string())?;
        Ok::<_, String>(pb::AuthUserAddRequest::decode(&read.encode_to_vec()[..]).unwrap().name)
    };
    assert_eq!(
        name(br#"{"name":"\ud83d\ude00\"\\\/\b\f\n\r\t"}"#).unwrap(),
        "😀\"\\/\u{8}\u{c}\n\r\t"
    );
    let error = name(b"{\"name\":\"\xff\"}").unwrap_err();
    assert_eq!(error, "proto: syntax error (line 1:9): invalid UTF-8 in string");
    let error = name(br#"{"name":"\ud800abcdefgh"}"#).unwrap_err();
    assert_eq!(error, r#"proto: syntax error (line 1:9): invalid escape code "abcdef" in string"#);
    assert_eq!(name(br#"{"name":"\ud800"}"#).unwrap_err(), "proto: unexpected EOF");
}

#[test]
fn messages_are_not_read_without_end() {
    let nested = |depth: usize| {
        let begin = r#"{"success":[{"requestTxn":"#.repeat(depth);
        txn(&format!("{begin}{{}}{}", "}]}".repeat(depth)))
    };
    assert!(nested(49).is_ok());
    assert_eq!(nested(50).unwrap_err(), "proto: exceeded max recursion depth");
}

/// What [`of_kind`] leaves out.
#[test]
fn no_request_has_a_fraction_or_a_map() {
    let mut forms: Vec<_> =
        proto::HTTP_RULES.iter().map(|(_, call)| Form::of(call).unwrap().request).collect();
    let mut known = BTreeSet::new();
    while let Some(form) = forms.pop() {
        if !known.insert(form.full_name().to_owned()) {
            continue;
        }
        for field in form.fields() {
            assert!(!field.is_map(), "{}", field.full_name());
            let kind = field.kind();
            assert!(!matches!(kind, Kind::Double | Kind::Float), "{}", field.full_name());
            if let Kind::Message(form) = kind {
                forms.push(form);
            }
        }
    }
}
