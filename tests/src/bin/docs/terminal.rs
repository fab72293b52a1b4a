//! A shell that is typed into, as a reader of the document would; what it and its programs print is kept.
//!
//! The commands of a fence are typed as one line that sources them from a file, so a program that they start has the terminal
//! for itself: what is typed while it runs is its input.
//!
//! Invariants:
//!
//! - the shell and all that it started are one process group, which ends with this value, and with this process, however
//!   that ends: a watcher beside them waits for the end of its input;
//! - every wait has an end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::document::Key;

/// How long what is repeated may take each time, and a program that was told to end.
const ENDING: Duration = Duration::from_secs(60);
/// How long what is expected may take to be seen, behind the end of the commands or beside them.
pub(crate) const EXPECTED: Duration = Duration::from_secs(60);
/// How long nothing is repeated.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);
/// What is kept of the output, in bytes: the end of it.
const OUTPUT_MAX: usize = 4 << 20;

/// One shell.
#[derive(Debug)]
pub(crate) struct Terminal {
    shell: Child,
    watcher: Child,
    /// None once it has been closed.
    input: Option<ChildStdin>,
    output: Arc<Mutex<Output>>,
    /// Where the files lie that are sourced, and the exit codes.
    control: PathBuf,
    count: usize,
    /// What goes on, if something does: the file of its exit code, and which code it must be.
    going: Option<(PathBuf, i32)>,
}

#[derive(Debug, Default)]
struct Output {
    /// How many bytes are gone from the beginning.
    gone: usize,
    bytes: Vec<u8>,
}

impl Output {
    fn end(&self) -> usize {
        self.gone + self.bytes.len()
    }

    /// From a place on, as far as it is kept.
    fn since(&self, place: usize) -> String {
        let from = place.saturating_sub(self.gone).min(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[from..]).into_owned()
    }
}

