//! The store with its one owner: what each operation does.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/store.go.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::probe::mutant;
use parking_lot::{Mutex, RwLock};

use crate::hub::Hub;
use crate::reader::{Content, Shared};
use crate::stats::{Counted, Stats};
use crate::tree::{Meta, Node, Tree};
use crate::{Action, CLUSTER, Code, Error, Event, Nanos, NodeView, Reader, path, when};

/// The store; one owner.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    /// What [`Store::take_rows`] has not handed over yet.
    pub(crate) unsaved: Unsaved,
}

/// What changed since rows were taken last.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) paths: BTreeSet<String>,
    /// The first index whose event is not handed over; `None` for none.
    pub(crate) from: Option<u64>,
}

/// A change that is asked for.
#[derive(Clone, Debug)]
pub struct Write {
    /// Of which node, with the namespace.
    pub path: String,
    /// What to do.
    pub change: Change,
    /// When the node shall end; `None` for never.
    pub expires: Option<Nanos>,
    /// Whether only the end moves, and nobody is told.
    pub refresh: bool,
    /// When it was asked for, if that is known: what is left of times to live counts from it.
    pub at: Option<Nanos>,
}

/// What to do with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it, or replace a file.
    Set {
        /// Whether to make a directory.
        dir: bool,
        /// A file's value.
        value: String,
    },
    /// Make it, if it is not there.
    Create {
        /// Whether to make a directory.
        dir: bool,
        /// A file's value.
        value: String,
        /// Whether the path is that of a directory, and the name is to be the next index.
        in_order: bool,
    },
    /// Change value and end, if it is there; of a directory only the end.
    Update {
        /// The value.
        value: String,
    },
    /// Change a file, if it is as expected.
    CompareAndSwap {
        /// How.
        expected: Expected,
        /// The value.
        value: String,
    },
    /// Remove it.
    Delete {
        /// Whether it may be an empty directory.
        dir: bool,
        /// Whether it may be a directory with all that is below it.
        recursive: bool,
    },
    /// Remove a file, if it is as expected.
    CompareAndDelete(Expected),
}

/// How a file must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its value; empty for any.
    pub value: String,
    /// The index of its last change; 0 for any.
    pub index: u64,
}

impl Expected {
    /// The cause of the error if a file is otherwise (V2-050).
    #[must_use]
    pub fn difference(&self, value: &str, index: u64) -> Option<String> {
        let of_value = (!self.value.is_empty() && self.value != value)
            .then(|| format!("[{} != {value}]", self.value));
        let wants_index = self.index != 0 && !mutant("v2-swap-overlooks-the-index");
        let of_index =
            (wants_index && self.index != index).then(|| format!("[{} != {index}]", self.index));
        match (of_value, of_index) {
            (Some(of_value), Some(of_index)) => Some(format!("{of_value} {of_index}")),
            (of_value, of_index) => of_value.or(of_index),
        }
    }
}

