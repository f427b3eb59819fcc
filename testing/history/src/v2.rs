//! The reference model of the v2 generation: a tree of nodes in one map, and every event that there
//! was; and the judge of what members and waiting clients were told.
//!
//! It shares no code with `v2store`: paths are kept whole, what is below a directory is found by
//! looking at all, and nothing is ever forgotten.
//!
//! Not modelled: listings, statistics, users of the v2 generation.
//!
//! etcd: v3.4.23 etcdserver/apply_v2.go, etcdserver/api/v2store/{store,event_history,watcher_hub}.go.

mod wait;

use std::collections::BTreeMap;

use proto::v2pb;

pub use wait::V2Wait;

/// Events that members remember.
pub const EVENTS_REMEMBERED: u64 = 1000;

/// What ends before was never meant to end: 2000-01-01, in nanoseconds since 1970.
const EARLIEST: i64 = 946_684_800_000_000_000;

/// Nodes that stay as they are.
const FIXED: [&str; 3] = ["/", "/0", "/1"];

/// The numbers of errors.
mod code {
    pub(super) const KEY_NOT_FOUND: u16 = 100;
    pub(super) const COMPARE_FAILED: u16 = 101;
    pub(super) const NOT_FILE: u16 = 102;
    pub(super) const NOT_DIRECTORY: u16 = 104;
    pub(super) const KEY_EXISTS: u16 = 105;
    pub(super) const ROOT_READ_ONLY: u16 = 107;
    pub(super) const NOT_EMPTY: u16 = 108;
    pub(super) const INDEX_CLEARED: u16 = 401;
}

/// A file or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Node {
    /// A file's value; `None` of a directory, and of what is gone.
    pub value: Option<String>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it ends, in nanoseconds since 1970.
    pub expires: Option<i64>,
    /// The index of its last change.
    pub modified: u64,
    /// The index at which it was made.
    pub created: u64,
}

/// What happened to a node, or what a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Event {
    /// The name of what was done.
    pub action: String,
    /// With which node.
    pub key: String,
    /// As it is now.
    pub node: V2Node,
    /// As it was before.
    pub before: Option<V2Node>,
    /// The store's index.
    pub index: u64,
    /// Whether nobody is told.
    pub refresh: bool,
}

/// A refusal of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Refusal {
    /// Its number.
    pub code: u16,
    /// With what.
    pub cause: String,
    /// The store's index.
    pub index: u64,
}

/// What a request is answered.
pub type V2Said = Result<V2Event, V2Refusal>;

/// An event, and the paths of all that went away with its node.
#[derive(Clone, Debug)]
struct Logged {
    event: V2Event,
    gone: Vec<String>,
}

/// The tree with its whole past.
#[derive(Clone, Debug, Default)]
pub struct V2Store {
    nodes: BTreeMap<String, V2Node>,
    /// The event of each index, from 1 on.
    log: Vec<Logged>,
}

impl V2Store {
    /// A new tree.
    #[must_use]
    pub fn new() -> Self {
        let dir = V2Node { dir: true, ..V2Node::default() };
        let nodes = FIXED.iter().map(|path| ((*path).to_owned(), dir.clone())).collect();
        Self { nodes, log: Vec::new() }
    }