impl Terminal {
    /// Opens a shell in `folder`, its own files in `control`, with the environment of `command`.
    pub(crate) fn open(mut command: Command, folder: &Path, control: &Path) -> Result<Self> {
        // The exit codes of an earlier one with this name would be taken for this one's.
        if control.exists() {
            fs::remove_dir_all(control)?;
        }
        fs::create_dir_all(control)?;
        let mut shell = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start bash")?;
        let watcher = Command::new("bash")
            .args(["-c", "read -r _; kill -KILL -- \"-$1\"", "watcher"])
            .arg(shell.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start bash")?;
        let input = shell.stdin.take();
        let mut stream = shell.stdout.take().context("its output is a pipe")?;
        let output = Arc::new(Mutex::new(Output::default()));
        let kept = Arc::clone(&output);
        thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.bytes.extend_from_slice(&buffer[..len]);
                let over = kept.bytes.len().saturating_sub(OUTPUT_MAX);
                kept.bytes.drain(..over);
                kept.gone += over;
            }
        });
        let mut terminal = Self {
            shell,
            watcher,
            input,
            output,
            control: control.to_path_buf(),
            count: 0,
            going: None,
        };
        terminal.type_in(
            r#"exec 2>&1; ulimit -c 0; set -o pipefail; trap 'echo "failed: $BASH_COMMAND"' ERR
"#,
        )?;
        Ok(terminal)
    }

    /// Runs `script` to its end, which comes `within` that time and with `exit`; or, if it `goes_on`, until all of `expect` is seen.
    pub(crate) fn run(
        &mut self,
        script: &str,
        expect: &[String],
        exit: i32,
        goes_on: bool,
        within: Duration,
    ) -> Result<()> {
        self.end_of_what_goes_on()?;
        let from = self.place();
        let code = self.source(script, exit == 0)?;
        if goes_on {
            self.going = Some((code.clone(), exit));
            self.expect(from, expect, Some(&code), within)
        } else {
            self.wait_for_end(&code, exit, within)?;
            // What it has printed may still be on its way from the pipe.
            self.expect(from, expect, None, EXPECTED)
        }
    }

    /// Runs `script` again and again until the terminal shows `text`. How it ends does not matter before that.
    pub(crate) fn run_until(&mut self, script: &str, text: &str) -> Result<()> {
        self.end_of_what_goes_on()?;
        let deadline = Instant::now() + EXPECTED;
        loop {
            let from = self.place();
            let code = self.source(script, false)?;
            let ended = Instant::now() + ENDING;
            while self.ended(&code)?.is_none() {
                ensure!(Instant::now() < ended, "it has not ended in {ENDING:?}");
                thread::sleep(LOOK);
            }
            thread::sleep(PAUSE);
            if self.shows(from, text) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "it does not say {text:?} in {EXPECTED:?}"
            );
        }
    }

    /// Types lines into what goes on, and waits for what is expected of that.
    pub(crate) fn type_lines(
        &mut self,
        lines: &str,
        expect: &[String],
        until: Option<&str>,
    ) -> Result<()> {
        let (code, _) = self.going.clone().context("nothing goes on here")?;
        let deadline = Instant::now() + EXPECTED;
        let from = self.place();
        loop {
            self.type_in(lines)?;
            let Some(text) = until else {
                // It may end by what it was told.
                return self.expect(from, expect, None, EXPECTED);
            };
            thread::sleep(PAUSE);
            if self.shows(from, text) {
                return Ok(());
            }
            if let Some(code) = self.ended(&code)? {
                bail!("it ended, with {code}");
            }
            ensure!(
                Instant::now() < deadline,
                "{text:?} is not seen in {EXPECTED:?}"
            );
        }
    }

    /// Presses a key that ends what goes on, and waits until it has.
    pub(crate) fn press(&mut self, key: Key) -> Result<()> {
        ensure!(self.going.is_some(), "nothing goes on here");
        let signal = match key {
            Key::CtrlC => Signal::INT,
            Key::CtrlBackslash => Signal::QUIT,
        };
        let id = self.shell.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        for child in children.split_whitespace() {
            let child = child.parse().ok().and_then(Pid::from_raw);
            kill_process(child.context("a process id")?, signal)?;
        }
        self.end_of_what_goes_on()
    }

    /// What went on has ended by now, as it should.
    pub(crate) fn end_of_what_goes_on(&mut self) -> Result<()> {
        match self.going.take() {
            None => Ok(()),
            Some((code, exit)) => self.wait_for_end(&code, exit, ENDING),
        }
    }

    /// If what went on has ended, then as it should.
    pub(crate) fn end_if_it_came(&mut self) -> Result<()> {
        match self.going.clone() {
            Some((code, _)) if self.ended(&code)?.is_some() => self.end_of_what_goes_on(),
            _ => Ok(()),
        }
    }

    /// The last lines that were printed.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let all = self.output().since(0);
        let lines: Vec<_> = all.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The file in which the exit code will be. With `strict` the shell itself ends at the first command that fails.
    fn source(&mut self, script: &str, strict: bool) -> Result<PathBuf> {
        self.count += 1;
        let file = self.control.join(format!("{}.sh", self.count));
        let code = self.control.join(format!("{}.code", self.count));
        let written = self.control.join("code");
        fs::write(&file, script)?;
        let (before, after) = if strict {
            ("set -e; ", "set +e; ")
        } else {
            ("", "")
        };
        let line = format!(
            "{before}. '{}'; code=$?; {after}echo $code >'{}'; mv '{}' '{}'\n",
            file.display(),
            written.display(),
            written.display(),
            code.display(),
        );
        self.type_in(&line)?;
        Ok(code)
    }

    fn type_in(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input
            .write_all(text.as_bytes())
            .context("the shell has ended")
    }

    fn wait_for_end(&mut self, code: &Path, exit: i32, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let ended = loop {
            match self.ended(code)? {
                Some(code) => break code,
                None => ensure!(Instant::now() < deadline, "it has not ended in {within:?}"),
            }
            thread::sleep(LOOK);
        };
        ensure!(ended == exit, "it ended with {ended}, and not with {exit}");
        Ok(())
    }

    /// The exit code, once there is one; the shell's own if that has ended.
    fn ended(&mut self, code: &Path) -> Result<Option<i32>> {
        if let Ok(text) = fs::read_to_string(code) {
            return Ok(Some(text.trim().parse().context("an exit code")?));
        }
        Ok(self.shell.try_wait()?.map(exit_code))
    }

    /// Waits until all of `expect` is seen; in vain if that ends whose exit code will be in `goes_on`.
    fn expect(
        &mut self,
        from: usize,
        expect: &[String],
        goes_on: Option<&Path>,
        within: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        for text in expect {
            while !self.shows(from, text) {
                if let Some(code) = goes_on.map(|code| self.ended(code)).transpose()?.flatten() {
                    bail!("{text:?} is not seen: it ended, with {code}");
                }
                ensure!(
                    Instant::now() < deadline,
                    "{text:?} is not seen in {within:?}"
                );
                thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    fn shows(&self, from: usize, text: &str) -> bool {
        self.output().since(from).contains(text)
    }

    fn place(&self) -> usize {
        self.output().end()
    }

    fn output(&self) -> std::sync::MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The watcher's input ends, and it kills the group.
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
        let _ = self.shell.wait();
    }
}

/// The code that a shell would say.
fn exit_code(status: ExitStatus) -> i32 {
    let signal = || status.signal().unwrap_or_default();
    status.code().unwrap_or_else(|| 128 + signal())
}
