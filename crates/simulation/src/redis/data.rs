//! Keys and values.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::digest::Digest;

/// All keys of a server.
#[derive(Clone, Default)]
pub struct Data {
    keys: BTreeMap<Vec<u8>, Entry>,
    /// When the next key may run out: nothing need be looked at before.
    expires_us: Option<u64>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) value: Kept,
    pub(super) expires_us: Option<u64>,
}

/// What a key holds.
#[derive(Clone)]
pub(super) enum Kept {
    Text(Vec<u8>),
    /// In the order in which fields were added, as a small hash of a real server.
    Hash(Fields),
    Stream(Stream),
}

/// Fields and their values.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The id of an entry of a log, and its fields and values.
pub(super) type LogEntry = ((u64, u64), Rc<[Vec<u8>]>);

/// A log.
#[derive(Clone, Default)]
pub(super) struct Stream {
    pub(super) last: (u64, u64),
    pub(super) entries: VecDeque<LogEntry>,
}

impl Data {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Forgets what has run out.
    pub(super) fn expire(&mut self, now_us: u64) {
        if self.expires_us.is_some_and(|at| at <= now_us) {
            self.keys.retain(|_, entry| entry.expires_us.is_none_or(|at| at > now_us));
            self.expires_us = self.keys.values().filter_map(|entry| entry.expires_us).min();
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Kept> {
        self.keys.get(key).map(|entry| &entry.value)
    }

    pub(super) fn get_or_make(&mut self, key: &[u8], fresh: fn() -> Kept) -> &mut Kept {
        if !self.keys.contains_key(key) {
            self.put(key, fresh());
        }
        let entry = self.keys.entry(key.to_vec());
        &mut entry.or_insert_with(|| Entry { value: fresh(), expires_us: None }).value
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Kept> {
        self.keys.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(super) fn put(&mut self, key: &[u8], value: Kept) {
        self.keys.insert(key.to_vec(), Entry { value, expires_us: None });
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        self.keys.remove(key).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    /// Returns false where there is no such key.
    pub(super) fn set_expiry(&mut self, key: &[u8], at_us: u64) -> bool {
        let Some(entry) = self.keys.get_mut(key) else { return false };
        entry.expires_us = Some(at_us);
        self.expires_us = Some(self.expires_us.map_or(at_us, |next| next.min(at_us)));
        true
    }

    pub(super) fn expiry(&self, key: &[u8]) -> Option<Option<u64>> {
        self.keys.get(key).map(|entry| entry.expires_us)
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        for (key, entry) in &self.keys {
            digest.bytes(key);
            digest.number(entry.expires_us.unwrap_or(0));
            match &entry.value {
                Kept::Text(text) => digest.bytes(text),
                Kept::Hash(fields) => fields.iter().for_each(|(field, value)| {
                    digest.bytes(field);
                    digest.bytes(value);
                }),
                Kept::Stream(stream) => {
                    for (id, fields) in &stream.entries {
                        digest.number(id.0);
                        fields.iter().for_each(|field| digest.bytes(field));
                    }
                }
            }
        }
    }
}