    /// The newest index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.log.len() as u64
    }

    /// Every node but the fixed ones, by its path.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &V2Node)> {
        self.nodes.iter().filter(|(path, _)| !FIXED.contains(&path.as_str()))
    }

    /// When the next node ends.
    #[must_use]
    pub fn next_end(&self) -> Option<i64> {
        self.nodes.values().filter_map(|node| node.expires).min()
    }

    /// The event of an index that there was.
    #[must_use]
    pub fn event(&self, index: u64) -> Option<&V2Event> {
        Some(&self.logged(index)?.event)
    }

    fn logged(&self, index: u64) -> Option<&Logged> {
        self.log.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// What a read of one node finds.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn get(&self, path: &str) -> V2Said {
        let node = self.find(path)?.clone();
        let (action, key, index) = ("get".to_owned(), path.to_owned(), self.index());
        Ok(V2Event { action, key, node, index, ..V2Event::default() })
    }

    /// The names in a directory that a listing shows.
    #[must_use]
    pub fn names(&self, dir: &str) -> Vec<String> {
        let prefix = if dir == "/" { "/".to_owned() } else { format!("{dir}/") };
        let below = self.nodes.keys().filter_map(|path| path.strip_prefix(&prefix));
        let own = below.filter(|rest| !rest.is_empty() && !rest.contains('/'));
        own.filter(|name| !name.starts_with('_')).map(ToOwned::to_owned).collect()
    }

    /// The cluster changed something of its own part.
    pub fn advance(&mut self, times: usize) {
        for _ in 0..times {
            let index = self.index() + 1;
            let node = V2Node { modified: index, created: index, ..V2Node::default() };
            let (action, key) = ("set".to_owned(), "/0".to_owned());
            let event = V2Event { action, key, node, index, ..V2Event::default() };
            self.log.push(Logged { event, gone: Vec::new() });
        }
    }

    /// A request was applied, and answered by `said`; `None` where nothing is told.
    ///
    /// # Errors
    ///
    /// The model says something else.
    pub fn on_request(
        &mut self,
        request: &v2pb::Request,
        said: Option<&V2Said>,
    ) -> Result<(), String> {
        let expected = self.apply(request);
        if expected.as_ref() == said {
            return Ok(());
        }
        Err(format!("{said:?} instead of {expected:?} to {request:?}"))
    }

    /// Does what a request asks for.
    pub fn apply(&mut self, request: &v2pb::Request) -> Option<V2Said> {
        let path = path_of(&text(request.path()));
        let (value, expires) = (text(request.val()), request.expiration());
        let expires = (expires != 0).then_some(expires);
        let (wanted_value, wanted_index) = (text(request.prev_value()), request.prev_index());
        let compares = !wanted_value.is_empty() || wanted_index != 0;
        let wanted = (wanted_value, wanted_index);
        let refresh = request.refresh();
        Some(match request.method() {
            "POST" => {
                let path = format!("{path}/{:020}", self.index() + 1);
                self.create("create", &path_of(&path), request.dir(), value, expires)
            }
            "PUT" if request.prev_exist == Some(false) => {
                self.create("create", &path, request.dir(), value, expires)
            }
            "PUT" if compares => self.swap(&path, &wanted, value, expires, refresh),
            "PUT" if request.prev_exist == Some(true) => {
                self.update(&path, value, expires, refresh)
            }
            "PUT" => self.set(&path, request.dir(), value, expires, refresh),
            "DELETE" if compares => self.compare_and_delete(&path, &wanted),
            "DELETE" => self.delete(&path, request.dir(), request.recursive()),
            "QGET" => self.get(&path),
            "SYNC" => {
                self.expire(request.time());
                return None;
            }
            _ => return None,
        })
    }

    fn refusal<T>(&self, code: u16, cause: impl Into<String>) -> Result<T, V2Refusal> {
        Err(V2Refusal { code, cause: cause.into(), index: self.index() })
    }

    fn may_change(&self, path: &str) -> Result<(), V2Refusal> {
        if FIXED.contains(&path) { self.refusal(code::ROOT_READ_ONLY, "/") } else { Ok(()) }
    }

    /// The node, or what is wrong first on the way to it.
    fn find(&self, path: &str) -> Result<&V2Node, V2Refusal> {
        for above in above(path) {
            match self.nodes.get(&above) {
                None => return self.refusal(code::KEY_NOT_FOUND, above),
                Some(node) if !node.dir => return self.refusal(code::NOT_DIRECTORY, above),
                Some(_) => {}
            }
        }
        match self.nodes.get(path) {
            Some(node) => Ok(node),
            None => self.refusal(code::KEY_NOT_FOUND, path),
        }
    }

    /// Notes an event of the next index.
    fn happened(&mut self, mut event: V2Event, gone: Vec<String>) -> V2Said {
        event.index = self.index() + 1;
        self.log.push(Logged { event: event.clone(), gone });
        Ok(event)
    }

    fn set(
        &mut self,
        path: &str,
        dir: bool,
        value: String,
        expires: Option<i64>,
        refresh: bool,
    ) -> V2Said {
        let value = match self.find(path) {
            Err(refusal) if refresh || refusal.code != code::KEY_NOT_FOUND => return Err(refusal),
            Ok(node) if refresh => node.value.clone().unwrap_or_default(),
            Ok(_) | Err(_) => value,
        };
        let made = self.create("set", path, dir, value, expires)?;
        let newest = self.log.last_mut().expect("it was just made");
        newest.event.refresh = refresh;
        Ok(V2Event { refresh, ..made })
    }

    fn create(
        &mut self,
        action: &str,
        path: &str,
        dir: bool,
        value: String,
        expires: Option<i64>,
    ) -> V2Said {
        self.may_change(path)?;
        for above in above(path) {
            if self.nodes.get(&above).is_some_and(|node| !node.dir) {
                return self.refusal(code::NOT_DIRECTORY, above);
            }
        }
        let before = self.nodes.get(path).cloned();
        match &before {
            Some(_) if action == "create" => return self.refusal(code::KEY_EXISTS, path),
            Some(before) if before.dir => return self.refusal(code::NOT_FILE, path),
            Some(_) | None => {}
        }
        let index = self.index() + 1;
        for above in above(path) {
            let made = V2Node { dir: true, modified: index, created: index, ..V2Node::default() };
            self.nodes.entry(above).or_insert(made);
        }
        let node = V2Node {
            value: (!dir).then_some(value),
            dir,
            expires: expires.filter(|expires| EARLIEST <= *expires),
            modified: index,
            created: index,
        };
        self.nodes.insert(path.to_owned(), node.clone());
        let (action, key) = (action.to_owned(), path.to_owned());
        self.happened(V2Event { action, key, node, before, ..V2Event::default() }, Vec::new())
    }

    fn update(&mut self, path: &str, value: String, expires: Option<i64>, refresh: bool) -> V2Said {
        self.may_change(path)?;
        if self.find(path)?.dir && !value.is_empty() {
            return self.refusal(code::NOT_FILE, path);
        }
        self.rewrite("update", path, value, expires, refresh)
    }

    fn swap(
        &mut self,
        path: &str,
        wanted: &(String, u64),
        value: String,
        expires: Option<i64>,
        refresh: bool,
    ) -> V2Said {
        self.may_change(path)?;
        self.compare(path, wanted)?;
        self.rewrite("compareAndSwap", path, value, expires, refresh)
    }

    fn compare(&self, path: &str, (value, index): &(String, u64)) -> Result<(), V2Refusal> {
        let node = self.find(path)?;
        if node.dir {
            return self.refusal(code::NOT_FILE, path);
        }
        let is = node.value.clone().unwrap_or_default();
        let mut differences = Vec::new();
        if !value.is_empty() && *value != is {
            differences.push(format!("[{value} != {is}]"));
        }
        if *index != 0 && *index != node.modified {
            differences.push(format!("[{index} != {}]", node.modified));
        }
        if differences.is_empty() {
            return Ok(());
        }
        self.refusal(code::COMPARE_FAILED, differences.join(" "))
    }

    /// A directory's own index stays; its event has the new one.
    fn rewrite(
        &mut self,
        action: &str,
        path: &str,
        value: String,
        expires: Option<i64>,
        refresh: bool,
    ) -> V2Said {
        let index = self.index() + 1;
        let node = self.nodes.get_mut(path).expect("it was found");
        let before = node.clone();
        node.expires = expires;
        if !node.dir {
            node.modified = index;
            if !refresh {
                node.value = Some(value);
            }
        }
        let shown = V2Node { modified: index, ..node.clone() };
        let (action, key, before) = (action.to_owned(), path.to_owned(), Some(before));
        self.happened(V2Event { action, key, node: shown, before, refresh, index }, Vec::new())
    }

    fn delete(&mut self, path: &str, dir: bool, recursive: bool) -> V2Said {
        self.may_change(path)?;
        let is_dir = self.find(path)?.dir;
        if is_dir && !dir && !recursive {
            return self.refusal(code::NOT_FILE, path);
        }
        if is_dir && !recursive && !self.below(path).is_empty() {
            return self.refusal(code::NOT_EMPTY, path);
        }
        self.remove("delete", path)
    }

    fn compare_and_delete(&mut self, path: &str, wanted: &(String, u64)) -> V2Said {
        self.compare(path, wanted)?;
        self.remove("compareAndDelete", path)
    }

    fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.nodes.keys().filter(|other| other.starts_with(&prefix)).cloned().collect()
    }

    fn remove(&mut self, action: &str, path: &str) -> V2Said {
        let gone = self.below(path);
        for path in &gone {
            self.nodes.remove(path);
        }
        let before = self.nodes.remove(path).expect("it was found");
        let modified = self.index() + 1;
        let node =
            V2Node { dir: before.dir, modified, created: before.created, ..Default::default() };
        let (action, key, before) = (action.to_owned(), path.to_owned(), Some(before));
        self.happened(V2Event { action, key, node, before, ..V2Event::default() }, gone)
    }

    /// Everything that ends by then goes, soonest first.
    fn expire(&mut self, cutoff: i64) {
        loop {
            let ends = |(path, node): (&String, &V2Node)| Some((node.expires?, path.clone()));
            let Some((_, path)) =
                self.nodes.iter().filter_map(ends).min().filter(|it| it.0 <= cutoff)
            else {
                return;
            };
            self.remove("expire", &path).expect("what ends is there");
        }
    }
}

/// The directories above a path, from the root down.
fn above(path: &str) -> Vec<String> {
    let mut above = vec!["/".to_owned()];
    let inner = path.char_indices().skip(1).filter(|(_, letter)| *letter == '/');
    above.extend(inner.map(|(at, _)| path[..at].to_owned()));
    if path == "/" { Vec::new() } else { above }
}

/// Without empty parts, and with a slash before each; other paths are not asked for.
fn path_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
