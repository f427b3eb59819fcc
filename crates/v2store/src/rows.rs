//! The store as rows of a bucket: one for each node and event, and the index.
//!
//! Layout: docs/formats/v2store.md. Rows are a function of the store's content, so that all members
//! have the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::history::{EVENTS_MAX, History};
use crate::reader::Content;
use crate::store::Unsaved;
use crate::tree::{Meta, Node, Tree};
use crate::{Action, Event, NodeView, Store, path};

/// A row to be written, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Bytes,
    /// Its value; `None` to remove it.
    pub value: Option<Bytes>,
}

/// A row that no store of ours wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the row at key {key}")]
pub struct DamagedRow {
    /// The key, readable.
    pub key: String,
}

const INDEX_KEY: &[u8] = b"index";
const EVENT_KEY: &[u8] = b"event/";
/// Begins the key of a node whose path is too long to be one.
const LONG: u8 = b'#';
/// The database takes 32,768 bytes.
const PATH_BYTES_MAX: usize = 32_000;

impl Store {
    /// Reads a store back from all of its rows, in any order; a new one from none.
    ///
    /// # Errors
    ///
    /// [`DamagedRow`] for bytes that are no row, or rows that do not fit together.
    pub fn restore(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self, DamagedRow> {
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut events: BTreeMap<u64, Event> = BTreeMap::new();
        let mut index = 0;
        for (key, value) in rows {
            let damaged = || DamagedRow { key: key.escape_ascii().to_string() };
            if key == INDEX_KEY {
                index = u64::from_be_bytes(value[..].try_into().map_err(|_| damaged())?);
            } else if key.starts_with(EVENT_KEY) {
                let event = decode_event(value).ok_or_else(damaged)?;
                events.insert(event.index, event);
            } else {
                let (path, node) = decode_node(&key, value).ok_or_else(damaged)?;
                nodes.insert(path, node);
            }
        }
        let mut tree = Tree::new();
        for (path, node) in nodes {
            let (parent, _) = path::split(&path);
            if tree.get(parent).is_none_or(|parent| !parent.is_dir()) {
                return Err(DamagedRow { key: path });
            }
            tree.put(&path, node);
        }
        let first = events.first_key_value().map_or(index + 1, |(index, _)| *index);
        let mut history = History::after(first.saturating_sub(1));
        for (at, event) in (first..).zip(events.into_values()) {
            if event.index != at || index < at {
                return Err(DamagedRow { key: format!("event/{}", event.index % EVENTS_MAX) });
            }
            history.push(Arc::new(event));
        }
        if history.end() != index + 1 {
            return Err(DamagedRow { key: "index".to_owned() });
        }
        Ok(Self::of(Content { tree, history, index }))
    }

    /// The rows that changed since this was called last; after [`Store::restore`] since then.
    #[must_use]
    pub fn take_rows(&mut self) -> Vec<Row> {
        let Unsaved { paths, from } = std::mem::take(&mut self.unsaved);
        let content = self.shared.content.read();
        let mut rows = Vec::with_capacity(paths.len() + 2);
        for path in paths {
            let value = content.tree.get(&path).map(|node| encode_node(&path, &node));
            rows.push(Row { key: node_key(&path), value });
        }
        if let Some(from) = from {
            let from = from.max(content.history.start());
            let events = (from..).map_while(|index| content.history.get(index));
            rows.extend(events.map(|event| event_row(event)));
            let index = Bytes::copy_from_slice(&content.index.to_be_bytes());
            rows.push(Row { key: Bytes::from_static(INDEX_KEY), value: Some(index) });
        }
        rows
    }

    /// All rows, for a store that did not come from rows.
    ///
    /// # Panics
    ///
    /// If the tree does not hold what it lists.
    #[must_use]
    pub fn all_rows(&self) -> Vec<Row> {
        let content = self.shared.content.read();
        let mut rows = Vec::new();
        for (_, node) in content.tree.list("/", true, |_| false) {
            if Tree::is_fixed(&node.key) {
                continue;
            }
            let found = content.tree.get(&node.key).expect("what is listed is there");
            rows.push(Row {
                key: node_key(&node.key),
                value: Some(encode_node(&node.key, &found)),
            });
        }
        rows.extend(content.history.events().map(|event| event_row(event)));
        let index = Bytes::copy_from_slice(&content.index.to_be_bytes());
        rows.push(Row { key: Bytes::from_static(INDEX_KEY), value: Some(index) });
        rows
    }
}

fn event_row(event: &Event) -> Row {
    let key = format!("event/{:03}", event.index % EVENTS_MAX);
    Row { key: key.into(), value: Some(encode_event(event)) }
}

fn node_key(path: &str) -> Bytes {
    if path.len() <= PATH_BYTES_MAX {
        return Bytes::copy_from_slice(path.as_bytes());
    }
    let mut key = BytesMut::with_capacity(33);
    key.put_u8(LONG);
    key.put_slice(&Sha256::digest(path.as_bytes()));
    key.freeze()
}

/// Bits of a node's first byte.
mod flag {
    pub(super) const DIR: u8 = 1;
    pub(super) const EXPIRES: u8 = 2;
    pub(super) const VALUE: u8 = 4;
    pub(super) const REFRESH: u8 = 1;
    pub(super) const PREVIOUS: u8 = 2;
    pub(super) const AT: u8 = 4;
}

fn encode_node(path: &str, node: &Node) -> Bytes {
    let value = node.value.as_deref().unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(25 + value.len());
    let mut flags = if node.is_dir() { flag::DIR } else { flag::VALUE };
    if node.meta.expires.is_some() {
        flags |= flag::EXPIRES;
    }
    bytes.put_u8(flags);
    bytes.put_u64(node.meta.created);
    bytes.put_u64(node.meta.modified);
    if let Some(expires) = node.meta.expires {
        bytes.put_i64(expires);
    }
    if PATH_BYTES_MAX < path.len() {
        put_text(&mut bytes, path);
    }
    bytes.put_slice(value.as_bytes());
    bytes.freeze()
}

fn decode_node(key: &Bytes, mut value: Bytes) -> Option<(String, Node)> {
    let flags = value.try_get_u8().ok()?;
    let created = value.try_get_u64().ok()?;
    let modified = value.try_get_u64().ok()?;
    let expires = take_if(flags & flag::EXPIRES != 0, || value.try_get_i64().ok())?;
    let path = if key.first() == Some(&LONG) {
        take_text(&mut value)?
    } else {
        str::from_utf8(key).ok()?.to_owned()
    };
    if path::clean(&path) != path || path == "/" {
        return None;
    }
    let text = (flags & flag::DIR == 0).then(|| str::from_utf8(&value).map(Arc::from));
    let node = Node { meta: Meta { created, modified, expires }, value: text.transpose().ok()? };
    Some((path, node))
}

fn encode_event(event: &Event) -> Bytes {
    let mut bytes = BytesMut::with_capacity(128);
    bytes.put_u64(event.index);
    let action = Action::ALL.iter().position(|action| *action == event.action);
    let action = action.and_then(|action| u8::try_from(action).ok());
    bytes.put_u8(action.expect("there are eight actions"));
    let mut flags = 0;
    if event.refresh {
        flags |= flag::REFRESH;
    }
    if event.prev_node.is_some() {
        flags |= flag::PREVIOUS;
    }
    if event.at.is_some() {
        flags |= flag::AT;
    }
    bytes.put_u8(flags);
    if let Some(at) = event.at {
        bytes.put_i64(at);
    }
    put_view(&mut bytes, &event.node);
    if let Some(before) = &event.prev_node {
        put_view(&mut bytes, before);
    }
    bytes.freeze()
}

fn decode_event(mut bytes: Bytes) -> Option<Event> {
    let index = bytes.try_get_u64().ok()?;
    let action = *Action::ALL.get(usize::from(bytes.try_get_u8().ok()?))?;
    let flags = bytes.try_get_u8().ok()?;
    let at = take_if(flags & flag::AT != 0, || bytes.try_get_i64().ok())?;
    let node = take_view(&mut bytes)?;
    let prev_node = take_if(flags & flag::PREVIOUS != 0, || take_view(&mut bytes))?;
    let refresh = flags & flag::REFRESH != 0;
    bytes.is_empty().then_some(Event {
        action,
        node,
        prev_node,
        below: Vec::new(),
        index,
        at,
        refresh,
    })
}

fn put_view(bytes: &mut BytesMut, view: &NodeView) {
    let mut flags = if view.dir { flag::DIR } else { 0 };
    if view.expires.is_some() {
        flags |= flag::EXPIRES;
    }
    if view.value.is_some() {
        flags |= flag::VALUE;
    }
    bytes.put_u8(flags);
    bytes.put_u64(view.created);
    bytes.put_u64(view.modified);
    if let Some(expires) = view.expires {
        bytes.put_i64(expires);
    }
    put_text(bytes, &view.key);
    if let Some(value) = &view.value {
        put_text(bytes, value);
    }
}

fn take_view(bytes: &mut Bytes) -> Option<NodeView> {
    let flags = bytes.try_get_u8().ok()?;
    let created = bytes.try_get_u64().ok()?;
    let modified = bytes.try_get_u64().ok()?;
    let expires = take_if(flags & flag::EXPIRES != 0, || bytes.try_get_i64().ok())?;
    let key = take_text(bytes)?;
    let value = take_if(flags & flag::VALUE != 0, || take_text(bytes).map(Arc::from))?;
    Some(NodeView { key, value, dir: flags & flag::DIR != 0, expires, modified, created })
}

/// `Some(None)` if there is nothing to take.
#[expect(clippy::option_option, reason = "the outer one is whether the bytes hold what they must")]
fn take_if<T>(wanted: bool, take: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if wanted { take().map(Some) } else { Some(None) }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_u32(u32::try_from(text.len()).expect("a request has less than 4 GiB"));
    bytes.put_slice(text.as_bytes());
}

fn take_text(bytes: &mut Bytes) -> Option<String> {
    let len = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    if bytes.len() < len {
        return None;
    }
    String::from_utf8(bytes.split_to(len).to_vec()).ok()
}
