//! The tree of one disk in memory: nodes, names, handles and locks.
//!
//! Nodes are never renumbered. A node is emptied when neither the visible nor the durable names
//! lead to it and no handle is open, so that a long run does not hold what it removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::pages::Content;
use crate::random::Random;
use crate::{Lock, Open};

pub(super) type NodeId = usize;
pub(super) type HandleId = u64;
type Names = BTreeMap<String, NodeId>;

const ROOT: NodeId = 0;

#[derive(Debug)]
enum Node {
    Folder(Folder),
    File(FileNode),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    live: Names,
    durable: Names,
    /// What leads from `durable` to `live`, in order.
    pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(String, NodeId),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct FileNode {
    content: Content,
    handles: BTreeSet<HandleId>,
    /// `flock` and record locks do not see each other.
    whole: Holders,
    record: Holders,
}

#[derive(Debug, Default)]
struct Holders {
    exclusive: Option<HandleId>,
    shared: BTreeSet<HandleId>,
}

impl Holders {
    fn lock(&mut self, handle: HandleId, exclusive: bool) -> bool {
        let others_share = self.shared.iter().any(|other| *other != handle);
        let taken = self.exclusive.is_some_and(|other| other != handle);
        if taken || (exclusive && others_share) {
            return false;
        }
        self.release(handle);
        if exclusive {
            self.exclusive = Some(handle);
        } else {
            self.shared.insert(handle);
        }
        true
    }