/// An event with the paths that went away with its node.
type Done = Result<(Event, Vec<String>), Error>;

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Content::new())
    }

    pub(crate) fn of(content: Content) -> Self {
        let shared = Shared {
            content: RwLock::new(content),
            hub: Mutex::new(Hub::default()),
            stats: Stats::default(),
        };
        Self { shared: Arc::new(shared), unsaved: Unsaved::default() }
    }

    /// A handle for readers.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// Whether users ever had keys here, as far as can be seen.
    #[must_use]
    pub fn is_used(&self) -> bool {
        let content = self.shared.content.read();
        let mut nodes = content.tree.list("/", true, |_| false).into_iter();
        nodes.any(|(_, node)| !Tree::is_fixed(&node.key))
            || content.history.events().any(|event| event.node.key != CLUSTER)
    }

    /// Makes a change; watchers are told before this returns.
    ///
    /// # Errors
    ///
    /// A refusal, which changes nothing; the same on every member.
    pub fn write(&mut self, write: Write) -> Result<Arc<Event>, Error> {
        let shared = self.shared.clone();
        let mut content = shared.content.write();
        let mut run = Run { content: &mut content, unsaved: &mut self.unsaved, at: write.at };
        let path = path::clean(&write.path);
        // As in etcd, whatever makes or removes a node takes no notice of the flag.
        let keeps = matches!(
            write.change,
            Change::Set { .. } | Change::Update { .. } | Change::CompareAndSwap { .. }
        );
        let (expires, refresh) = (write.expires, write.refresh && keeps);
        let (counted, done) = match write.change {
            Change::Set { dir, value } => {
                (Counted::Set, run.set(path, dir, value, expires, refresh))
            }
            Change::Create { dir, value, in_order } => {
                let next = run.content.index + 1;
                let path = if in_order { path::join(&path, &format!("{next:020}")) } else { path };
                (Counted::Create, run.make(Action::Create, path, dir, value, expires))
            }
            Change::Update { value } => {
                (Counted::Update, run.update(path, value, expires, refresh))
            }
            Change::CompareAndSwap { expected, value } => {
                let done = run.compare_and_swap(path, &expected, value, expires, refresh);
                (Counted::CompareAndSwap, done)
            }
            Change::Delete { dir, recursive } => {
                (Counted::Delete, run.delete(path, dir, recursive))
            }
            Change::CompareAndDelete(expected) => {
                (Counted::CompareAndDelete, run.compare_and_delete(path, &expected))
            }
        };
        shared.stats.count(counted, done.is_ok());
        let (mut event, removed) = done?;
        event.refresh = refresh;
        Ok(finish(&shared, &mut content, &mut self.unsaved, event, &removed))
    }

    /// Removes everything that ends by `cutoff`, soonest first; a directory with all below it.
    ///
    /// # Panics
    ///
    /// If the tree does not hold a node that ends.
    pub fn expire(&mut self, cutoff: Nanos) {
        let shared = self.shared.clone();
        let mut content = shared.content.write();
        while let Some(path) = content.tree.expired(cutoff).map(ToOwned::to_owned) {
            let node = content.tree.get(&path).expect("what ends is there");
            let mut run =
                Run { content: &mut content, unsaved: &mut self.unsaved, at: Some(cutoff) };
            let (event, removed) = run.remove(Action::Expire, path, &node);
            if mutant("v2-end-is-not-stored") {
                self.unsaved.paths.clear();
            }
            shared.stats.count_expired();
            finish(&shared, &mut content, &mut self.unsaved, event, &removed);
        }
    }

    /// Raises the index for a change of the cluster's own part.
    pub fn advance(&mut self) {
        let shared = self.shared.clone();
        let mut content = shared.content.write();
        let run = Run { content: &mut content, unsaved: &mut self.unsaved, at: None };
        let (event, _) = run.event(Action::Set, CLUSTER.to_owned(), 0);
        finish(&shared, &mut content, &mut self.unsaved, event, &[]);
    }

    /// A store with the same content, without watchers.
    ///
    /// # Panics
    ///
    /// If the content does not survive its own rows.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let rows = self.all_rows().into_iter().filter_map(|row| Some((row.key, row.value?)));
        Self::restore(rows).expect("rows of a store are a store")
    }

    /// Puts another store in the place of this one, with its readers and watchers. Watchers are told
    /// of what the other knows that happened since, or let go if it does not know. Nothing is left to
    /// be handed over: the rows of the other are where it came from.
    pub fn replace(&mut self, other: Self) {
        let theirs = other.shared;
        let mut content = self.shared.content.write();
        let known = content.index;
        std::mem::swap(&mut *content, &mut *theirs.content.write());
        self.unsaved = Unsaved::default();
        self.shared.hub.lock().replaced(known, &content.history);
    }
}

/// The index moves, the history has the event, watchers hear of it.
fn finish(
    shared: &Shared,
    content: &mut Content,
    unsaved: &mut Unsaved,
    event: Event,
    removed: &[String],
) -> Arc<Event> {
    let event = Arc::new(event);
    content.index = event.index;
    unsaved.from.get_or_insert(event.index);
    content.history.push(event.clone());
    if !event.refresh || mutant("v2-refresh-is-told") {
        shared.hub.lock().notify(&event, removed);
    }
    event
}

/// One operation on the content.
struct Run<'c> {
    content: &'c mut Content,
    unsaved: &'c mut Unsaved,
    at: Option<Nanos>,
}

