//! What was kept, and whether what is counted now costs more.
//!
//! The same lines cost a little more or less with another compiler, C library or processor. So the file says with what
//! it was counted, and elsewhere the judgement is wider.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::callgrind::Counted;

/// So much more may be counted than was kept, as a share of it.
const TOLERANCE: f64 = 0.03;
/// As [`TOLERANCE`], for a whole node: it has threads, and ticks. Seen: 2 % between runs on a loaded machine.
const TOLERANCE_NODE: f64 = 0.05;
/// And so much more of anything, for each commit: a part of an allocation is none.
const SLACK: f64 = 0.02;
/// As these, with another toolchain than it was kept with.
const TOLERANCE_ELSEWHERE: f64 = 0.25;

/// The file, as far as it is read.
struct Kept(toml::Table);

impl Kept {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| {
            let file = file.display();
            format!("cannot read {file}; `make instructions KEEP=1` writes it")
        })?;
        let table = text.parse();
        table
            .map(Self)
            .with_context(|| format!("cannot understand {}", file.display()))
    }

    fn toolchain(&self) -> Option<&str> {
        self.0.get("toolchain")?.as_str()
    }

    /// What `part` costs of `what` for each commit.
    fn cost(&self, part: &str, what: &str) -> Option<f64> {
        self.0.get("parts")?.get(part)?.get(what)?.as_float()
    }
}

/// What programs are built and counted with; none without valgrind.
pub(crate) fn toolchain() -> Result<Option<String>> {
    let version = |program: &str, argument| -> Result<Option<String>> {
        match Command::new(program).arg(argument).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot run {program}")),
        }
    };
    let Some(valgrind) = version("valgrind", "--version")? else {
        return Ok(None);
    };
    let rustc = version("rustc", "--version")?.unwrap_or_default();
    let libc = version("getconf", "GNU_LIBC_VERSION")?.unwrap_or_default();
    let cpu = std::env::consts::ARCH;
    Ok(Some(format!(
        "{rustc}, {libc}, {valgrind}, {cpu}{}",
        vectors()
    )))
}

/// For which vectors the C library and the hashes have code of their own.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return " with AVX2";
    }
    ""
}

/// Writes the file.
pub(crate) fn keep(file: &Path, toolchain: &str, counted: &[Counted]) -> Result<()> {
    let mut text = String::from(
        "# What a commit costs, part by part: instructions and allocations. Written by `make instructions KEEP=1`, and\n\
         # judged by `make instructions`, which `make test` runs. A figure that grows is a decision: say why in the commit.\n\n",
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "toolchain = {toolchain:?}\n");
    for Counted {
        part,
        instructions,
        allocations,
    } in counted
    {
        let _ = writeln!(
            text,
            "[parts.{part}]\ninstructions = {instructions:.1}\nallocations = {allocations:.3}\n"
        );
    }
    let text = text.trim_end().to_owned() + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Prints a figure for each part, writes them, and tells whether none costs more than it may.
pub(crate) fn judge(
    file: &Path,
    toolchain: &str,
    counted: &[Counted],
    target: &Path,
) -> Result<bool> {
    let kept = Kept::read(file)?;
    let elsewhere = kept.toolchain() != Some(toolchain);
    if elsewhere {
        let other = kept.toolchain().unwrap_or("something unknown");
        println!("instructions: kept with {other}");
        println!("              counted with {toolchain}: more is tolerated");
    }
    let mut lines = String::new();
    let (mut missed, mut saved) = (false, false);
    for Counted {
        part,
        instructions,
        allocations,
    } in counted
    {
        let tolerance = tolerance(part, elsewhere);
        for (what, value) in [
            ("instructions", *instructions),
            ("allocations", *allocations),
        ] {
            // What nothing is kept of is missed: somebody is to keep it.
            let kept = kept.cost(part, what).unwrap_or_default();
            let most = kept * (1.0 + tolerance) + SLACK;
            let verdict = if value <= most { "ok" } else { "missed" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                lines,
                "FIGURE speed.{what}_per_commit_{part} {value:.2} {what} {most:.2} {verdict}"
            );
            missed |= value > most;
            saved |= value < kept * (1.0 - tolerance) - SLACK && !elsewhere;
        }
    }
    print!("{lines}");
    if missed {
        println!(
            "instructions: something costs more than it did. If that is meant: make instructions KEEP=1, and the reason \
             into the commit"
        );
    } else if saved {
        println!(
            "instructions: something costs less than it did. To keep that: make instructions KEEP=1"
        );
    }
    write(target, &lines)?;
    Ok(!missed)
}

fn tolerance(part: &str, elsewhere: bool) -> f64 {
    match part {
        _ if elsewhere => TOLERANCE_ELSEWHERE,
        "node" => TOLERANCE_NODE,
        _ => TOLERANCE,
    }
}

/// Into the folder that `FIGURES_DIR` names, or `figures` in the target folder.
fn write(target: &Path, lines: &str) -> Result<()> {
    let folder =
        std::env::var_os("FIGURES_DIR").map_or_else(|| target.join("figures"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("instructions.txt");
    fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))
}
