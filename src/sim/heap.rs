//! The one event heap: by time, then by the order of entry, so that a run has one order only.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    seq: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// What will happen when.
#[derive(Debug)]
pub(super) struct Heap<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    seq: u64,
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            seq: 0,
        }
    }
}

impl<T> Heap<T> {
    /// Plans `what` for `at`.
    pub(super) fn push(&mut self, at: Duration, what: T) {
        self.seq += 1;
        let seq = self.seq;
        self.heap.push(Reverse(Entry { at, seq, what }));
    }

    /// The next, if it is not later than `end`.
    pub(super) fn pop(&mut self, end: Duration) -> Option<(Duration, T)> {
        if self.heap.peek().is_none_or(|Reverse(e)| e.at > end) {
            return None;
        }
        self.heap.pop().map(|Reverse(e)| (e.at, e.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_the_same_time_comes_in_the_order_of_entry() {
        let mut h = Heap::default();
        let at = Duration::from_secs;
        for (t, name) in [(2, 'c'), (1, 'a'), (1, 'b'), (9, 'z')] {
            h.push(at(t), name);
        }
        let mut seen = String::new();
        while let Some((_, c)) = h.pop(at(5)) {
            seen.push(c);
        }
        assert_eq!(seen, "abc");
    }
}
