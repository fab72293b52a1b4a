//! The parent's end of a child: requests out, answers in, each waited for with a bound.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::protocol::{Answer, Request, State};

/// A process of a cluster. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    arguments: Vec<OsString>,
    folder: PathBuf,
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<Answer>,
    log: PathBuf,
}

impl Process {
    /// Starts this program with `arguments`; its log is `name` with `.log`, in `folder`.
    pub(crate) fn start(name: &str, arguments: &[OsString], folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let mut child = Command::new(std::env::current_exe().context("where this program is")?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                fs::File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .with_context(|| format!("cannot write {}", log.display()))?,
            )
            .spawn()
            .context("cannot start a node")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let (answer, answers) = mpsc::channel();
        thread::spawn(move || {
            // Anything but an answer is as good as the end.
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for parsed in lines.map_while(|line| serde_json::from_str(&line).ok()) {
                if answer.send(parsed).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_path_buf(),
            child,
            input,
            answers,
            log,
        })
    }

    /// Kills it, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        *self = Self::start(&self.name, &self.arguments, &self.folder)?;
        Ok(())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request.
    pub(crate) fn ask(&mut self, request: Request) -> Result<()> {
        let line = serde_json::to_string(&request)? + "\n";
        self.input
            .write_all(line.as_bytes())
            .map_err(|error| self.gone(&error.to_string()))
    }

    /// Waits for the next answer.
    pub(crate) fn answer(&self, timeout: Duration) -> Result<Answer> {
        match self.answers.recv_timeout(timeout) {
            Ok(Answer::Failed(why)) => bail!("{}: {why}", self.name),
            Ok(answer) => Ok(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(self.gone(&format!("no answer in {timeout:?}")))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.gone("it has ended")),
        }
    }

    /// Its nodes as they see themselves.
    pub(crate) fn states(&mut self) -> Result<Vec<State>> {
        self.ask(Request::State)?;
        // It answers when it has opened its log.
        match self.answer(Duration::from_secs(60))? {
            Answer::States(states) => Ok(states),
            other => bail!("{} was asked for its state, and said {other:?}", self.name),
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        self.ask(Request::End)?;
        match self.answer(Duration::from_secs(30))? {
            Answer::Ended => Ok(()),
            other => bail!("{} was asked to end, and said {other:?}", self.name),
        }
    }

    fn gone(&self, why: &str) -> anyhow::Error {
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
