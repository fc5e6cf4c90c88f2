//! The prefixes of one host as a tree of path elements: a request walks down once, and finds all of its prefixes on
//! the way back up, the longest first. No step depends on how many prefixes there are, but for one look into a map.

use std::collections::BTreeMap;

use super::Entry;
use crate::path::elements;

/// The tree. Its first node is the root, the prefix `/`.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The node above; the root is its own.
    parent: usize,
    children: BTreeMap<Box<str>, usize>,
    /// In the order in which they are tried.
    entries: Vec<Entry>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree {
            nodes: vec![Node::default()],
        }
    }
}

impl Tree {
    /// The entries of the prefix `path`, to be added to.
    pub(super) fn at(&mut self, path: &str) -> &mut Vec<Entry> {
        let mut node = 0;
        for element in elements(path) {
            let next = self.nodes.len();
            node = match self.nodes[node].children.get(element) {
                Some(&child) => child,
                None => {
                    self.nodes[node].children.insert(element.into(), next);
                    self.nodes.push(Node {
                        parent: node,
                        ..Node::default()
                    });
                    next
                }
            };
        }
        &mut self.nodes[node].entries
    }

    /// Gives back the room that was kept for more.
    pub(super) fn shrink(&mut self) {
        for node in &mut self.nodes {
            node.entries.shrink_to_fit();
        }
        self.nodes.shrink_to_fit();
    }

    /// The entries of all prefixes of `path`, in the order in which they are tried.
    pub(super) fn along<'t>(&'t self, path: &str) -> impl Iterator<Item = &'t Entry> + use<'t> {
        let mut deepest = 0;
        for element in elements(path) {
            match self.nodes[deepest].children.get(element) {
                Some(&child) => deepest = child,
                None => break,
            }
        }
        let above = |node: &usize| (*node != 0).then(|| self.nodes[*node].parent);
        std::iter::successors(Some(deepest), above).flat_map(|node| &self.nodes[node].entries)
    }

    /// Every entry with its prefix, which has no slash at its end.
    pub(super) fn all(&self) -> Vec<(String, &Entry)> {
        let mut paths = vec![String::new(); self.nodes.len()];
        let mut found = Vec::new();
        // Children always stand behind their parent.
        for (index, node) in self.nodes.iter().enumerate() {
            for (element, child) in &node.children {
                paths[*child] = format!("{}/{element}", paths[index]);
            }
            let path = match index {
                0 => "/",
                _ => &paths[index],
            };
            found.extend(node.entries.iter().map(|entry| (path.to_owned(), entry)));
        }
        found
    }
}
