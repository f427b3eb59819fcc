//! The shape of the tree in which etcd keeps what a user may, for the one question whose answer
//! depends on it: whether a range that ends before its key is allowed.
//!
//! Such a range holds nothing. But a transaction with one in it is made by members that allow it
//! and not by others, so all of a cluster must judge alike. etcd looks for a permission around the
//! key, and looks nowhere below a permission that lies between the range's end and its key.
//!
//! A node is red or black as in any red-black tree; nothing is ever removed.
//!
//! Source: etcd: pkg/adt/interval_tree.go of 3.7; that of 3.5 orders permissions that begin alike
//! otherwise.

use super::ranges::Range;

/// Which child.
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// Permissions, in the order of their beginnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    root: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    range: Range,
    is_red: bool,
    parent: Option<usize>,
    children: [Option<usize>; 2],
}

impl Tree {
    /// Adds a permission. The shape depends on the order in which they come.
    pub(super) fn insert(&mut self, range: Range) {
        let place = self.nodes.len();
        let (mut parent, mut side, mut next) = (None, LEFT, self.root);
        while let Some(at) = next {
            parent = next;
            side = if range < self.nodes[at].range { LEFT } else { RIGHT };
            next = self.nodes[at].children[side];
        }
        self.nodes.push(Node { range, is_red: true, parent, children: [None; 2] });
        match parent {
            Some(parent) => self.nodes[parent].children[side] = Some(place),
            None => self.root = Some(place),
        }
        self.balance(place);
    }

    /// After `node` was added, or became red.
    fn balance(&mut self, mut node: usize) {
        while let Some(mut parent) = self.nodes[node].parent
            && self.nodes[parent].is_red
        {
            let above = self.nodes[parent].parent.expect("the root is black");
            let side = self.side(parent, above);
            let uncle = self.nodes[above].children[1 - side];
            self.nodes[above].is_red = true;
            if let Some(uncle) = uncle.filter(|uncle| self.nodes[*uncle].is_red) {
                self.nodes[uncle].is_red = false;
                self.nodes[parent].is_red = false;
                node = above;
                continue;
            }
            if self.side(node, parent) != side {
                self.rotate(parent, side);
                (node, parent) = (parent, node);
            }
            self.nodes[parent].is_red = false;
            self.rotate(above, 1 - side);
        }
        let root = self.root.expect("something was added");
        self.nodes[root].is_red = false;
    }

    fn side(&self, child: usize, parent: usize) -> usize {
        if self.nodes[parent].children[LEFT] == Some(child) { LEFT } else { RIGHT }
    }

    /// Moves a node down to this side of its child on the other side.
    fn rotate(&mut self, node: usize, side: usize) {
        let up = self.nodes[node].children[1 - side].expect("what is moved down has two sides");
        let between = self.nodes[up].children[side];
        self.nodes[node].children[1 - side] = between;
        if let Some(between) = between {
            self.nodes[between].parent = Some(node);
        }
        let above = self.nodes[node].parent;
        self.nodes[up].parent = above;
        match above {
            Some(above) => {
                let of_node = self.side(node, above);
                self.nodes[above].children[of_node] = Some(up);
            }
            None => self.root = Some(up),
        }
        self.nodes[up].children[side] = Some(node);
        self.nodes[node].parent = Some(up);
    }

    /// Whether etcd finds a permission around `key` for a range that ends at `end`, which is not
    /// behind it.
    pub(super) fn finds(&self, key: &[u8], end: &[u8]) -> bool {
        let mut waiting = Vec::from_iter(self.root);
        while let Some(at) = waiting.pop() {
            let Node { range, children, .. } = &self.nodes[at];
            if *key < range.start[..] {
                waiting.extend(children[LEFT]);
            } else if range.end.is_behind(key) {
                return true;
            } else if range.start[..] < *end {
                waiting.extend(children.iter().flatten());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::ranges::End;
    use super::*;

    /// Invariants of a red-black tree: the number of black nodes on each way down.
    fn black_height(tree: &Tree, at: Option<usize>) -> usize {
        let Some(at) = at else { return 0 };
        let node = &tree.nodes[at];
        for child in node.children.iter().flatten() {
            assert_eq!(tree.nodes[*child].parent, Some(at));
            assert!(!(node.is_red && tree.nodes[*child].is_red), "a red node has black children");
        }
        let [left, right] = node.children.map(|child| black_height(tree, child));
        assert_eq!(left, right);
        left + usize::from(!node.is_red)
    }

    fn in_order(tree: &Tree, at: Option<usize>, into: &mut Vec<Range>) {
        if let Some(node) = at.map(|at| &tree.nodes[at]) {
            in_order(tree, node.children[LEFT], into);
            into.push(node.range.clone());
            in_order(tree, node.children[RIGHT], into);
        }
    }

    #[test]
    fn the_tree_stays_balanced_and_in_order() {
        let mut tree = Tree::default();
        let mut next: u32 = 7;
        for _ in 0..500 {
            // Any numbers: those of a generator that is easily written down.
            next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [start, end, ..] = next.to_be_bytes();
            let end = End::Before(vec![start, end].into());
            tree.insert(Range { start: vec![start].into(), end });
            assert_eq!(tree.nodes[tree.root.unwrap()].parent, None);
            black_height(&tree, tree.root);
        }
        let mut ranges = Vec::new();
        in_order(&tree, tree.root, &mut ranges);
        assert_eq!(ranges.len(), 500);
        assert!(ranges.is_sorted());
    }
}
