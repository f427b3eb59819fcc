//! Rewriting a tree with a set of changes.
//!
//! Every page on the way to a change is rewritten (copy on write). Neighbours that are rewritten are
//! packed together, so that scattered deletions leave full pages, not half-empty ones; a rest that
//! is too small takes its next neighbour in. At the right edge pages are left as full as they get,
//! because the `key` bucket only grows there.
//!
//! Invariant: a branch that is written has two children at least. A part of the tree that shrinks to
//! a single node is handed up as that node, lower than its neighbours, until it finds some to be
//! joined with; alone, it is the new root.

use bytes::Bytes;

use crate::output::{Output, Ref};
use crate::pack::{End, Packer};
use crate::page::{Kind, Page, PageId};
use crate::rows;
use crate::tree::{DEPTH_MAX, Tree};
use crate::{CommitError, ReadError};

/// What happens to one key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// It gets this value.
    Put(&'a [u8]),
    /// It goes away.
    Delete,
    /// Nothing, but the pages on the way to it are rewritten.
    Touch,
}

/// A key and what happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) action: Action<'a>,
}

impl<'a> Edit<'a> {
    /// What a changed row asks for.
    pub(crate) fn of((key, change): (&'a rows::RowKey, &'a rows::Change)) -> Self {
        let action = change.as_ref().map_or(Action::Delete, |value| Action::Put(value));
        Self { key: key.bytes(), action }
    }
}

/// The result of rewriting a tree.
#[derive(Debug)]
pub(crate) enum NewTree {
    /// A leaf of at most this size: elements as they go into a value.
    Inline(Page),
    /// A page.
    At(PageId),
}

