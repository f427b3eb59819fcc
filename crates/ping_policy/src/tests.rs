//! Pings in all their rhythms, and the end of a connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const HEADERS: u8 = 1;
const PING: u8 = 6;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frames::head(kind, payload.len()).to_vec();
    (frame[4], frame[8]) = (flags, stream);
    frame.extend(payload);
    frame
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

/// A connection whose pings come at given times.
struct Rhythm {
    watched: Watched,
    began: Instant,
}

impl Rhythm {
    fn new() -> Self {
        let policy = PingPolicy::new(Duration::from_secs(5));
        Self { watched: Watched::new(policy), began: Instant::now() }
    }

    fn open_call(&mut self, stream: u8) {
        self.watched.on_received(&frame(HEADERS, 0, stream, b"request"), || unreachable!());
    }

    /// Whether a ping this long after the beginning is one too many.
    fn ping(&mut self, second: u64) -> bool {
        let now = self.began + Duration::from_secs(second);
        self.watched.on_received(&ping(), || now)
    }
}

/// G-010.
#[test]
fn the_fourth_of_quick_pings_is_too_much() {
    let mut calls = Rhythm::new();
    calls.open_call(1);
    let pings: Vec<_> = (0..5).map(|ping| calls.ping(ping * 4)).collect();
    assert_eq!(pings, [false, false, false, true, true]);
}

/// G-010.
#[test]
fn a_client_with_an_open_call_may_ping_in_time() {
    let mut calls = Rhythm::new();
    calls.open_call(1);
    assert!((0..20).all(|ping| !calls.ping(ping * 5)));
    // Strikes stay through pings in time, and the third is too much.
    assert!(!calls.ping(96) && !calls.ping(101) && !calls.ping(102) && !calls.ping(110));
    assert!(calls.ping(111));
}

/// G-010.
#[test]
fn an_idle_client_may_hardly_ping_at_all() {
    let mut calls = Rhythm::new();
    assert!(!calls.ping(0) && !calls.ping(60) && !calls.ping(120));
    assert!(calls.ping(180));
    // The end of the call counts, by an answer as by either side's reset.
    for ended in [frame(HEADERS, END_STREAM, 1, b"trailers"), frame(3, 0, 1, &[0; 4])] {
        let mut calls = Rhythm::new();
        calls.open_call(1);
        assert!(!calls.ping(0));
        calls.watched.on_sent(&ended);
        // An answer forgives the ping after it.
        let first_wrong = if ended[3] == HEADERS { 40 } else { 30 };
        let wrong: Vec<u64> = [10, 20, 30, 40].into_iter().filter(|&at| calls.ping(at)).collect();
        assert_eq!(wrong.first(), Some(&first_wrong));
    }
}

/// G-010: traffic may come with pings, as flow control wants.
#[test]
fn answers_wipe_out_strikes() {
    let mut calls = Rhythm::new();
    calls.open_call(1);
    for second in 0..100 {
        assert!(!calls.ping(second));
        calls.watched.on_sent(&frame(0, 0, 1, b"data"));
    }
    assert!(!calls.ping(100));
}

/// Anything else is none of the policy's business.
#[test]
fn answers_to_pings_do_not_count_and_zero_means_five_minutes() {
    let mut calls = Rhythm::new();
    let acks = frame(PING, ACK, 0, &[7; 8]).repeat(10);
    assert!(!calls.watched.on_received(&acks, || unreachable!()));
    assert_eq!(PingPolicy::new(Duration::ZERO).interval_min, Duration::from_secs(300));
}

/// The farewell waits for the end of the frame that is being sent.
#[tokio::test]
async fn the_farewell_stands_between_two_frames() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut policed = Policed::new(near, Some(PingPolicy::new(Duration::from_secs(5))));
    far.write_all(PREFACE).await.unwrap();
    let mut read = [0; 256];
    assert_eq!(policed.read(&mut read).await.unwrap(), PREFACE.len());
    let answer = frame(0, 0, 1, b"answer");
    policed.write_all(&answer[..5]).await.unwrap();
    far.write_all(&ping().repeat(4)).await.unwrap();
    assert_eq!(policed.read(&mut read).await.unwrap(), ping().len() * 4);
    let more = [&answer[5..], &answer].concat();
    let error = policed.write_all(&more).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(policed.read(&mut read).await.is_err());
    drop(policed);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    let farewell = bytes.strip_prefix(answer.as_slice()).unwrap();
    assert_eq!(farewell[3], frames::GO_AWAY);
    assert_eq!(farewell[13..17], ENHANCE_YOUR_CALM.to_be_bytes());
    assert_eq!(&farewell[17..], DEBUG_DATA);
}

/// HTTP/1.1 passes as it is.
#[tokio::test]
async fn other_protocols_are_left_alone() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut policed = Policed::new(near, Some(PingPolicy::new(Duration::from_secs(5))));
    let text = [b"PRI * HTTP/1.1\r\n".as_slice(), &ping().repeat(10)].concat();
    far.write_all(&text).await.unwrap();
    drop(far);
    let mut read = Vec::new();
    policed.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, text);
}
