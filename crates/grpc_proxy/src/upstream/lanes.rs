//! Connections for streams that their clients may leave unread.
//!
//! What nobody reads stays in the window of its connection; once that is full, nothing else comes
//! through. So such streams have connections of their own, and each takes only as many as its
//! window has room for: none waits for another. Beyond that they share what there is, and may wait
//! for each other; calls never wait for them.

use std::sync::Arc;

use client::{Client, Options};
use parking_lot::Mutex;

/// Connections at a time.
const LANES_MAX: usize = 16;

/// Streams that a connection has room for.
const STREAMS_MAX: usize = 16;

/// Bytes on their way to somebody who does not read.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;

/// Room for all of them.
const LANE_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * 16;

/// All such connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    lanes: Arc<Mutex<[Lane; LANES_MAX]>>,
}

/// One connection; none without streams.
#[derive(Debug, Default)]
struct Lane {
    endpoint: String,
    streams: usize,
    client: Option<Client>,
}

/// A stream's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    lanes: Lanes,
    number: usize,
}

impl Lanes {
    /// A connection to a member, and the place on it.
    pub(super) async fn enter(
        &self,
        options: &Options,
        endpoint: &str,
    ) -> Result<(Client, Place), client::Error> {
        let (number, known) = self.choose(endpoint);
        let place = Place { lanes: self.clone(), number };
        if let Some(client) = known {
            return Ok((client, place));
        }
        let options = Options {
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: LANE_WINDOW_BYTES,
            ..options.at(vec![endpoint.to_owned()])
        };
        // Nothing is opened before the first call.
        let made = Client::connect(options).await?;
        let client = self.lanes.lock()[number].client.get_or_insert(made).clone();
        Ok((client, place))
    }

    /// Takes a place: beside others if there is room, else alone, else where the fewest are.
    fn choose(&self, endpoint: &str) -> (usize, Option<Client>) {
        let mut lanes = self.lanes.lock();
        let rank = |lane: &Lane| {
            let is_there = lane.endpoint == endpoint;
            match lane.streams {
                0 => (1, false, 0),
                streams if is_there && streams < STREAMS_MAX => (0, false, streams),
                streams => (2, !is_there, streams),
            }
        };
        let best = lanes.iter().enumerate().min_by_key(|(_, lane)| rank(lane));
        let number = best.expect("there are lanes").0;
        let lane = &mut lanes[number];
        if lane.streams == 0 {
            *lane = Lane { endpoint: endpoint.to_owned(), ..Lane::default() };
        }
        lane.streams += 1;
        (number, lane.client.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let lane = &mut self.lanes.lanes.lock()[self.number];
        lane.streams -= 1;
        if lane.streams == 0 {
            // The connection ends.
            lane.client = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reliability 6: what nobody reads is bounded, and holds up nobody who has a place alone.
    #[tokio::test]
    async fn streams_share_only_what_has_room_for_them() {
        let (lanes, options) = (Lanes::default(), Options::new(vec!["127.0.0.1:1".to_owned()]));
        let mut places = Vec::new();
        for number in 0..LANES_MAX * STREAMS_MAX {
            let endpoint = if number == 0 { "127.0.0.1:2" } else { "127.0.0.1:1" };
            places.push(lanes.enter(&options, endpoint).await.unwrap());
        }
        let counts = || lanes.lanes.lock().each_ref().map(|lane| lane.streams);
        assert_eq!(counts()[0], 1);
        assert_eq!(counts()[1..], [STREAMS_MAX + 1; LANES_MAX - 1]);
        // The same connection where there is room, and none that nobody uses.
        let (client, place) = lanes.enter(&options, "127.0.0.1:2").await.unwrap();
        assert_eq!(client.endpoints().collect::<Vec<_>>(), ["127.0.0.1:2"]);
        drop((client, place, places));
        assert_eq!(counts(), [0; LANES_MAX]);
        assert!(lanes.lanes.lock().iter().all(|lane| lane.client.is_none()));
    }

    /// Windows are the bound.
    #[test]
    fn a_lane_has_room_for_its_streams() {
        let streams = u32::try_from(STREAMS_MAX).unwrap();
        assert_eq!(STREAM_WINDOW_BYTES * streams, LANE_WINDOW_BYTES);
    }
}
