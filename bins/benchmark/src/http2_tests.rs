//! Tests of the HTTP/2 client half: frames are built by hand.

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(payload.len(), kind, flags, stream).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [message_prefix(bytes.len()).as_slice(), bytes].concat()
}

fn started() -> Http2 {
    let mut http2 = Http2::new("localhost");
    http2.on_written(http2.output().len());
    http2
}

/// Events as text, so that borrowed bytes can be compared after the fact.
fn feed(http2: &mut Http2, bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    http2.feed(bytes, &mut |event| events.push(format!("{event:?}"))).unwrap();
    events
}

#[test]
fn unary_answer_is_a_message_and_an_end() {
    let mut http2 = started();
    let stream = http2.open(7, "/m", false).unwrap();
    let bytes = [
        frame(HEADERS, FLAG_END_HEADERS, stream, &[0x88]),
        frame(DATA, 0, stream, &message(b"ok")),
        frame(HEADERS, FLAG_END_HEADERS | FLAG_END_STREAM, stream, &[0x88]),
    ]
    .concat();
    let whole = feed(&mut http2, &bytes);
    assert_eq!(
        whole,
        ["Message { tag: 7, bytes: [111, 107], len: 2 }", "End { tag: 7, messages: 1 }"]
    );
    assert!(http2.streams.is_empty());
}

#[test]
fn answer_in_single_bytes_is_the_same_answer() {
    let mut http2 = started();
    let stream = http2.open(7, "/m", true).unwrap();
    let bytes = [
        frame(DATA, 0, stream, &message(b"ok")[..4]),
        frame(DATA, FLAG_END_STREAM, stream, &message(b"ok")[4..]),
    ]
    .concat();
    let events: Vec<_> =
        bytes.iter().flat_map(|byte| feed(&mut http2, std::slice::from_ref(byte))).collect();
    assert_eq!(
        events,
        ["Message { tag: 7, bytes: [111, 107], len: 2 }", "End { tag: 7, messages: 1 }"]
    );
    assert!(http2.partial.is_empty());
}

#[test]
fn failed_call_has_no_message() {
    let mut http2 = started();
    let stream = http2.open(1, "/m", false).unwrap();
    let bytes = frame(HEADERS, FLAG_END_HEADERS | FLAG_END_STREAM, stream, &[0x88]);
    assert_eq!(feed(&mut http2, &bytes), ["End { tag: 1, messages: 0 }"]);
}

#[test]
fn spread_message_that_is_not_collected_still_has_its_length() {
    let mut http2 = started();
    let stream = http2.open(1, "/m", false).unwrap();
    let bytes = message(&[9; 10]);
    let bytes = [frame(DATA, 0, stream, &bytes[..8]), frame(DATA, 0, stream, &bytes[8..])].concat();
    assert_eq!(feed(&mut http2, &bytes), ["Message { tag: 1, bytes: [], len: 10 }"]);
}

#[test]
fn message_waits_for_the_windows_and_goes_out_whole() {
    let mut http2 = started();
    let stream = http2.open(1, "/m", false).unwrap();
    http2.on_written(http2.output().len());
    http2.send(stream, &[5; 100_000], true);
    let sent = |http2: &Http2| {
        let mut rest = http2.output();
        let (mut bytes, mut ended) = (0, false);
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let len = usize::from(header[1]) << 8 | usize::from(header[2]);
            assert!(!ended && header[3] == DATA);
            bytes += len;
            ended = header[4] == FLAG_END_STREAM;
            rest = &after[len..];
        }
        (bytes, ended)
    };
    assert_eq!(sent(&http2), (65_535, false));
    let grant = 1_000_000u32.to_be_bytes();
    feed(&mut http2, &frame(WINDOW_UPDATE, 0, 0, &grant));
    assert_eq!(sent(&http2), (65_535, false), "the stream's own window is still used up");
    feed(&mut http2, &frame(WINDOW_UPDATE, 0, stream, &grant));
    assert_eq!(sent(&http2), (100_005, true));
}

#[test]
fn pings_and_settings_are_acknowledged() {
    let mut http2 = started();
    feed(&mut http2, &frame(PING, 0, 0, b"12345678"));
    assert_eq!(http2.output(), frame(PING, FLAG_ACK, 0, b"12345678"));
    http2.on_written(http2.output().len());
    feed(&mut http2, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]));
    assert_eq!(http2.output(), frame(SETTINGS, FLAG_ACK, 0, &[]));
    http2.open(1, "/m", false).unwrap();
    assert_eq!(http2.open(2, "/m", false), Err(Http2Error::TooManyStreams { max: 1 }));
}

#[test]
fn closing_server_is_an_error_with_its_text() {
    let mut http2 = started();
    let payload = [&[0, 0, 0, 0, 0, 0, 0, 11][..], b"too_many_pings"].concat();
    let error = http2.feed(&frame(GOAWAY, 0, 0, &payload), &mut |_| {}).unwrap_err();
    assert_eq!(error, Http2Error::GoAway { code: 11, text: "too_many_pings".to_owned() });
}

#[test]
fn padded_data_loses_its_padding() {
    let mut http2 = started();
    let stream = http2.open(1, "/m", false).unwrap();
    let payload = [&[2][..], &message(b"x"), &[0, 0]].concat();
    let events = feed(&mut http2, &frame(DATA, FLAG_PADDED, stream, &payload));
    assert_eq!(events, ["Message { tag: 1, bytes: [120], len: 1 }"]);
}
