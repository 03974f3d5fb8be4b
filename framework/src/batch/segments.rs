//! Further segments of packets that are longer than a frame: chains of frames in one slab, made once.

use crate::mem::Frame;

/// The end of a chain, and the chain of a packet with one segment.
pub(super) const NONE: u32 = u32::MAX;

/// Frames beyond the first, of all packets in the batch or held. A chain is named by its first node.
pub(super) struct Segments {
    nodes: Vec<Node>,
    free: u32,
}

struct Node {
    frame: Frame,
    next: u32,
}

impl Segments {
    /// Room for `frames` segments: as many as there are frames, so that it is never full.
    pub(super) fn new(frames: usize) -> Self {
        let last = frames.saturating_sub(1);
        let nodes = (0..frames)
            .map(|index| Node {
                frame: Frame::EMPTY,
                next: if index == last { NONE } else { index as u32 + 1 },
            })
            .collect();
        Self { nodes, free: if frames == 0 { NONE } else { 0 } }
    }

    /// Puts a frame at the end of the chain that starts at `first`; returns the chain's first node.
    pub(super) fn append(&mut self, first: u32, frame: Frame) -> u32 {
        let new = self.free;
        let node = self.nodes.get_mut(new as usize).expect("as many nodes as there are frames");
        self.free = node.next;
        *node = Node { frame, next: NONE };
        if first == NONE {
            return new;
        }
        let mut last = first;
        while self.nodes[last as usize].next != NONE {
            last = self.nodes[last as usize].next;
        }
        self.nodes[last as usize].next = new;
        first
    }

    /// The frame of a node, and the next node.
    pub(super) fn get(&self, node: u32) -> Option<(&Frame, u32)> {
        self.nodes.get(node as usize).map(|node| (&node.frame, node.next))
    }

    /// Takes a chain's first frame; returns it and the rest of the chain.
    pub(super) fn remove(&mut self, first: u32) -> Option<(Frame, u32)> {
        let node = self.nodes.get_mut(first as usize)?;
        let frame = std::mem::replace(&mut node.frame, Frame::EMPTY);
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = first;
        Some((frame, next))
    }

    /// The bytes of a chain's frames.
    pub(super) fn iter(&self, first: u32) -> impl Iterator<Item = &[u8]> {
        let mut node = first;
        std::iter::from_fn(move || {
            let (frame, next) = self.get(node)?;
            node = next;
            Some(frame.bytes())
        })
    }
}
