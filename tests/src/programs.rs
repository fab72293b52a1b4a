//! Where the programs are, and how one is started so that it ends with its parent.
//!
//! A process asks the kernel to be killed when its parent dies (`PR_SET_PDEATHSIG`). It can ask for nobody but
//! itself, and running code between fork and exec needs unsafe code; so the harness starts *itself* as
//! `harness guard PARENT -- PROGRAM ARGS`, which asks and then becomes the program. The request survives the
//! exec, and the process id stays.
//!
//! The kernel's "parent" is the thread that forked, so all processes are started by one thread that never ends.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The two programs that a cluster needs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The harness itself, as guard of the others.
    pub harness: PathBuf,
    /// The node.
    pub demo_chat: PathBuf,
}

impl Programs {
    /// For the harness: demo-chat is what `DEMO_CHAT` names, or lies beside the harness.
    pub fn beside_harness() -> Result<Self> {
        let harness = env::current_exe().context("where this program is")?;
        let demo_chat = match env::var_os("DEMO_CHAT") {
            Some(path) => PathBuf::from(path),
            None => harness.with_file_name("demo-chat"),
        };
        ensure!(
            demo_chat.is_file(),
            "{} is not there. Build it first, in the same profile: cargo build --workspace --bins{}; or name it by DEMO_CHAT=",
            demo_chat.display(),
            if profile(&harness).is_some_and(|p| p == "release") {
                " --release"
            } else {
                ""
            },
        );
        Ok(Self { harness, demo_chat })
    }

    /// For the integration tests, which know where cargo put the harness: demo-chat is what `DEMO_CHAT` names, or
    /// is built now, once for all tests of the process, so that no test runs against yesterday's.
    pub fn built(harness: &str) -> Result<Self> {
        static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let harness = PathBuf::from(harness);
        let demo_chat = BUILT
            .get_or_init(|| match env::var_os("DEMO_CHAT") {
                Some(path) => Ok(PathBuf::from(path)),
                None => build_demo_chat(&harness).map_err(|e| format!("{e:#}")),
            })
            .clone()
            .map_err(anyhow::Error::msg)?;
        ensure!(demo_chat.is_file(), "{} is not there", demo_chat.display());
        Ok(Self { harness, demo_chat })
    }

    /// The target folder of cargo that the harness lies in.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        let profile = self.harness.parent().unwrap_or(Path::new("."));
        profile.parent().unwrap_or(profile).to_path_buf()
    }

    /// A command that runs `program` and ends with this process.
    #[must_use]
    pub fn guarded(&self, program: &Path) -> Command {
        self.guarded_in(None, program)
    }

    /// The same in the network namespace of this name, if there is one. `ip` becomes what it runs: the process is the
    /// same.
    #[must_use]
    pub fn guarded_in(&self, namespace: Option<&str>, program: &Path) -> Command {
        let mut command = match namespace {
            None => Command::new(&self.harness),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(&self.harness);
                command
            }
        };
        command
            .arg("guard")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(program);
        command
    }
}

/// The name of the folder that holds `program`: cargo's name of the profile.
fn profile(program: &Path) -> Option<&str> {
    program.parent()?.file_name()?.to_str()
}

fn build_demo_chat(harness: &Path) -> Result<PathBuf> {
    let folder = harness.parent().context("the harness lies in no folder")?;
    let target = folder
        .parent()
        .context("the harness lies in no target folder")?;
    let profile = match profile(harness) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    // As `make programs` does it: a part of the workspace would unify other features, and compile them again.
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--workspace", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cargo build --workspace --bins")?;
    ensure!(
        output.status.success(),
        "demo-chat does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(folder.join("demo-chat"))
}

/// Starts `command` from the thread that outlives all others.
pub fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Nobody waits any more: the child is of no use to anybody, and ends with this process.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let what = format!("{:?}", command.get_program());
    let (answer, spawned) = mpsc::sync_channel(1);
    spawner
        .send((command, answer))
        .ok()
        .context("the thread that starts processes has ended")?;
    let spawned = spawned
        .recv()
        .context("the thread that starts processes has ended")?;
    spawned.with_context(|| format!("cannot start {what}"))
}

/// What `harness guard PARENT -- PROGRAM ARGS` does: becomes the program, and is killed when the parent ends.
/// Returns only if it cannot.
pub fn guard(parent: u32, program: &[OsString]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")?;
    // The parent may have ended before the request was made.
    let alive = i32::try_from(parent).ok().and_then(Pid::from_raw);
    ensure!(
        alive.is_some() && getppid() == alive,
        "process {parent}, which started this one, is gone"
    );
    let [program, args @ ..] = program else {
        bail!("no program to run")
    };
    Err(Command::new(program).args(args).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}
