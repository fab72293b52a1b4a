//! What callgrind wrote down: one dump for each stretch between two calls of [`boundary`], of all threads together.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::measured::COMMITS;

/// The name that dumps begin with.
pub(crate) const DUMP: &str = "callgrind";

/// How valgrind is called. Names are written out and lines are left away, so that a dump is read line by line.
pub(crate) const OPTIONS: [&str; 6] = [
    "--tool=callgrind",
    "--quiet",
    "--dump-before=*callgrind*boundary*",
    "--dump-line=no",
    "--compress-strings=no",
    "--compress-pos=no",
];

/// The allocator's functions that hand out memory.
const ALLOCATING: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// Here one stretch ends and the next begins.
#[inline(never)]
pub(crate) fn boundary() {
    black_box(());
}

/// What one part cost.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) part: &'static str,
    /// For each commit.
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// Reads the dumps of a run of `parts`, each between two boundaries, of which the first stretch is what came before.
pub(crate) fn read(folder: &Path, parts: &[&'static str]) -> Result<Vec<Counted>> {
    let part = |(at, part): (usize, &&'static str)| {
        let path = folder.join(format!("{DUMP}.{}", 2 * (at + 1)));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the dump of {part}, {}", path.display()))?;
        let (instructions, allocations) =
            sums(&text).with_context(|| format!("the dump of {part}"))?;
        Ok(Counted {
            part,
            instructions: instructions as f64 / COMMITS as f64,
            allocations: allocations as f64 / COMMITS as f64,
        })
    };
    parts.iter().enumerate().map(part).collect()
}

/// Copies all dumps to another folder, which is made.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for file in fs::read_dir(from).context("the dumps")? {
        let file = file.context("the dumps")?;
        if file.file_name().to_string_lossy().starts_with(DUMP) {
            let copy = to.join(file.file_name());
            fs::copy(file.path(), &copy)
                .with_context(|| format!("cannot write {}", copy.display()))?;
        }
    }
    Ok(())
}

/// The instructions of a dump, and the calls of an allocator.
fn sums(dump: &str) -> Result<(u64, u64)> {
    let field = |name: &str| dump.lines().find_map(|line| line.strip_prefix(name));
    let trigger = field("desc: Trigger: ").context("it does not say why it was written")?;
    ensure!(
        trigger.contains("boundary"),
        "it was written for another reason: {trigger}"
    );
    let instructions = field("summary: ").context("it has no sum")?;
    let instructions = instructions.trim().parse().context("its sum")?;
    let mut allocations = 0;
    let mut called = "";
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATING.contains(&called)
        {
            let calls = calls.split(' ').next().unwrap_or_default();
            allocations += calls.parse::<u64>().context("a number of calls")?;
        }
    }
    Ok((instructions, allocations))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DUMP: &str = "# callgrind format\n\
        desc: Trigger: --dump-before=instructions::callgrind::boundary\n\
        summary: 50050\n\
        fn=work\ncfn=malloc\ncalls=7 12 \n0 700\ncfn=free\ncalls=9 13 \n0 90\n\
        fn=other\ncfn=realloc\ncalls=2 4\n0 80\ncfn=_int_malloc\ncalls=100 1\n0 5\n";

    #[test]
    fn a_dump_is_summed() {
        assert_eq!(sums(DUMP).unwrap(), (50_050, 9));
    }

    #[test]
    fn a_dump_of_something_else_is_refused() {
        let end = DUMP.replace(
            "--dump-before=instructions::callgrind::boundary",
            "Program termination",
        );
        assert!(sums(&end).is_err());
        assert!(sums("").is_err());
    }
}
