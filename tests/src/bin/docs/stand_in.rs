//! What `make` and `cargo` are in the documents' shells: the repository's own, on what has been built already.
//!
//! - `make X` is refused unless X is a target. It is run in the repository in its short form, with the profile that this program
//!   was built in; what `make test` runs anyway is not run once more.
//! - `cargo run -p P --bin B` runs the built program B, of that profile whatever the command says: `--release` would build
//!   the workspace once more. `cargo build` has nothing to do.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::document::target_of;

/// The PATH that the programs behind the stand-ins have; set in the documents' shells.
const PATH: &str = "DOCS_PATH";
/// The first of the ports of the run, for `make demo`.
const PORT: &str = "DOCS_PORT";

/// The repository, and what was built of it.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) root: PathBuf,
    /// Where this program lies, and all others.
    pub(crate) programs: PathBuf,
    makefile: String,
}

impl Repository {
    pub(crate) fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the workspace")?
            .to_path_buf();
        let this = env::current_exe().context("where this program is")?;
        let programs = this.parent().context("a folder")?.to_path_buf();
        let makefile = fs::read_to_string(root.join("Makefile")).context("the Makefile")?;
        Ok(Self {
            root,
            programs,
            makefile,
        })
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> &Path {
        self.programs.parent().unwrap_or(&self.programs)
    }

    /// The targets of the Makefile.
    pub(crate) fn targets(&self) -> BTreeSet<&str> {
        let names = self.makefile.lines().filter_map(|line| {
            let (name, _) = line.split_once(':')?;
            let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
            (!name.is_empty() && name.chars().all(is_name)).then_some(name)
        });
        names.collect()
    }

    /// `test`, and the targets that it runs.
    pub(crate) fn tested(&self) -> BTreeSet<&str> {
        let recipe = self
            .makefile
            .lines()
            .skip_while(|line| !line.starts_with("test:"))
            .skip(1)
            .take_while(|line| line.starts_with('\t'));
        recipe
            .filter_map(|line| line.split_once("$(MAKE) ")?.1.split_whitespace().next())
            .chain(["test"])
            .collect()
    }

    /// Whether the Rust of a document is compiled by `cargo test`, as doctests of one of the two crates that have them.
    pub(crate) fn compiles(&self, document: &str) -> bool {
        let included = format!("include_str!(\"../../{document}\")");
        ["tests", "raft-actor"].iter().any(|package| {
            let library = self.root.join(package).join("src/lib.rs");
            fs::read_to_string(library).is_ok_and(|text| text.contains(&included))
        })
    }

    fn profile(&self) -> &str {
        match self.programs.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        }
    }

    /// A shell for a document: the stand-ins before, and the built programs behind all else that there is, for one of them is
    /// called `tail`. What this program was told by its own environment is not passed on.
    pub(crate) fn shell(&self, stand_ins: &Path, first_port: u16) -> Result<Command> {
        let path = env::var("PATH").context("PATH")?;
        // Whoever runs this in the background may have ctrl-c and ctrl-\ ignored, which bash cannot undo.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT,QUIT", "bash"]);
        command.args(["--norc", "--noprofile"]);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let ours = name.starts_with("RAFT_") && name != "RAFT_ACTOR_CACHE";
            let makes = name.starts_with("MAKE") || name == "MFLAGS";
            if ours || makes || ["PORT", "ID", "NAME", "QUICK", "PROFILE"].contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        let programs = self.programs.display();
        command
            .env("PATH", format!("{}:{path}:{programs}", stand_ins.display()))
            .env(PATH, path)
            .env(PORT, first_port.to_string())
            .env("CARGO_TARGET_DIR", self.target());
        Ok(command)
    }

    /// Writes the stand-ins into a folder.
    pub(crate) fn write_stand_ins(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for name in ["make", "cargo"] {
            let file = folder.join(name);
            let this = env::current_exe()?;
            let script = format!(
                "#!/bin/sh\nexec '{}' stand-in {name} \"$@\"\n",
                this.display()
            );
            fs::write(&file, script)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Becomes what stands behind the name. Returns only if that is nothing, or nothing is to be done.
    pub(crate) fn stand_in(&self, name: &str, arguments: &[String]) -> Result<()> {
        let mut command = match name {
            "make" => match self.make(arguments)? {
                Some(command) => command,
                None => return Ok(()),
            },
            "cargo" => match self.cargo(arguments)? {
                Some(command) => command,
                None => return Ok(()),
            },
            _ => bail!("there is no stand-in for {name}"),
        };
        Err(command.env("PATH", env::var(PATH)?).exec()).context("cannot be run")
    }

    fn make(&self, arguments: &[String]) -> Result<Option<Command>> {
        let said = format!("make {}", arguments.join(" "));
        let target = target_of(&said).with_context(|| format!("{said}: no target"))?;
        ensure!(
            self.targets().contains(target),
            "{target} is no target of the Makefile"
        );
        if self.tested().contains(target) {
            println!("docs: make {target} is run by make test");
            return Ok(None);
        }
        let mut command = Command::new("make");
        command
            .arg("-C")
            .arg(&self.root)
            .args(arguments)
            .args(["QUICK=1", &format!("PROFILE={}", self.profile())])
            .arg(format!("PORT={}", env::var(PORT)?));
        Ok(Some(command))
    }

    fn cargo(&self, arguments: &[String]) -> Result<Option<Command>> {
        let own = arguments.iter().position(|word| word == "--");
        let (own, handed_on) = match own {
            Some(place) => (&arguments[..place], &arguments[place + 1..]),
            None => (arguments, &[][..]),
        };
        let behind = |option: &str| {
            let place = own.iter().position(|word| word == option)?;
            own.get(place + 1)
        };
        let package = behind("-p").context("which package? -p")?;
        ensure!(
            self.root.join(package).join("Cargo.toml").is_file(),
            "{package} is no package of the workspace"
        );
        match own.first().map(String::as_str) {
            Some("build") => Ok(None),
            Some("run") => {
                let program = self.programs.join(behind("--bin").unwrap_or(package));
                ensure!(program.is_file(), "{} is not built", program.display());
                let mut command = Command::new(program);
                command.args(handed_on);
                Ok(Some(command))
            }
            _ => bail!("cargo {}: only build and run", arguments.join(" ")),
        }
    }
}
