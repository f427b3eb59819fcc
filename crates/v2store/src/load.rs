//! Reading the JSON that etcd 3.4 and 3.5 keep in their snapshot files.
//!
//! The cluster's own part is left out: who the members are is read elsewhere. Without recursion:
//! etcd's trees may be deeper than a stack.
//!
//! Source: interop 2.3; etcd v3.4.23 etcdserver/api/v2store (`Recovery`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::History;
use crate::reader::Content;
use crate::tree::{Meta, Node, Tree};
use crate::{Action, CLUSTER, Event, NodeView, Store, path, text, when};

/// What is no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the store's JSON at byte {offset}")]
pub struct LoadError {
    /// Where in the text it went wrong; its length for what is missing or does not fit together.
    pub offset: usize,
}

impl Store {
    /// Reads what etcd, or [`Store::to_json`], wrote.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn from_json(text: &[u8]) -> Result<Self, LoadError> {
        let mut tokens = Tokens { text, at: 0 };
        let content = load(&mut tokens).ok_or(LoadError { offset: tokens.at })?;
        Ok(Self::of(content))
    }
}

fn load(tokens: &mut Tokens<'_>) -> Option<Content> {
    let mut nodes = Vec::new();
    let mut events = BTreeMap::new();
    let mut index = 0;
    let mut has_root = false;
    tokens.object(|tokens, name| match name {
        "Root" => {
            has_root = true;
            load_nodes(tokens, &mut nodes)
        }
        "WatcherHub" => load_hub(tokens, &mut events),
        "CurrentIndex" => tokens.number().map(|number| index = number),
        _ => tokens.skip(),
    })?;
    if !has_root {
        return None;
    }
    nodes.sort_unstable_by(|(left, _): &(String, Node), (right, _)| left.cmp(right));
    let mut tree = Tree::new();
    for (path, node) in nodes {
        if path == "/" || path::is_within(&path, CLUSTER) {
            continue;
        }
        let (parent, _) = path::split(&path);
        tree.get(parent).filter(Node::is_dir)?;
        tree.put(&path, node);
    }
    Some(Content { tree, history: history(index, events), index })
}

/// The run of events that ends at the newest index; nothing if there is none.
fn history(index: u64, mut events: BTreeMap<u64, Event>) -> History {
    let mut run = Vec::new();
    let mut at = index;
    while let Some(event) = events.remove(&at) {
        run.push(event);
        at -= 1;
    }
    let mut history = History::after(at);
    for event in run.into_iter().rev() {
        history.push(Arc::new(event));
    }
    history
}

/// A node whose text is not read to its end.
#[derive(Default)]
struct Partial {
    path: String,
    meta: Meta,
    value: String,
    dir: bool,
    /// Whether its children are being read.
    in_children: bool,
}

fn load_nodes(tokens: &mut Tokens<'_>, nodes: &mut Vec<(String, Node)>) -> Option<()> {
    tokens.expect(b'{')?;
    let mut open = vec![Partial::default()];
    while let Some(partial) = open.last_mut() {
        if tokens.accept(b'}') {
            if partial.in_children {
                partial.in_children = false;
            } else {
                let Partial { path, meta, value, dir, .. } = open.pop()?;
                if path::clean(&path) != path {
                    return None;
                }
                nodes.push((path, Node { meta, value: (!dir).then(|| value.into()) }));
            }
            continue;
        }
        tokens.accept(b',');
        let name = tokens.string()?;
        tokens.expect(b':')?;
        if partial.in_children {
            tokens.expect(b'{')?;
            open.push(Partial::default());
            continue;
        }
        match name.as_str() {
            "Path" => partial.path = tokens.string()?,
            "CreatedIndex" => partial.meta.created = tokens.number()?,
            "ModifiedIndex" => partial.meta.modified = tokens.number()?,
            "ExpireTime" => partial.meta.expires = when::from_text(&tokens.string()?)?,
            "Value" => partial.value = tokens.string()?,
            "Children" if tokens.accept_null() => {}
            "Children" => {
                tokens.expect(b'{')?;
                partial.dir = true;
                partial.in_children = true;
            }
            _ => tokens.skip()?,
        }
    }
    Some(())
}

