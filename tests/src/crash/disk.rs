//! A disk that forgets: what a file system holds after the power failed, and not what was written to it.
//!
//! What it promises is what ext4 promises (journal in order, data in writeback or ordered mode), and nothing more:
//! - `fsync` and `fdatasync` of a file make its bytes and its size durable, and its name as it was created.
//! - Making, renaming, removing and resizing are written to a journal, in order. A power loss keeps a prefix of
//!   it: at least up to what the last sync of a concerned file or folder needed.
//! - Of what was written and not synced, each page (or each sector of 512 bytes) is on the disk or not, each for
//!   itself, in any order. A file that grew without a sync has its new size or not, with zeros where pages
//!   were lost.
//!
//! Invariant: a power loss leaves no trace of how it was chosen but in the bytes: what survives is then the synced state.

mod file;

use std::collections::BTreeMap;

use crate::random::Random;
use file::File;

/// The unit in which dirty bytes are remembered.
pub const PAGE: usize = 4096;
/// The root folder's number.
pub const ROOT: u64 = 1;

type Folder = BTreeMap<String, u64>;

/// What a power loss takes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything.
    All,
    /// Nothing: as if all had been written back just before.
    Nothing,
    /// What was dirty behind a page of each file.
    Suffix,
    /// Any pages.
    Pages,
    /// Any sectors.
    Sectors,
}

impl Loss {
    /// All of them.
    pub const KINDS: [Self; 5] = [
        Self::All,
        Self::Nothing,
        Self::Suffix,
        Self::Pages,
        Self::Sectors,
    ];
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The power is off.
    Off,
    /// There is no such file or folder.
    Missing,
    /// There is one already.
    Exists,
    /// The folder is not empty.
    NotEmpty,
    /// It is the wrong one of file and folder.
    WrongKind,
}

/// What is asked for of a file or folder.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u16,
}

#[derive(Clone, Debug)]
enum Content {
    Folder(Folder),
    File(File),
}

#[derive(Clone, Debug)]
struct Inode {
    mode: u16,
    content: Content,
    /// The journal is durable for it when it is so far.
    concerned: usize,
}

/// One change of names or sizes, as the journal has it.
#[derive(Clone, Debug)]
enum Change {
    Make(u64, String, u64),
    Remove(u64, String),
    Rename(u64, String, u64, String),
    /// Its size stands with the file.
    Resize,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// The folders as they are durable, before the journal.
    durable: BTreeMap<u64, Folder>,
    journal: Vec<Change>,
    /// So much of the journal is durable.
    committed: usize,
    calls: u64,
    cut_at: Option<u64>,
    off: bool,
    lies: bool,
    logs_reused: u64,
}

impl Default for Disk {
    fn default() -> Self {
        let root = Inode {
            mode: 0o755,
            content: Content::Folder(Folder::new()),
            concerned: 0,
        };
        Self {
            inodes: [(ROOT, root)].into(),
            next: ROOT + 1,
            durable: [(ROOT, Folder::new())].into(),
            journal: Vec::new(),
            committed: 0,
            calls: 0,
            cut_at: None,
            off: false,
            lies: false,
            logs_reused: 0,
        }
    }
}

type Answer<T> = Result<T, Refusal>;

impl Disk {
    /// Lets the power fail at the `calls`-th call from now that changes or syncs something, instead of it.
    pub fn cut_after(&mut self, calls: u64) {
        self.cut_at = Some(self.calls + calls.max(1));
    }

