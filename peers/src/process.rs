//! Processes that end with us, whatever happens.
//!
//! - Each is started through this program's own `guard`, which asks the kernel for a SIGKILL when its parent ends, and
//!   then becomes the program: even a SIGKILL of the runner leaves nobody behind. The kernel means the parent's
//!   *thread*, so only the runner's main thread starts processes.
//! - Each is a process group of its own, so that a ctrl-c in the terminal reaches the runner alone, which then ends
//!   them in its own order.
//! - A [`Process`] that is dropped is killed, by its id, and waited for.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// How often something is looked at that says nothing by itself.
const GLANCE: Duration = Duration::from_millis(10);

/// Set by SIGINT, SIGTERM and SIGHUP. Whoever waits looks at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// From now on signals do not end this process, but are seen.
    pub(crate) fn watch() -> Result<Self> {
        let flag = Self::default();
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::flag::register(signal, Arc::clone(&flag.0))
                .with_context(|| format!("cannot watch for signal {signal}"))?;
        }
        Ok(flag)
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// A process that was started here.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts `command` under `name`; what it says goes to `NAME.out` and `NAME.log` in `folder`.
    pub(crate) fn start(name: &str, command: &Command, folder: &Path) -> Result<Self> {
        let (out, log) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.log")),
        );
        let file = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut guarded = Command::new(this_program()?);
        guarded
            .arg("guard")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(file(&out)?)
            .stderr(file(&log)?)
            .process_group(0);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        let child = guarded
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            out,
            log,
        })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on its standard output so far.
    pub(crate) fn said(&self) -> Result<String> {
        fs::read_to_string(&self.out).with_context(|| format!("cannot read {}", self.out.display()))
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits until it has ended.
    pub(crate) fn wait(
        &mut self,
        patience: Duration,
        interrupted: &Interrupted,
    ) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.complain(&format!("no end within {patience:?}")));
            }
            interrupted.check()?;
            thread::sleep(GLANCE);
        }
    }

    /// Waits until somebody answers at `port`.
    pub(crate) fn listens(
        &mut self,
        port: u16,
        patience: Duration,
        interrupted: &Interrupted,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                return Err(self.complain(&format!("it ended ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.complain(&format!("nobody at port {port} within {patience:?}")));
            }
            interrupted.check()?;
            thread::sleep(GLANCE);
        }
    }

    /// An error with the end of what the process has said.
    pub(crate) fn complain(&self, why: &str) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n");
        anyhow!("{}: {why}; the end of its log:\n{tail}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where this program lies.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("where this program is")
}

/// What `peers guard PARENT -- PROGRAM ARGS` does: becomes the program, and is killed when the parent ends. Returns
/// only if it cannot.
pub(crate) fn guard(parent: u32, program: &[OsString]) -> Result<()> {
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

/// `count` ports that are free now, below those that the kernel gives to connections, so that no dial takes one.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let free: Vec<_> = (first..32_000)
        .chain(10_000..first)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    ensure!(free.len() == count, "no {count} free ports below 32000");
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_free_and_below_the_kernels() {
        let taken = free_ports(1).unwrap()[0];
        let _holder = TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let ports = free_ports(8).unwrap();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 8);
        assert!(!ports.contains(&taken), "{taken} is taken");
        assert!(ports.iter().all(|port| (10_000..32_768).contains(port)));
    }

    #[test]
    fn an_interruption_is_seen() {
        let interrupted = Interrupted::default();
        interrupted.check().unwrap();
        interrupted.0.store(true, Ordering::Relaxed);
        assert!(interrupted.check().is_err());
    }
}
