//! One file of the disk: its bytes as they were written, and as they were synced.
//!
//! Invariant: behind its size a file has no byte but zeros, so that growing it again shows nothing old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Loss, PAGE};
use crate::random::Random;

/// The unit in which a disk writes.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pages: BTreeMap<u64, Page>,
    size: u64,
    synced_pages: BTreeMap<u64, Page>,
    synced_size: u64,
    dirty: BTreeSet<u64>,
    /// The sizes that it was given since the last sync, each with its place in the journal.
    resized: Vec<(usize, u64)>,
}

impl File {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many pages are not synced.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = (offset + length as u64).min(self.size);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        let mut done = 0;
        while done < bytes.len() {
            let (page, at) = place(offset + done as u64);
            let piece = (PAGE - at).min(bytes.len() - done);
            if let Some(page) = self.pages.get(&page) {
                bytes[done..done + piece].copy_from_slice(&page[at..at + piece]);
            }
            done += piece;
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (number, at) = place(offset + done as u64);
            let piece = (PAGE - at).min(bytes.len() - done);
            let page = self.pages.entry(number).or_insert_with(empty);
            Arc::make_mut(page)[at..at + piece].copy_from_slice(&bytes[done..done + piece]);
            self.dirty.insert(number);
            done += piece;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    /// Sets the length; the journal has it at place `at`.
    pub(super) fn resize(&mut self, at: usize, size: u64) {
        if size < self.size {
            clip(&mut self.pages, size);
            let (last, _) = place(size);
            self.dirty.retain(|page| *page <= last);
            if self.pages.contains_key(&last) {
                self.dirty.insert(last);
            }
        }
        self.size = size;
        self.resized.push((at, size));
    }

    pub(super) fn sync(&mut self) {
        if self.size < self.synced_size {
            clip(&mut self.synced_pages, self.size);
        }
        for number in std::mem::take(&mut self.dirty) {
            if let Some(page) = self.pages.get(&number) {
                self.synced_pages.insert(number, Arc::clone(page));
            }
        }
        self.synced_size = self.size;
        self.resized.clear();
    }

    /// Becomes what survives, with the journal kept up to `durable`. Returns how many pages are not as they were
    /// written last.
    pub(super) fn lose(&mut self, loss: Loss, durable: usize, random: &mut Random) -> usize {
        let mut pages = std::mem::take(&mut self.synced_pages);
        let mut size = self.synced_size;
        for (_, given) in self.resized.iter().filter(|(at, _)| *at < durable) {
            clip(&mut pages, *given);
            size = *given;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let whole = match loss {
            Loss::Nothing => dirty.len(),
            Loss::Suffix => random.below(dirty.len() as u64 + 1) as usize,
            _ => 0,
        };
        // Some losses take nearly all, some nearly nothing.
        let of_ten = 1 + random.below(9);
        let mut lost = 0;
        for (nth, number) in dirty.into_iter().enumerate() {
            let Some(written) = self.pages.get(&number) else {
                continue;
            };
            let sectors = match loss {
                _ if nth < whole => u8::MAX,
                Loss::Pages if random.below(10) < of_ten => u8::MAX,
                Loss::Sectors => (0..8).fold(0, |bits, at| {
                    bits | u8::from(random.below(10) < of_ten) << at
                }),
                _ => 0,
            };
            lost += usize::from(sectors != u8::MAX);
            let mut reaches = 0;
            for sector in (0..PAGE / SECTOR).filter(|sector| sectors >> sector & 1 == 1) {
                let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
                let page = pages.entry(number).or_insert_with(empty);
                Arc::make_mut(page)[from..to].copy_from_slice(&written[from..to]);
                reaches = to;
            }
            if reaches > 0 {
                let end = number * PAGE as u64 + reaches as u64;
                size = size.max(end.min(self.size));
            }
        }
        // The new size may have got there without the bytes.
        let grown = match loss {
            Loss::All => false,
            Loss::Nothing => true,
            _ => random.below(2) == 0,
        };
        if grown {
            size = size.max(self.size);
        }
        clip(&mut pages, size);
        *self = Self {
            pages: pages.clone(),
            size,
            synced_pages: pages,
            synced_size: size,
            ..Self::default()
        };
        lost
    }
}

/// Takes away what lies behind `size`.
fn clip(pages: &mut BTreeMap<u64, Page>, size: u64) {
    let (last, at) = place(size);
    pages.split_off(&(last + u64::from(at > 0)));
    if let Some(page) = pages.get_mut(&last).filter(|_| at > 0) {
        Arc::make_mut(page)[at..].fill(0);
    }
}

fn place(offset: u64) -> (u64, usize) {
    let page = PAGE as u64;
    (offset / page, (offset % page) as usize)
}

fn empty() -> Page {
    Arc::new([0; PAGE])
}