    /// Lets the power fail now.
    pub fn cut(&mut self) {
        self.off = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// How many calls have changed or synced something.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// How often a log file was renamed to become a newer one.
    #[must_use]
    pub fn logs_reused(&self) -> u64 {
        self.logs_reused
    }

    /// From now on a sync does nothing, and says that it did.
    pub fn lie(&mut self) {
        self.lies = true;
    }

    fn counted(&mut self) -> Answer<()> {
        self.calls += 1;
        self.off |= self.cut_at == Some(self.calls);
        self.powered()
    }

    fn powered(&self) -> Answer<()> {
        if self.off { Err(Refusal::Off) } else { Ok(()) }
    }

    fn inode(&self, number: u64) -> Answer<&Inode> {
        self.inodes.get(&number).ok_or(Refusal::Missing)
    }

    fn folder(&self, number: u64) -> Answer<&Folder> {
        match &self.inode(number)?.content {
            Content::Folder(folder) => Ok(folder),
            Content::File(_) => Err(Refusal::WrongKind),
        }
    }

    fn folder_mut(&mut self, number: u64) -> Answer<&mut Folder> {
        match self.inodes.get_mut(&number).map(|inode| &mut inode.content) {
            Some(Content::Folder(folder)) => Ok(folder),
            Some(Content::File(_)) => Err(Refusal::WrongKind),
            None => Err(Refusal::Missing),
        }
    }

    fn file_mut(&mut self, number: u64) -> Answer<&mut File> {
        match self.inodes.get_mut(&number).map(|inode| &mut inode.content) {
            Some(Content::File(file)) => Ok(file),
            Some(Content::Folder(_)) => Err(Refusal::WrongKind),
            None => Err(Refusal::Missing),
        }
    }

    fn log(&mut self, change: Change, concerned: &[u64]) {
        self.journal.push(change);
        for number in concerned {
            if let Some(inode) = self.inodes.get_mut(number) {
                inode.concerned = self.journal.len();
            }
        }
    }

    /// The number of what has this name.
    pub fn lookup(&self, parent: u64, name: &str) -> Answer<u64> {
        self.powered()?;
        self.folder(parent)?
            .get(name)
            .copied()
            .ok_or(Refusal::Missing)
    }

    /// What is known of a file or folder.
    pub fn attributes(&self, number: u64) -> Answer<Attributes> {
        self.powered()?;
        let inode = self.inode(number)?;
        let (is_folder, size) = match &inode.content {
            Content::Folder(_) => (true, 0),
            Content::File(file) => (false, file.size()),
        };
        Ok(Attributes {
            is_folder,
            size,
            mode: inode.mode,
        })
    }

    /// The names in a folder.
    pub fn list(&self, number: u64) -> Answer<Vec<(String, u64)>> {
        self.powered()?;
        let names = self.folder(number)?.iter();
        Ok(names
            .map(|(name, number)| (name.clone(), *number))
            .collect())
    }

    /// Makes a file or a folder.
    pub fn make(&mut self, parent: u64, name: &str, is_folder: bool, mode: u16) -> Answer<u64> {
        self.counted()?;
        let number = self.next;
        if self.folder(parent)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let content = if is_folder {
            Content::Folder(Folder::new())
        } else {
            Content::File(File::default())
        };
        self.next += 1;
        let inode = Inode {
            mode,
            content,
            concerned: 0,
        };
        self.inodes.insert(number, inode);
        self.folder_mut(parent)?.insert(name.to_owned(), number);
        let change = Change::Make(parent, name.to_owned(), number);
        self.log(change, &[parent, number]);
        Ok(number)
    }

    /// Gives a file one more name.
    pub fn link(&mut self, number: u64, parent: u64, name: &str) -> Answer<u64> {
        self.counted()?;
        self.file_mut(number)?;
        let folder = self.folder_mut(parent)?;
        if folder.contains_key(name) {
            return Err(Refusal::Exists);
        }
        folder.insert(name.to_owned(), number);
        let change = Change::Make(parent, name.to_owned(), number);
        self.log(change, &[parent, number]);
        Ok(number)
    }

    /// Takes a name away. What has it lives on for who has it open.
    pub fn remove(&mut self, parent: u64, name: &str, is_folder: bool) -> Answer<()> {
        self.counted()?;
        let number = *self.folder(parent)?.get(name).ok_or(Refusal::Missing)?;
        match (&self.inode(number)?.content, is_folder) {
            (Content::Folder(folder), true) if !folder.is_empty() => return Err(Refusal::NotEmpty),
            (Content::Folder(_), true) | (Content::File(_), false) => {}
            _ => return Err(Refusal::WrongKind),
        }
        self.folder_mut(parent)?.remove(name);
        self.log(Change::Remove(parent, name.to_owned()), &[parent]);
        Ok(())
    }

    /// Gives another name, over whatever has that now.
    pub fn rename(&mut self, from: u64, name: &str, to: u64, new_name: &str) -> Answer<()> {
        self.counted()?;
        self.logs_reused += u64::from([name, new_name].iter().all(|name| name.ends_with(".log")));
        let number = self
            .folder_mut(from)?
            .remove(name)
            .ok_or(Refusal::Missing)?;
        self.folder_mut(to)?.insert(new_name.to_owned(), number);
        let change = Change::Rename(from, name.to_owned(), to, new_name.to_owned());
        self.log(change, &[from, to]);
        Ok(())
    }

    /// Sets the permission bits.
    pub fn set_mode(&mut self, number: u64, mode: u16) -> Answer<()> {
        self.counted()?;
        self.inodes.get_mut(&number).ok_or(Refusal::Missing)?.mode = mode;
        Ok(())
    }

    /// Sets a file's length.
    pub fn resize(&mut self, number: u64, size: u64) -> Answer<()> {
        self.counted()?;
        let at = self.journal.len();
        let file = self.file_mut(number)?;
        file.resize(at, size);
        self.log(Change::Resize, &[number]);
        Ok(())
    }

    /// Reads what was written.
    pub fn read(&mut self, number: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        self.powered()?;
        Ok(self.file_mut(number)?.read(offset, length))
    }

    /// Writes, to memory.
    pub fn write(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Answer<()> {
        self.counted()?;
        self.file_mut(number)?.write(offset, bytes);
        Ok(())
    }

    /// Makes durable what a file holds, or which names a folder has.
    pub fn sync(&mut self, number: u64) -> Answer<()> {
        self.counted()?;
        if self.lies {
            return Ok(());
        }
        let inode = self.inodes.get_mut(&number).ok_or(Refusal::Missing)?;
        self.committed = self.committed.max(inode.concerned);
        if let Content::File(file) = &mut inode.content {
            file.sync();
        }
        Ok(())
    }

    /// Forgets, and switches the power on again. Says what was kept.
    pub fn lose(&mut self, loss: Loss, random: &mut Random) -> String {
        let open = self.journal.len() - self.committed;
        let kept = match loss {
            Loss::All => 0,
            Loss::Nothing => open,
            Loss::Suffix | Loss::Pages | Loss::Sectors => random.below(open as u64 + 1) as usize,
        };
        let journal = std::mem::take(&mut self.journal);
        let mut folders = std::mem::take(&mut self.durable);
        let durable = self.committed + kept;
        for change in journal.into_iter().take(durable) {
            match change {
                Change::Make(parent, name, number) => {
                    let is_folder = matches!(
                        self.inodes.get(&number).map(|inode| &inode.content),
                        Some(Content::Folder(_))
                    );
                    if is_folder {
                        folders.insert(number, Folder::new());
                    }
                    folders.entry(parent).or_default().insert(name, number);
                }
                Change::Remove(parent, name) => {
                    folders.entry(parent).or_default().remove(&name);
                }
                Change::Rename(from, name, to, new_name) => {
                    if let Some(number) = folders.entry(from).or_default().remove(&name) {
                        folders.entry(to).or_default().insert(new_name, number);
                    }
                }
                Change::Resize => {}
            }
        }
        let (mut dirty, mut lost) = (0, 0);
        let mut reached = vec![ROOT];
        let mut inodes = BTreeMap::new();
        while let Some(number) = reached.pop() {
            let Some(mut inode) = self.inodes.remove(&number) else {
                continue;
            };
            inode.concerned = 0;
            match &mut inode.content {
                Content::Folder(folder) => {
                    *folder = folders.get(&number).cloned().unwrap_or_default();
                    reached.extend(folder.values());
                }
                Content::File(file) => {
                    dirty += file.dirty();
                    lost += file.lose(loss, durable, random);
                }
            }
            inodes.insert(number, inode);
        }
        folders.retain(|number, _| inodes.contains_key(number));
        self.inodes = inodes;
        self.durable = folders;
        (self.committed, self.cut_at, self.off, self.lies) = (0, None, false, false);
        format!(
            "{loss:?}: {kept} of {open} changes of names and sizes kept, {lost} of {dirty} dirty pages lost or torn"
        )
    }
}

#[cfg(test)]
mod tests;