    fn release(&mut self, handle: HandleId) {
        self.shared.remove(&handle);
        if self.exclusive == Some(handle) {
            self.exclusive = None;
        }
    }
}

fn change_names(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Put(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

impl Folder {
    fn change(&mut self, change: NameChange) {
        change_names(&mut self.live, &change);
        self.pending.push(change);
    }
}

/// Everything on one disk.
#[derive(Debug)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    last_handle: HandleId,
    pub(super) syncs: u64,
    pub(super) writes: u64,
}

impl Disk {
    pub(super) fn new() -> Self {
        let root = Node::Folder(Folder::default());
        Self { nodes: vec![root], last_handle: 0, syncs: 0, writes: 0 }
    }

    pub(super) fn find(&self, path: &[String]) -> io::Result<NodeId> {
        let mut at = ROOT;
        for name in path {
            let Node::Folder(folder) = &self.nodes[at] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            at = *folder.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn folder(&self, path: &[String]) -> io::Result<&Folder> {
        match &self.nodes[self.find(path)?] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, path: &[String]) -> io::Result<&mut Folder> {
        let node = self.find(path)?;
        match &mut self.nodes[node] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file_node(&mut self, node: NodeId) -> &mut FileNode {
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Folder(_) => unreachable!("a handle of node {node} was made for a file"),
        }
    }

    pub(super) fn file(&self, node: NodeId) -> &Content {
        match &self.nodes[node] {
            Node::File(file) => &file.content,
            Node::Folder(_) => unreachable!("a handle of node {node} was made for a file"),
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> &mut Content {
        &mut self.file_node(node).content
    }

    fn add(&mut self, path: &[String], node: Node) -> io::Result<NodeId> {
        let (name, parent) = split(path);
        let id = self.nodes.len();
        self.folder_mut(parent)?.change(NameChange::Put(name.to_owned(), id));
        self.nodes.push(node);
        Ok(id)
    }

    pub(super) fn open(&mut self, path: &[String], how: Open) -> io::Result<(NodeId, HandleId)> {
        let node = match (self.find(path), how) {
            (Ok(_), Open::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(node), Open::Read | Open::Write | Open::CreateOrWrite) => node,
            (Err(error), Open::Create | Open::CreateOrWrite)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                self.add(path, Node::File(FileNode::default()))?
            }
            (Err(error), _) => return Err(error),
        };
        if matches!(self.nodes[node], Node::Folder(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.last_handle += 1;
        let handle = self.last_handle;
        self.file_node(node).handles.insert(handle);
        Ok((node, handle))
    }

    pub(super) fn close(&mut self, node: NodeId, handle: HandleId) {
        let file = self.file_node(node);
        file.handles.remove(&handle);
        file.whole.release(handle);
        file.record.release(handle);
    }

    pub(super) fn lock(&mut self, node: NodeId, handle: HandleId, kind: Lock) -> bool {
        let file = self.file_node(node);
        match kind {
            Lock::WholeFile => file.whole.lock(handle, true),
            Lock::WholeFileShared => file.whole.lock(handle, false),
            Lock::Record => file.record.lock(handle, true),
        }
    }

    pub(super) fn make_folder(&mut self, path: &[String]) -> io::Result<()> {
        match self.find(path) {
            Ok(_) => self.folder(path).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.add(path, Node::Folder(Folder::default())).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Every file that has bytes, by its visible path.
    pub(super) fn files(&self) -> Vec<(Vec<String>, u64)> {
        let mut found = Vec::new();
        let mut left: Vec<(Vec<String>, NodeId)> = vec![(Vec::new(), ROOT)];
        while let Some((path, node)) = left.pop() {
            match &self.nodes[node] {
                Node::File(file) if 0 < file.content.len() => {
                    found.push((path, file.content.len()));
                }
                Node::File(_) => {}
                Node::Folder(folder) => {
                    for (name, &inner) in &folder.live {
                        let path = path.iter().chain([name]).cloned().collect();
                        left.push((path, inner));
                    }
                }
            }
        }
        found
    }

    pub(super) fn names(&self, path: &[String]) -> io::Result<Vec<String>> {
        Ok(self.folder(path)?.live.keys().cloned().collect())
    }

    pub(super) fn rename(&mut self, from: &[String], to: &[String]) -> io::Result<()> {
        let moved = self.find(from)?;
        if let Ok(over) = self.find(to) {
            match (&self.nodes[moved], &self.nodes[over]) {
                (Node::Folder(_), Node::Folder(target)) if !target.live.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                (Node::Folder(_), Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                (Node::File(_), Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Node::Folder(_), Node::Folder(_)) | (Node::File(_), Node::File(_)) => {}
            }
        }
        let ((from, parent), (to, _)) = (split(from), split(to));
        self.folder_mut(parent)?.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &[String]) -> io::Result<()> {
        let node = self.find(path)?;
        if matches!(self.nodes[node], Node::Folder(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (name, parent) = split(path);
        self.folder_mut(parent)?.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    /// As the library does it: what is inside first, so that a crash may find half of it.
    pub(super) fn remove_folder(&mut self, path: &[String]) -> io::Result<()> {
        for name in self.names(path)? {
            let inner: Vec<String> = path.iter().cloned().chain([name]).collect();
            let node = self.find(&inner)?;
            match self.nodes[node] {
                Node::Folder(_) => self.remove_folder(&inner)?,
                Node::File(_) => self.remove_file(&inner)?,
            }
        }
        let (name, parent) = split(path);
        self.folder_mut(parent)?.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, path: &[String]) -> io::Result<()> {
        self.syncs += 1;
        let folder = self.folder_mut(path)?;
        folder.pending.clear();
        let before = std::mem::replace(&mut folder.durable, folder.live.clone());
        let reachable: BTreeSet<NodeId> = folder.live.values().copied().collect();
        for node in before.into_values().filter(|node| !reachable.contains(node)) {
            self.forget(node);
        }
        Ok(())
    }

    fn forget(&mut self, node: NodeId) {
        match &mut self.nodes[node] {
            Node::File(file) if file.handles.is_empty() => file.content.clear(),
            Node::File(_) => {}
            Node::Folder(folder) => {
                let folder = std::mem::take(folder);
                for inner in folder.durable.into_values().chain(folder.live.into_values()) {
                    self.forget(inner);
                }
            }
        }
    }

    pub(super) fn after_crash(&self, random: &mut Random) -> Self {
        let mut names = |folder: &Folder, random: &mut Random| {
            let kept = random.below(folder.pending.len() as u64 + 1);
            let mut names = folder.durable.clone();
            for (_, change) in (0..kept).zip(&folder.pending) {
                change_names(&mut names, change);
            }
            names
        };
        self.rebuild(random, &mut names, Content::after_crash)
    }

    pub(super) fn after_losing_all(&self) -> Self {
        let mut names = |folder: &Folder, (): &mut ()| folder.durable.clone();
        self.rebuild(&mut (), &mut names, |content, ()| content.after_losing_all())
    }

    pub(super) fn copy(&self) -> Self {
        let nodes = self.nodes.iter().map(|node| match node {
            Node::Folder(folder) => Node::Folder(folder.clone()),
            Node::File(file) => {
                Node::File(FileNode { content: file.content.clone(), ..FileNode::default() })
            }
        });
        Self { nodes: nodes.collect(), last_handle: 0, syncs: 0, writes: 0 }
    }

    /// A disk of the nodes that `names` lead to, with nothing unsynced.
    fn rebuild<C>(
        &self,
        context: &mut C,
        names: &mut impl FnMut(&Folder, &mut C) -> Names,
        content: impl Fn(&Content, &mut C) -> Content,
    ) -> Self {
        let mut disk = Self::new();
        let mut left = vec![(ROOT, ROOT)];
        while let Some((old, new)) = left.pop() {
            match &self.nodes[old] {
                Node::File(file) => {
                    disk.file_node(new).content = content(&file.content, context);
                }
                Node::Folder(folder) => {
                    let mut copied = Names::new();
                    for (name, inner) in names(folder, context) {
                        let id = disk.nodes.len();
                        disk.nodes.push(match &self.nodes[inner] {
                            Node::Folder(_) => Node::Folder(Folder::default()),
                            Node::File(_) => Node::File(FileNode::default()),
                        });
                        copied.insert(name, id);
                        left.push((inner, id));
                    }
                    disk.nodes[new] = Node::Folder(Folder {
                        live: copied.clone(),
                        durable: copied,
                        pending: Vec::new(),
                    });
                }
            }
        }
        disk
    }
}

fn split(path: &[String]) -> (&str, &[String]) {
    let (name, parent) = path.split_last().expect("the root is never opened, renamed or removed");
    (name, parent)
}
