//! What has been measured so far, kept in a file so that an interrupted matrix goes on where it was.
//!
//! The file is of one program and one form of the matrix: what another build measured is not this one's.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::plan::Cell;
use crate::report::Row;

/// One group in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Visit {
    pub(super) round: usize,
    pub(super) group: String,
    pub(super) rows: Vec<Row>,
    /// What is no row, by name.
    pub(super) numbers: BTreeMap<String, f64>,
    /// Whether every subscriber was handed everything.
    pub(super) delivered: bool,
}

impl Visit {
    pub(super) fn row(&self, cell: &Cell) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.at == cell.at
                && row.operation == cell.operation
                && row.clients == cell.clients
                && row.payload == cell.payload
        })
    }
}

/// All visits.
#[derive(Debug)]
pub(super) struct Visits {
    file: PathBuf,
    pub(super) done: Vec<Visit>,
}

impl Visits {
    /// Those that an interrupted matrix of this `form` has left in `folder`, if any.
    pub(super) fn open(folder: &Path, form: &str) -> Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut hash = DefaultHasher::new();
        fs::read(&program)
            .with_context(|| format!("cannot read {}", program.display()))?
            .hash(&mut hash);
        form.hash(&mut hash);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Self::read(folder.join(format!("{:016x}.jsonl", hash.finish())))
    }

    fn read(file: PathBuf) -> Result<Self> {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        // Only the last line can be cut off, and then it was not done.
        let done = text
            .lines()
            .map_while(|line| serde_json::from_str(line).ok())
            .collect();
        Ok(Self { file, done })
    }

    pub(super) fn find(&self, round: usize, group: &str) -> Option<&Visit> {
        self.done
            .iter()
            .find(|visit| visit.round == round && visit.group == group)
    }

    /// Keeps a visit.
    pub(super) fn add(&mut self, visit: Visit) -> Result<()> {
        self.done.push(visit);
        // Whole and anew, so that no line that was cut off once stands in the way of those behind it.
        let mut text = Vec::new();
        for visit in &self.done {
            serde_json::to_writer(&mut text, visit)?;
            text.push(b'\n');
        }
        let new = self.file.with_extension("new");
        let write = || {
            let options = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .open(&new);
            options.and_then(|mut file: File| file.write_all(&text))?;
            fs::rename(&new, &self.file)
        };
        write().with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// The matrix is done: the next one begins from nothing.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_file(&self.file)
            .with_context(|| format!("cannot remove {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(round: usize) -> Visit {
        Visit {
            round,
            group: "some".into(),
            rows: crate::report::tests::report(&[1, 64]).rows,
            numbers: BTreeMap::from([("a".to_owned(), 1.5)]),
            delivered: true,
        }
    }

    #[test]
    fn what_was_done_is_found_again_and_a_line_that_was_cut_off_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("visits.jsonl");
        let mut visits = Visits::read(file.clone()).unwrap();
        visits.add(visit(0)).unwrap();
        visits.add(visit(1)).unwrap();
        let again = Visits::read(file.clone()).unwrap();
        assert_eq!(again.find(1, "some"), Some(&visit(1)));
        assert_eq!(again.find(2, "some"), None);
        assert_eq!(again.find(1, "other"), None);

        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 20]).unwrap();
        let mut cut = Visits::read(file.clone()).unwrap();
        assert_eq!(cut.done, [visit(0)]);
        cut.add(visit(2)).unwrap();
        let again = Visits::read(file).unwrap();
        assert_eq!(again.done, [visit(0), visit(2)]);
    }
}
