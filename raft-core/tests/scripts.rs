//! Golden scripts: one text file for each story of the protocol, with the exact messages and writes
//! below each command.
//!
//! `UPDATE_SCRIPTS=1` writes the output that there is now into the files; read the difference before
//! you commit it. `make script FILE=path` (here `SCRIPT=path`) runs one from any path and shows what it
//! makes happen. `tests/scripts/README.md` has the commands.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

mod support;

use support::{diff, script};

fn scripts() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("SCRIPT") {
        return vec![path.into()];
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let paths = folder
        .read_dir()
        .unwrap()
        .map(|found| found.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn scripts_tell_what_they_told() {
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut failed = Vec::new();
    let scripts = scripts();
    for path in &scripts {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let actual = std::panic::catch_unwind(|| script::run(&expected));
        if let (Ok(Ok(actual)), true) = (&actual, std::env::var_os("SCRIPT").is_some()) {
            print!("{actual}");
        }
        match actual {
            Ok(Ok(actual)) if actual == expected => {}
            Ok(Ok(actual)) if update => std::fs::write(path, actual).unwrap(),
            Ok(Ok(actual)) => failed.push(format!("{name}\n{}", diff::diff(&expected, &actual))),
            Ok(Err(error)) => failed.push(format!("{name}: {error}")),
            Err(_) => failed.push(format!("{name}: panicked, see above")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(!scripts.is_empty(), "no scripts");
}