/// Rewrites a tree. `edits` ascend strictly; a leaf that ends up no larger than `inline_bytes_max`
/// is not written but returned.
pub(crate) fn rewrite(
    output: &mut Output<'_>,
    tree: Option<&Tree>,
    edits: &[Edit<'_>],
    inline_bytes_max: usize,
) -> Result<NewTree, CommitError> {
    let (refs, level) = match tree {
        Some(Tree::At(id)) => {
            let level = level_of(output, *id)?;
            let page = output.dissolve(*id)?;
            if level == 0 {
                return leaf_root(output, Some(&page), edits, inline_bytes_max);
            }
            (children(output, &page, level, edits, true)?, level)
        }
        Some(Tree::Inline(page)) => return leaf_root(output, Some(page), edits, inline_bytes_max),
        None => return leaf_root(output, None, edits, inline_bytes_max),
    };
    let mut refs = level_up(output, refs, level - 1)?;
    if let [only] = &refs[..]
        && only.level == 0
    {
        // It may have become small enough to lie in the value.
        let page = output.dissolve(only.id)?;
        return leaf_root(output, Some(&page), &[], inline_bytes_max);
    }
    while refs.len() > 1 {
        refs = pack(output, refs)?;
    }
    match refs.pop() {
        Some(root) => Ok(NewTree::At(root.id)),
        None => leaf_root(output, None, &[], inline_bytes_max),
    }
}

/// Levels below a page, by its leftmost path; leaves are at 0.
fn level_of(output: &Output<'_>, root: PageId) -> Result<u8, ReadError> {
    let mut id = root;
    for level in 0..=DEPTH_MAX {
        let page = output.pages.read(id, output.high_water())?;
        if page.kind() == Kind::Leaf {
            return Ok(u8::try_from(level).expect("the depth is bounded"));
        }
        id = page.child(0);
    }
    Err(ReadError::damaged(root, "the tree leads in a circle"))
}

/// Rewrites a tree that is one leaf.
fn leaf_root(
    output: &mut Output<'_>,
    leaf: Option<&Page>,
    edits: &[Edit<'_>],
    inline_bytes_max: usize,
) -> Result<NewTree, CommitError> {
    let mut run = LeafRun::new(output.page_bytes());
    match leaf {
        Some(leaf) if leaf.kind() == Kind::Branch => {
            let what = "a branch where a leaf should be";
            return Err(ReadError::damaged(0, what).into());
        }
        Some(leaf) => run.merge(output, leaf, edits)?,
        None => {
            for edit in edits {
                run.put(output, edit)?;
            }
        }
    }
    if let Some(node) = run.packer.single_page()
        && node.size() <= inline_bytes_max
    {
        let bytes = node.encode(Kind::Leaf, 0, 0, node.size());
        return Ok(NewTree::Inline(Page::trusted(Bytes::from(bytes), Kind::Leaf, node.count())));
    }
    let mut refs = run.finish(output, End::Open)?;
    while refs.len() > 1 {
        refs = pack(output, refs)?;
    }
    let root = refs.pop().expect("an empty leaf is small enough to be inline");
    Ok(NewTree::At(root.id))
}

/// The children of a branch after the edits: all one level below it, or a single lower one, or a
/// mixture of both that [`level_up`] must even out, or none. The branch itself is dropped already.
fn children(
    output: &mut Output<'_>,
    branch: &Page,
    level: u8,
    edits: &[Edit<'_>],
    edge: bool,
) -> Result<Vec<Ref>, CommitError> {
    let below = level - 1;
    let count = branch.count();
    let mut rest = edits;
    let mut take = |at: usize| {
        let end = if at + 1 < count {
            rest.partition_point(|edit| edit.key < branch.key(at + 1))
        } else {
            rest.len()
        };
        let (mine, others) = rest.split_at(end);
        rest = others;
        mine
    };
    let child = |at: usize| Ref { key: branch.shared_key(at), id: branch.child(at), level: below };
    let mut out: Vec<Ref> = Vec::with_capacity(count + 1);
    let mut at = 0;
    let mut mine = take(at);
    while at < count {
        if mine.is_empty() {
            out.push(child(at));
            at += 1;
            if at < count {
                mine = take(at);
            }
            continue;
        }
        let mut run = Run::new(output, below);
        while at < count && !mine.is_empty() {
            run.add(output, &child(at), mine, edge && at + 1 == count)?;
            at += 1;
            mine = if at < count { take(at) } else { &[] };
        }
        let at_edge = |at: usize| edge && at == count;
        while run.is_small(at_edge(at)) {
            if at < count {
                run.add(output, &child(at), mine, at_edge(at + 1))?;
                at += 1;
                mine = if at < count { take(at) } else { &[] };
            } else if let Some(before) = out.pop() {
                run.prepend(output, &before)?;
            } else {
                break;
            }
        }
        out.append(&mut run.finish(output, at_edge(at))?);
    }
    Ok(out)
}

/// Neighbours on one level that are rewritten together.
enum Run {
    Leaves(LeafRun),
    Branches { level: u8, refs: Vec<Ref>, page_bytes: usize },
}

impl Run {
    fn new(output: &Output<'_>, level: u8) -> Self {
        let page_bytes = output.page_bytes();
        match level {
            0 => Self::Leaves(LeafRun::new(page_bytes)),
            _ => Self::Branches { level, refs: Vec::new(), page_bytes },
        }
    }

    fn add(
        &mut self,
        output: &mut Output<'_>,
        child: &Ref,
        edits: &[Edit<'_>],
        edge: bool,
    ) -> Result<(), CommitError> {
        let page = dissolve(output, child)?;
        match self {
            Self::Leaves(run) => run.merge(output, &page, edits)?,
            Self::Branches { level, refs, .. } => {
                refs.append(&mut children(output, &page, *level, edits, edge)?);
            }
        }
        Ok(())
    }

    /// Adds a neighbour without edits in front. Only while the run is small.
    fn prepend(&mut self, output: &mut Output<'_>, before: &Ref) -> Result<(), CommitError> {
        match self {
            Self::Leaves(run) => {
                let page = dissolve(output, before)?;
                let old = std::mem::replace(run, LeafRun::new(output.page_bytes()));
                run.merge(output, &page, &[])?;
                old.append_to(output, run)?;
            }
            Self::Branches { level, refs, .. } if before.level == *level => {
                let page = dissolve(output, before)?;
                let mut joined = refs_of(&page, *level);
                joined.append(refs);
                *refs = joined;
            }
            Self::Branches { refs, .. } => refs.insert(0, before.clone()),
        }
        Ok(())
    }

    /// Whether it would make a page that is nearly empty, or a branch with a single child.
    fn is_small(&self, edge: bool) -> bool {
        match self {
            // The right edge is filled by what comes next.
            Self::Leaves(run) => !edge && run.is_small(),
            Self::Branches { refs, .. } if refs.len() < 2 => !refs.is_empty(),
            Self::Branches { refs, page_bytes, .. } => {
                let size: usize = refs.iter().take(64).map(|at| 16 + at.key.len()).sum();
                !edge && refs.len() < 64 && size < page_bytes / 4
            }
        }
    }

    fn finish(self, output: &mut Output<'_>, edge: bool) -> Result<Vec<Ref>, CommitError> {
        let end = if edge { End::Open } else { End::Even };
        match self {
            Self::Leaves(run) => run.finish(output, end),
            Self::Branches { level, refs, .. } => {
                let refs = level_up(output, refs, level - 1)?;
                if refs.len() < 2 {
                    return Ok(refs);
                }
                pack_to(output, refs, end)
            }
        }
    }
}

/// Elements of neighbouring leaves on their way into new ones.
struct LeafRun {
    packer: Packer,
    done: Vec<Ref>,
}

impl LeafRun {
    fn new(page_bytes: usize) -> Self {
        Self { packer: Packer::new(Kind::Leaf, page_bytes), done: Vec::new() }
    }

    fn push(
        &mut self,
        output: &mut Output<'_>,
        key: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<(), CommitError> {
        if let Some(full) = self.packer.push(key, value, u64::from(flags)) {
            self.done.push(output.emit(&full, Kind::Leaf, 0)?);
        }
        Ok(())
    }

    fn put(&mut self, output: &mut Output<'_>, edit: &Edit<'_>) -> Result<(), CommitError> {
        match edit.action {
            Action::Put(value) => self.push(output, edit.key, value, 0),
            Action::Delete | Action::Touch => Ok(()),
        }
    }

    /// Adds the elements of a leaf, with edits of keys in its range.
    fn merge(
        &mut self,
        output: &mut Output<'_>,
        leaf: &Page,
        edits: &[Edit<'_>],
    ) -> Result<(), CommitError> {
        let mut edits = edits.iter().peekable();
        for at in 0..leaf.count() {
            let key = leaf.key(at);
            while let Some(edit) = edits.next_if(|edit| edit.key < key) {
                self.put(output, edit)?;
            }
            match edits.next_if(|edit| edit.key == key).map(|edit| edit.action) {
                Some(Action::Put(value)) => self.push(output, key, value, 0)?,
                Some(Action::Delete) => {}
                Some(Action::Touch) | None => {
                    self.push(output, key, leaf.value(at), leaf.flags(at))?;
                }
            }
        }
        for edit in edits {
            self.put(output, edit)?;
        }
        Ok(())
    }

    fn is_small(&self) -> bool {
        self.packer.is_small()
    }

    /// Adds all elements of this small run behind those of another one.
    fn append_to(self, output: &mut Output<'_>, run: &mut Self) -> Result<(), CommitError> {
        let node = self.packer.single_page().expect("a small run fits one page");
        for (key, value, tag) in node.iter() {
            let flags = u32::try_from(tag).expect("flags have 32 bits");
            run.push(output, key, value, flags)?;
        }
        Ok(())
    }

    fn finish(mut self, output: &mut Output<'_>, end: End) -> Result<Vec<Ref>, CommitError> {
        for node in self.packer.finish(end) {
            self.done.push(output.emit(&node, Kind::Leaf, 0)?);
        }
        Ok(self.done)
    }
}

/// Drops a node that should be on a level.
fn dissolve(output: &mut Output<'_>, node: &Ref) -> Result<Page, CommitError> {
    let page = output.dissolve(node.id)?;
    let expected = if node.level == 0 { Kind::Leaf } else { Kind::Branch };
    if page.kind() != expected {
        let what = "not all leaves are equally deep";
        return Err(ReadError::damaged(node.id, what).into());
    }
    Ok(page)
}

fn refs_of(branch: &Page, level: u8) -> Vec<Ref> {
    let child =
        |at: usize| Ref { key: branch.shared_key(at), id: branch.child(at), level: level - 1 };
    (0..branch.count()).map(child).collect()
}

/// Branches over two or more nodes of one level.
pub(crate) fn pack(output: &mut Output<'_>, refs: Vec<Ref>) -> Result<Vec<Ref>, CommitError> {
    pack_to(output, refs, End::Open)
}

fn pack_to(output: &mut Output<'_>, refs: Vec<Ref>, end: End) -> Result<Vec<Ref>, CommitError> {
    assert!(refs.len() > 1, "a branch over {} children", refs.len());
    let level = refs[0].level + 1;
    let mut packer = Packer::new(Kind::Branch, output.page_bytes());
    let mut done = Vec::new();
    for node in refs {
        if let Some(full) = packer.push(&node.key, &[], node.id) {
            done.push(output.emit(&full, Kind::Branch, level)?);
        }
    }
    for node in packer.finish(end) {
        done.push(output.emit(&node, Kind::Branch, level)?);
    }
    Ok(done)
}

/// Brings nodes of different levels, none above `level`, to that level by joining the lower ones
/// with their neighbours. A single node, or none, is returned as it is.
fn level_up(
    output: &mut Output<'_>,
    mut refs: Vec<Ref>,
    level: u8,
) -> Result<Vec<Ref>, CommitError> {
    loop {
        let lowest = refs.iter().map(|node| node.level).min().unwrap_or(level);
        if refs.len() < 2 || lowest == level {
            return Ok(refs);
        }
        let start = refs.iter().position(|node| node.level == lowest).expect("it is the minimum");
        let count = refs[start..].iter().take_while(|node| node.level == lowest).count();
        if count > 1 {
            let group: Vec<Ref> = refs.splice(start..start + count, []).collect();
            let packed = pack_to(output, group, End::Even)?;
            refs.splice(start..start, packed);
        } else {
            let neighbour = if start > 0 { start - 1 } else { start + 1 };
            let page = dissolve(output, &refs[neighbour])?;
            let inner = refs_of(&page, refs[neighbour].level);
            refs.splice(neighbour..=neighbour, inner);
        }
    }
}
