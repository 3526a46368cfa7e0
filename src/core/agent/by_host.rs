//! A table of hosts: found by one hash, kept in one vector, walked in the order of names.
//!
//! Half of what the core does is to find the state of a beacon's source. Several tables that were filled in the same
//! order share their positions, so a position found in one is a good hint for the next. The hash is a folded multiply
//! without a seed: names chosen to collide cost a walk over the bounded table, nothing worse.

use crate::core::ids::HostName;

const EMPTY: u32 = u32::MAX;

/// Values by host.
#[derive(Debug, Clone)]
pub struct ByHost<T> {
    slots: Vec<(HostName, T)>,
    /// Positions in the order of names.
    order: Vec<u32>,
    /// (upper half of the hash, position); a power of two of them, at most half full.
    table: Vec<(u32, u32)>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            order: Vec::new(),
            table: Vec::new(),
        }
    }
}

impl<T> ByHost<T> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Where it is, until something is removed.
    #[must_use]
    pub fn position(&self, host: &HostName) -> Option<usize> {
        let (tag, mut i) = self.spot(host)?;
        loop {
            let (t, at) = *self.table.get(i)?;
            if at == EMPTY {
                return None;
            }
            if t == tag && self.slots.get(at as usize).is_some_and(|(h, _)| h == host) {
                return Some(at as usize);
            }
            i = (i + 1) & (self.table.len() - 1);
        }
    }

    /// Where it is; a right `hint` spares the look-up.
    #[must_use]
    pub fn position_near(&self, hint: Option<usize>, host: &HostName) -> Option<usize> {
        let hit = hint.filter(|i| self.slots.get(*i).is_some_and(|(h, _)| h == host));
        hit.or_else(|| self.position(host))
    }

    /// By position.
    pub fn at_mut(&mut self, position: usize) -> Option<&mut T> {
        self.slots.get_mut(position).map(|(_, v)| v)
    }

    /// By position.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&T> {
        self.slots.get(position).map(|(_, v)| v)
    }

    /// The value of a host.
    #[must_use]
    pub fn get(&self, host: &HostName) -> Option<&T> {
        self.at(self.position(host)?)
    }

    /// The value of a host.
    pub fn get_mut(&mut self, host: &HostName) -> Option<&mut T> {
        let at = self.position(host)?;
        self.at_mut(at)
    }

    /// Is it there?
    #[must_use]
    pub fn contains_key(&self, host: &HostName) -> bool {
        self.position(host).is_some()
    }

    /// Sets a value and says where it is.
    pub fn insert(&mut self, host: HostName, value: T) -> usize {
        if let Some(at) = self.position(&host) {
            self.slots[at].1 = value;
            return at;
        }
        let at = self.slots.len();
        let here = self.rank(&host);
        self.order.insert(here, narrow(at));
        self.slots.push((host, value));
        if self.slots.len() * 2 > self.table.len() {
            self.index();
        } else {
            self.enter(at);
        }
        at
    }

    /// Takes a host out; positions of others may change.
    pub fn remove(&mut self, host: &HostName) -> Option<T> {
        let at = self.position(host)?;
        self.order.retain(|i| *i as usize != at);
        let last = self.slots.len() - 1;
        let (_, value) = self.slots.swap_remove(at);
        for i in &mut self.order {
            if *i as usize == last {
                *i = narrow(at);
            }
        }
        self.index();
        Some(value)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.order.clear();
        self.table.fill((0, EMPTY));
    }

    /// All, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &T)> + Clone {
        self.order
            .iter()
            .filter_map(|i| self.slots.get(*i as usize))
            .map(|(h, v)| (h, v))
    }

    /// All hosts, in order.
    pub fn keys(&self) -> impl Iterator<Item = &HostName> + Clone {
        self.iter().map(|(h, _)| h)
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|(_, v)| v)
    }

    /// All, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&HostName, &mut T)> {
        self.slots.iter_mut().map(|(h, v)| (&*h, v))
    }

    fn rank(&self, host: &HostName) -> usize {
        self.order
            .partition_point(|i| self.slots.get(*i as usize).is_some_and(|(h, _)| h < host))
    }

    fn spot(&self, host: &HostName) -> Option<(u32, usize)> {
        let mask = self.table.len().checked_sub(1)?;
        let hash = hash(host);
        Some((narrow_hash(hash >> 32), narrow_hash(hash) as usize & mask))
    }

    fn index(&mut self) {
        let size = (self.slots.len() * 2).next_power_of_two().max(16);
        self.table.clear();
        self.table.resize(size, (0, EMPTY));
        for at in 0..self.slots.len() {
            self.enter(at);
        }
    }

    fn enter(&mut self, at: usize) {
        let Some((tag, mut i)) = self.slots.get(at).and_then(|(h, _)| self.spot(h)) else {
            return;
        };
        while self.table[i].1 != EMPTY {
            i = (i + 1) & (self.table.len() - 1);
        }
        self.table[i] = (tag, narrow(at));
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the roster is bounded far below")]
fn narrow(at: usize) -> u32 {
    at as u32
}

#[allow(clippy::cast_possible_truncation, reason = "a half of the hash is wanted")]
fn narrow_hash(hash: u64) -> u32 {
    hash as u32
}

/// Folded multiply over words of eight bytes.
fn hash(host: &HostName) -> u64 {
    let (head, bytes) = host.head_and_rest();
    let mut hash = fold(0x9e37_79b9_7f4a_7c15 ^ head);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = fold(hash ^ u64::from_le_bytes(word));
    }
    hash
}

#[allow(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
fn fold(x: u64) -> u64 {
    let wide = u128::from(x) * u128::from(0xd6e8_feb8_6659_fd93_u64);
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(steps in proptest::collection::vec((0u32..60, any::<bool>(), any::<u8>()), 0..400)) {
            let (mut table, mut model) = (ByHost::default(), BTreeMap::new());
            for (n, insert, value) in steps {
                let host = HostName::new(&format!("host-{n}")).unwrap();
                if insert {
                    let at = table.insert(host.clone(), value);
                    prop_assert_eq!(table.at(at), Some(&value));
                    model.insert(host, value);
                } else {
                    prop_assert_eq!(table.remove(&host), model.remove(&host));
                }
                prop_assert!(table.iter().eq(model.iter()));
                prop_assert_eq!(table.len(), model.len());
            }
            for n in 0..60 {
                let host = HostName::new(&format!("host-{n}")).unwrap();
                prop_assert_eq!(table.get(&host), model.get(&host));
                // A wrong hint does no harm.
                prop_assert_eq!(table.position_near(Some(n as usize), &host), table.position(&host));
            }
        }
    }
}
