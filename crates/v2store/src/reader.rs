//! Reading and watching, from any thread.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::history::History;
use crate::hub::Hub;
use crate::stats::{Counted, Stats, Totals};
use crate::tree::{Missing, Tree};
use crate::{Action, Code, Error, Event, Nanos, Watch, Watcher, path};

/// What the owner and the readers share. The content is locked before the hub.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) content: RwLock<Content>,
    pub(crate) hub: Mutex<Hub>,
    pub(crate) stats: Stats,
}

/// What all members have alike.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) tree: Tree,
    pub(crate) history: History,
    pub(crate) index: u64,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { tree: Tree::new(), history: History::after(0), index: 0 }
    }

    pub(crate) fn error(&self, code: Code, cause: impl Into<String>) -> Error {
        Error { code, cause: cause.into(), index: self.index }
    }

    pub(crate) fn missing(&self, missing: Missing) -> Error {
        match missing {
            Missing::NotFound(path) => self.error(Code::KeyNotFound, path),
            Missing::NotDirectory(path) => self.error(Code::NotDirectory, path),
        }
    }
}

/// A handle for readers; clones share it.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// The node at a path, with what is below it: one level, or all if `recursive`. Hidden names are
    /// left out; listings are always in order. `now` is what times to live count from.
    ///
    /// # Errors
    ///
    /// [`Code::KeyNotFound`], [`Code::NotDirectory`].
    pub fn get(&self, path: &str, recursive: bool, now: Nanos) -> Result<Event, Error> {
        let path = path::clean(path);
        let content = self.shared.content.read();
        let found = content.tree.find(&path);
        let counted = if recursive { Counted::GetRecursive } else { Counted::Get };
        self.shared.stats.count(counted, found.is_ok());
        let node = found.map_err(|missing| content.missing(missing))?.view(&path);
        let below = content.tree.list(&path, recursive, path::is_hidden_name);
        Ok(Event {
            action: Action::Get,
            node,
            prev_node: None,
            below,
            index: content.index,
            at: Some(now),
            refresh: false,
        })
    }

    /// The value of a file, if there is one; not counted among what clients read.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<Arc<str>> {
        self.shared.content.read().tree.get(&path::clean(path))?.value
    }

    /// Watches a node that may not exist yet.
    ///
    /// # Errors
    ///
    /// [`Code::EventIndexCleared`] if the events from [`Watch::since`] on are not known any more.
    pub fn watch(&self, mut watch: Watch) -> Result<Watcher, Error> {
        watch.path = path::clean(&watch.path);
        self.shared.stats.count_watch();
        let content = self.shared.content.read();
        if watch.since == 0 {
            watch.since = content.index + 1;
        }
        let start = content.history.start();
        if watch.since < start && !base::probe::mutant("v2-forgotten-past-is-not-said") {
            let cause = format!("the requested history has been cleared [{start}/{}]", watch.since);
            return Err(content.error(Code::EventIndexCleared, cause));
        }
        let (id, slot) = self.shared.hub.lock().add(&watch, &content.history);
        let start_index = content.index;
        drop(content);
        Ok(Watcher { shared: self.shared.clone(), slot, path: watch.path, id, start_index })
    }

    /// The newest index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.shared.content.read().index
    }

    /// Whether any node ends at some time, so that somebody must say when it is.
    #[must_use]
    pub fn has_expiring(&self) -> bool {
        self.shared.content.read().tree.has_expiring()
    }

    /// How many wait.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.shared.hub.lock().count()
    }

    /// What was counted since this process began.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.stats.totals(self.watchers())
    }

    /// What was counted since this process began, as JSON without a newline (V2-133).
    #[must_use]
    pub fn stats_json(&self) -> Vec<u8> {
        self.shared.stats.to_json(self.watchers())
    }
}