impl Run<'_> {
    fn next(&self) -> u64 {
        self.content.index + 1
    }

    /// An event of the next index, without a value; `created` is 0 for the index itself.
    fn event(&self, action: Action, key: String, created: u64) -> (Event, Vec<String>) {
        let index = self.next();
        let created = if created == 0 { index } else { created };
        let node = NodeView { key, modified: index, created, ..NodeView::default() };
        let event = Event {
            action,
            node,
            prev_node: None,
            below: Vec::new(),
            index,
            at: self.at,
            refresh: false,
        };
        (event, Vec::new())
    }

    fn put(&mut self, path: &str, node: Node) {
        self.content.tree.put(path, node);
        self.unsaved.paths.insert(path.to_owned());
    }

    fn error(&self, code: Code, cause: impl Into<String>) -> Error {
        self.content.error(code, cause)
    }

    fn refuse_fixed(&self, path: &str) -> Result<(), Error> {
        if Tree::is_fixed(path) { Err(self.error(Code::RootReadOnly, "/")) } else { Ok(()) }
    }

    fn find(&self, path: &str) -> Result<Node, Error> {
        self.content.tree.find(path).map_err(|missing| self.content.missing(missing))
    }

    fn set(
        &mut self,
        path: String,
        dir: bool,
        value: String,
        expires: Option<Nanos>,
        refresh: bool,
    ) -> Done {
        let found = self.find(&path);
        let value = match &found {
            Err(error) if error.code != Code::KeyNotFound || refresh => return Err(error.clone()),
            Ok(node) if refresh => node.value.as_deref().unwrap_or_default().to_owned(),
            Ok(_) | Err(_) => value,
        };
        self.make(Action::Set, path, dir, value, expires)
    }

    /// Makes a node; [`Action::Set`] may replace a file.
    fn make(
        &mut self,
        action: Action,
        path: String,
        dir: bool,
        value: String,
        expires: Option<Nanos>,
    ) -> Done {
        self.refuse_fixed(&path)?;
        let expires = when::of_new_node(expires);
        if let Some(file) = self.content.tree.file_above(&path) {
            return Err(self.error(Code::NotDirectory, file));
        }
        let before = self.content.tree.get(&path);
        match &before {
            Some(_) if action != Action::Set => return Err(self.error(Code::KeyExists, path)),
            Some(before) if before.is_dir() => return Err(self.error(Code::NotFile, path)),
            Some(_) | None => {}
        }
        let index = self.next();
        let parents = self.content.tree.make_parents(&path, index);
        self.unsaved.paths.extend(parents);
        let value = (!dir).then(|| Arc::from(value));
        let node = Node { meta: Meta::new(index, expires), value };
        let (mut event, removed) = self.event(action, path.clone(), 0);
        event.node = node.view(&path);
        event.prev_node = before.map(|before| before.view(&path));
        self.put(&path, node);
        Ok((event, removed))
    }

    fn update(
        &mut self,
        path: String,
        value: String,
        expires: Option<Nanos>,
        refresh: bool,
    ) -> Done {
        self.refuse_fixed(&path)?;
        let node = self.find(&path)?;
        if node.is_dir() && !value.is_empty() {
            return Err(self.error(Code::NotFile, path));
        }
        let value = (!refresh).then_some(value);
        Ok(self.rewrite(Action::Update, path, node, value, expires))
    }

    fn compare_and_swap(
        &mut self,
        path: String,
        expected: &Expected,
        value: String,
        expires: Option<Nanos>,
        refresh: bool,
    ) -> Done {
        self.refuse_fixed(&path)?;
        let node = self.find_expected(&path, expected)?;
        let value = (!refresh).then_some(value);
        Ok(self.rewrite(Action::CompareAndSwap, path, node, value, expires))
    }

    /// The file, if it is as expected.
    fn find_expected(&self, path: &str, expected: &Expected) -> Result<Node, Error> {
        let node = self.find(path)?;
        let Some(value) = &node.value else { return Err(self.error(Code::NotFile, path)) };
        match expected.difference(value, node.meta.modified) {
            Some(cause) => Err(self.error(Code::CompareFailed, cause)),
            None => Ok(node),
        }
    }

    /// Changes a node that stays: a file's value, if there is a new one, and when it ends. As in etcd
    /// a directory's own index stays; only the event has the new one.
    fn rewrite(
        &mut self,
        action: Action,
        path: String,
        before: Node,
        value: Option<String>,
        expires: Option<Nanos>,
    ) -> (Event, Vec<String>) {
        let (mut event, removed) = self.event(action, path.clone(), before.meta.created);
        let mut node = before.clone();
        node.meta.expires = match mutant("v2-update-keeps-the-end") {
            true => expires.or(before.meta.expires),
            false => expires,
        };
        if let Some(old) = &mut node.value {
            node.meta.modified = event.index;
            if let Some(value) = value {
                *old = Arc::from(value);
            }
        }
        event.node =
            NodeView { modified: event.index, created: event.node.created, ..node.view(&path) };
        event.prev_node = Some(before.view(&path));
        self.put(&path, node);
        (event, removed)
    }

    fn delete(&mut self, path: String, dir: bool, recursive: bool) -> Done {
        self.refuse_fixed(&path)?;
        let node = self.find(&path)?;
        if node.is_dir() && !dir && !recursive {
            return Err(self.error(Code::NotFile, path));
        }
        if self.content.tree.has_children(&path) && !recursive {
            return Err(self.error(Code::DirectoryNotEmpty, path));
        }
        Ok(self.remove(Action::Delete, path, &node))
    }

    fn compare_and_delete(&mut self, path: String, expected: &Expected) -> Done {
        let node = self.find_expected(&path, expected)?;
        Ok(self.remove(Action::CompareAndDelete, path, &node))
    }

    fn remove(&mut self, action: Action, path: String, node: &Node) -> (Event, Vec<String>) {
        let (mut event, _) = self.event(action, path.clone(), node.meta.created);
        event.node.dir = node.is_dir();
        event.prev_node = Some(node.view(&path));
        let removed = self.content.tree.remove(&path);
        self.unsaved.paths.extend(removed.iter().cloned());
        (event, removed)
    }
}

#[cfg(test)]
mod tests;