fn load_hub(tokens: &mut Tokens<'_>, events: &mut BTreeMap<u64, Event>) -> Option<()> {
    if tokens.accept_null() {
        return Some(());
    }
    tokens.object(|tokens, name| match name {
        "EventHistory" => tokens.object(|tokens, name| match name {
            "Queue" => tokens.object(|tokens, name| match name {
                "Events" => load_events(tokens, events),
                _ => tokens.skip(),
            }),
            _ => tokens.skip(),
        }),
        _ => tokens.skip(),
    })
}

fn load_events(tokens: &mut Tokens<'_>, events: &mut BTreeMap<u64, Event>) -> Option<()> {
    if tokens.accept_null() {
        return Some(());
    }
    tokens.expect(b'[')?;
    while !tokens.accept(b']') {
        tokens.accept(b',');
        if tokens.accept_null() {
            continue;
        }
        let event = load_event(tokens)?;
        events.insert(event.index, event);
    }
    Some(())
}

fn load_event(tokens: &mut Tokens<'_>) -> Option<Event> {
    let (mut action, mut node, mut prev_node, mut refresh) = (None, None, None, false);
    tokens.object(|tokens, name| match name {
        "action" => Action::named(&tokens.string()?).map(|named| action = Some(named)),
        "node" => load_view(tokens).map(|view| node = Some(view)),
        "prevNode" => load_view(tokens).map(|view| prev_node = Some(view)),
        "refresh" => tokens.boolean().map(|told| refresh = told),
        _ => tokens.skip(),
    })?;
    let node: NodeView = node?;
    Some(Event {
        action: action?,
        index: node.modified,
        node,
        prev_node,
        below: Vec::new(),
        at: None,
        refresh,
    })
}

fn load_view(tokens: &mut Tokens<'_>) -> Option<NodeView> {
    let mut view = NodeView::default();
    tokens.object(|tokens, name| {
        match name {
            "key" => view.key = tokens.string()?,
            "value" => view.value = Some(tokens.string()?.into()),
            "dir" => view.dir = tokens.boolean()?,
            "expiration" => view.expires = when::from_text(&tokens.string()?)?,
            "modifiedIndex" => view.modified = tokens.number()?,
            "createdIndex" => view.created = tokens.number()?,
            _ => tokens.skip()?,
        }
        Some(())
    })?;
    Some(view)
}

/// The parts of a JSON text, as far as they are looked at; `None` is an error where `at` stands.
struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
}

impl Tokens<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.accept(byte).then_some(())
    }

    fn word(&mut self) -> &[u8] {
        self.peek();
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|byte| b",:{}[]\" \n\t\r".contains(byte));
        let len = len.unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn accept_null(&mut self) -> bool {
        let is_null = self.peek() == Some(b'n');
        is_null && self.word() == b"null"
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.word() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        str::from_utf8(self.word()).ok()?.parse().ok()
    }

    fn string(&mut self) -> Option<String> {
        self.peek();
        let begin = self.at;
        self.skip_string()?;
        let text: String = serde_json::from_slice(&self.text[begin..self.at]).ok()?;
        // What stands for bytes here is a character like any other there.
        Some(text::of_bytes(text.as_bytes()))
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    /// Passes over one value.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    self.at += 1;
                    depth += 1;
                }
                b'}' | b']' => {
                    self.at += 1;
                    depth = depth.checked_sub(1)?;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ if self.word().is_empty() => return None,
                _ => {}
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Reads an object; `field` reads one value.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        while !self.accept(b'}') {
            self.accept(b',');
            let name = self.string()?;
            self.expect(b':')?;
            field(self, &name)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Write};

    /// V2-065: characters that stand for bytes here are characters in etcd's files.
    #[test]
    fn every_character_comes_back() {
        let mut store = Store::new();
        let odd = text::of_bytes("\u{10ff80}\u{10ffff}".as_bytes());
        let path = format!("/1/{odd}");
        let change = Change::Set { dir: false, value: odd.clone() };
        let write = Write { path: path.clone(), change, expires: None, refresh: false, at: None };
        store.write(write).unwrap();
        let read = Store::from_json(&store.to_json(&[])).unwrap();
        assert_eq!(read.reader().value(&path).as_deref(), Some(odd.as_str()));
    }
}
