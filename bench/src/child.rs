//! The parent's end of a child: requests out, answers in, each waited for with a bound.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::protocol::{Answer, Request, State};

/// A node's process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<Answer>,
    log: PathBuf,
}

impl Node {
    /// Starts node `id` of a cluster at `ports`, its data and log below `folder`.
    pub(crate) fn start(id: u64, ports: &[u16], folder: &Path) -> Result<Self> {
        let log = folder.join(format!("node{id}.log"));
        let peers = (1..)
            .zip(ports)
            .map(|(id, port)| format!("{id}=127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",");
        let mut child = Command::new(std::env::current_exe().context("where this program is")?)
            .args(["node", "--id", &id.to_string(), "--peers", &peers])
            .arg("--data")
            .arg(folder.join(format!("node{id}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                fs::File::create(&log)
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
            id,
            child,
            input,
            answers,
            log,
        })
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
            Ok(Answer::Failed(why)) => bail!("node {}: {why}", self.id),
            Ok(answer) => Ok(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(self.gone(&format!("no answer in {timeout:?}")))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.gone("it has ended")),
        }
    }

    /// The node as it sees itself.
    pub(crate) fn state(&mut self) -> Result<State> {
        self.ask(Request::State)?;
        match self.answer(Duration::from_secs(10))? {
            Answer::State(state) => Ok(state),
            other => bail!(
                "node {}: its state was asked for, and it said {other:?}",
                self.id
            ),
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        self.ask(Request::End)?;
        match self.answer(Duration::from_secs(20))? {
            Answer::Ended => Ok(()),
            other => bail!("node {}: it was asked to end, and said {other:?}", self.id),
        }
    }

    fn gone(&self, why: &str) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n");
        anyhow!("node {}: {why}; the end of its log:\n{tail}", self.id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
