//! Clients that wait for changes of the v2 tree: what each must be told, and may be.
//!
//! What was remembered is told by other rules than what happens while somebody waits: it is shown
//! with hidden names, and the removal of a directory not by what was in it but by how paths begin.
//! Where a snapshot jumped over what happened, a client may have met either: it must be told what
//! both tell, and may be told what one tells.

use super::{EVENTS_REMEMBERED, Logged, V2Event, V2Refusal, V2Store, code};

/// One that waits.
#[derive(Clone, Debug)]
pub struct V2Wait {
    path: String,
    recursive: bool,
    stream: bool,
    /// The first index that it may be told of.
    next: u64,
    /// Up to here its member remembered when it began, and may have jumped since.
    began: u64,
    jumped: u64,
    /// Whether it has all that it asked for.
    is_done: bool,
}

impl V2Wait {
    /// A member whose store was at `index` let a client wait for what happens from `since` on, or
    /// refused; `None` if that was right to refuse.
    ///
    /// # Errors
    ///
    /// It was not.
    pub fn begin(
        index: u64,
        path: &str,
        (recursive, stream): (bool, bool),
        since: u64,
        said: Result<(), &V2Refusal>,
    ) -> Result<Option<Self>, String> {
        let next = if since == 0 { index + 1 } else { since };
        let first = (index + 1).saturating_sub(EVENTS_REMEMBERED).max(1);
        let cause = format!("the requested history has been cleared [{first}/{next}]");
        let cleared = V2Refusal { code: code::INDEX_CLEARED, cause, index };
        let expected = if next < first { Err(&cleared) } else { Ok(()) };
        if said != expected {
            return Err(format!("a wait from {since} at {index}: {said:?}, not {expected:?}"));
        }
        let path = path.to_owned();
        let (began, jumped, is_done) = (index, index, false);
        let wait = Self { path, recursive, stream, next, began, jumped, is_done };
        Ok(said.is_ok().then_some(wait))
    }

    /// A snapshot brought its member's store to `index`.
    pub fn on_jump(&mut self, index: u64) {
        self.jumped = self.jumped.max(index);
    }

    /// It was told of an event.
    ///
    /// # Errors
    ///
    /// Not of this one, or not yet.
    pub fn on_event(&mut self, store: &V2Store, event: &V2Event) -> Result<(), String> {
        if self.is_done {
            return Err(format!("{self:?} is told of {event:?} behind its end"));
        }
        self.on_quiet(store, event.index.saturating_sub(1))?;
        let logged = store.logged(event.index);
        let is_true = logged.is_some_and(|logged| logged.event == *event);
        let may = logged.is_some_and(|logged| self.may_hear(logged));
        if !is_true || !may || event.index < self.next {
            return Err(format!("{self:?} is told of {event:?}"));
        }
        self.next = event.index + 1;
        self.is_done = !self.stream;
        Ok(())
    }

    /// It was told all that there is by a member whose store is at `index`.
    ///
    /// # Errors
    ///
    /// Something is missing.
    pub fn on_quiet(&mut self, store: &V2Store, index: u64) -> Result<(), String> {
        if self.is_done {
            return Ok(());
        }
        let missed = (self.next..=index).filter_map(|index| store.logged(index));
        let mut missed = missed.filter(|logged| self.must_hear(logged));
        if let Some(logged) = missed.next() {
            return Err(format!("{self:?} is not told of {:?} at {index}", logged.event));
        }
        self.next = self.next.max(index + 1);
        Ok(())
    }

    fn may_hear(&self, logged: &Logged) -> bool {
        match logged.event.index {
            index if index <= self.began => self.recalls(logged),
            index if index <= self.jumped => self.hears(logged) || self.recalls(logged),
            _ => self.hears(logged),
        }
    }

    fn must_hear(&self, logged: &Logged) -> bool {
        match logged.event.index {
            index if index <= self.began => self.recalls(logged),
            index if index <= self.jumped => self.hears(logged) && self.recalls(logged),
            _ => self.hears(logged),
        }
    }

    /// Whether it is told when it happens.
    fn hears(&self, Logged { event, gone }: &Logged) -> bool {
        if event.refresh || event.key == "/0" {
            return false;
        }
        if event.key == self.path || gone.contains(&self.path) {
            return true;
        }
        let Some(rest) = self.below(&event.key) else { return false };
        self.recursive && !rest.split('/').any(|name| name.starts_with('_'))
    }

    /// Whether it is told of it later.
    fn recalls(&self, Logged { event, .. }: &Logged) -> bool {
        if event.refresh {
            return false;
        }
        let removes = event.action == "delete" || event.action == "expire";
        let took_dir = removes && event.before.as_ref().is_some_and(|before| before.dir);
        event.key == self.path
            || self.recursive && self.below(&event.key).is_some()
            || took_dir && self.path.starts_with(&event.key)
    }

    /// The rest of a path below this one's.
    fn below<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.path == "/" {
            return key.strip_prefix('/');
        }
        key.strip_prefix(&self.path)?.strip_prefix('/')
    }
}
