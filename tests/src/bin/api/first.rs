//! The README's first program, as a newcomer has it: an empty project, its dependencies, three processes that deliver.
//!
//! It is built as it stands there but for the ports, which may be in use here. With the prebuilt archive, as the README
//! says; or from nothing, where cargo compiles RocksDB.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::cluster::free_ports;
use tests::programs::{Programs, spawn};

use crate::report::Report;

const LINES_MAX: u64 = 40;
const NODES: u64 = 3;
/// From the start of the processes until all have delivered what each said.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(report: &mut Report, with_archive: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().context("the workspace")?;
    let readme = fs::read_to_string(root.join("README.md")).context("read README.md")?;
    let program = block(&readme, "```rust", "fn main").context("the README has no program")?;
    let dependencies = block(&readme, "```toml", "[dependencies]");
    let dependencies = dependencies.context("the README says not what to depend on")?;
    let lines = program.lines().count() as u64;
    report
        .figures
        .at_most("first_lines", lines, "count", LINES_MAX);

    let project = project(report, with_archive);
    if project.exists() && (!report.quick || !with_archive) {
        fs::remove_dir_all(&project).with_context(|| format!("empty {}", project.display()))?;
    }
    let base = write(&project, &root, &program, &dependencies)?;
    let started = Instant::now();
    build(&project, &root, with_archive)?;
    let built = started.elapsed();
    let delivered = deliver(&report.programs, &project, base)?;
    report.say(&format!(
        "{lines} lines, built in {} s{}, delivered by three nodes {} ms later",
        built.as_secs(),
        if report.quick {
            ", if not built before"
        } else {
            " from nothing"
        },
        delivered.as_millis()
    ));
    let name = match with_archive {
        true => "first_seconds",
        false => "first_from_nothing_seconds",
    };
    if !report.quick {
        let seconds = (built + delivered).as_secs();
        // Ten minutes are the promise; the rest is RocksDB's own, in C++.
        let bound = if with_archive { 600 } else { 7200 };
        report.figures.at_most(name, seconds, "s", bound);
    }
    report
        .figures
        .exactly("first_nodes_delivered", NODES, "count", NODES);
    if !with_archive {
        fs::remove_dir_all(&project).with_context(|| format!("remove {}", project.display()))?;
    }
    Ok(())
}

/// Where the archive is not to be found by chance, it is not in a folder below the workspace.
fn project(report: &Report, with_archive: bool) -> PathBuf {
    match with_archive {
        true => report.programs.target().join("api-first"),
        false => std::env::temp_dir().join(format!("raft-actor-first-{}", std::process::id())),
    }
}

/// The first block of `text` that begins with `fence` and contains `word`.
fn block(text: &str, fence: &str, word: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find(fence) {
        let begin = at + rest[at..].find('\n')? + 1;
        let end = begin + rest[begin..].find("```")?;
        if rest[begin..end].contains(word) {
            return Some(rest[begin..end].to_owned());
        }
        rest = &rest[end + 3..];
    }
    None
}

/// Writes the project; returns the port before the first of its nodes.
fn write(project: &Path, root: &Path, program: &str, dependencies: &str) -> Result<u16> {
    let source = project.join("src");
    fs::create_dir_all(&source).with_context(|| format!("make {}", source.display()))?;
    let base = ports()?;
    ensure!(
        program.contains("7000 + n"),
        "the README's program has other ports than 7000 + n"
    );
    let program = program.replace("7000 + n", &format!("{base} + n"));
    fs::write(source.join("main.rs"), program).context("write main.rs")?;
    let library = root.join("raft-actor");
    let path = "path = \"../raft-actor/raft-actor\"";
    ensure!(
        dependencies.contains(path),
        "the README depends on raft-actor by another path"
    );
    let dependencies = dependencies.replace(path, &format!("path = {library:?}"));
    let manifest = format!(
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{dependencies}\n[workspace]\n"
    );
    fs::write(project.join("Cargo.toml"), manifest).context("write Cargo.toml")?;
    // The versions that are tested here.
    fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).context("copy Cargo.lock")?;
    for id in 1..=NODES {
        // Of an earlier run.
        let _ = fs::remove_dir_all(project.join("data").join(id.to_string()));
    }
    Ok(base)
}

/// Three ports that follow each other.
fn ports() -> Result<u16> {
    for _ in 0..100 {
        let first = free_ports(1)?[0];
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + 3).all(is_free) {
            return Ok(first - 1);
        }
    }
    bail!("no three free ports in a row")
}

fn build(project: &Path, root: &Path, with_archive: bool) -> Result<()> {
    let script = match with_archive {
        true => "eval \"$(\"$0/scripts/rocksdb-archive\" --env)\"; exec cargo build",
        false => "unset ROCKSDB_LIB_DIR ROCKSDB_STATIC; exec cargo build",
    };
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .arg(root)
        .current_dir(project)
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .context("cargo build")?;
    let words = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = words.lines().rev().take(30).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    ensure!(
        output.status.success(),
        "it does not build:\n{}",
        tail.join("\n")
    );
    Ok(())
}

/// Runs it as three nodes, until each has printed what each of them said, in the same order.
fn deliver(programs: &Programs, project: &Path, base: u16) -> Result<Duration> {
    let started = Instant::now();
    let mut nodes = Vec::new();
    for id in 1..=NODES {
        nodes.push(Running::start(programs, project, id)?);
    }
    let mut orders = BTreeSet::new();
    for (id, node) in (1_u64..).zip(&nodes) {
        let order = node.hello(started + PATIENCE).with_context(|| {
            format!(
                "node {id} of the README's program, at port {}",
                u64::from(base) + id
            )
        })?;
        orders.insert(order);
    }
    ensure!(
        orders.len() == 1,
        "the nodes printed different orders: {orders:?}"
    );
    Ok(started.elapsed())
}

struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(programs: &Programs, project: &Path, id: u64) -> Result<Self> {
        let mut command = programs.guarded(&project.join("target/debug/hello"));
        command
            .arg(id.to_string())
            .current_dir(project)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (sender, lines) = channel();
        let words = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for it any more.
                let _ = sender.send(line);
            }
        });
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = words.send(format!("stderr: {line}"));
            }
        });
        Ok(Self { child, lines })
    }

    /// The greetings in the order in which it printed them, once all are there.
    fn hello(&self, deadline: Instant) -> Result<Vec<String>> {
        let (mut greetings, mut all) = (Vec::new(), Vec::new());
        while greetings.len() < NODES as usize {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("it printed only {all:?}");
            };
            if line.contains("hello from") {
                greetings.push(line.clone());
            }
            all.push(line);
        }
        Ok(greetings)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_first_block_with_the_word_is_found() {
        let text =
            "a\n```sh\nfn main\n```\n```rust,no_run\nuse x;\n```\n```rust\nfn main() {}\n```\n";
        assert_eq!(
            block(text, "```rust", "fn main").as_deref(),
            Some("fn main() {}\n")
        );
        assert_eq!(block(text, "```toml", "x"), None);
    }
}
