//! An instance of the service: an operating system process of its own.

use std::fmt;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{REFUSED, Result};

/// Far longer than a start, or an end, takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A batch of the backfill, as the instance that drives it tells.
#[derive(Debug)]
pub struct Batch {
    pub instance: u32,
    /// Rows so far.
    pub done: u64,
}

/// The process is killed when this is dropped.
pub struct Instance {
    pub number: u32,
    pub release: usize,
    pub address: SocketAddr,
    child: Child,
    /// The process ends when this is closed; waiting for the process would close it, were it not taken out.
    _stdin: Option<ChildStdin>,
    complaints: JoinHandle<String>,
}

/// What comes of a start.
pub enum Started {
    Serving(Box<Instance>),
    /// The process said why, and ended.
    Refused(String),
}

impl Instance {
    /// Starts a process, and waits until it listens or gives up.
    pub async fn start(
        number: u32,
        release: usize,
        database: &str,
        batches: UnboundedSender<Batch>,
    ) -> Result<Started> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &release.to_string()])
            .env("DATABASE_URL", database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("the process has no output".into());
        };
        let complaints = tokio::spawn(async move {
            let mut text = String::new();
            // What was read until then is all there is.
            let _ = stderr.read_to_string(&mut text).await;
            text.trim().to_owned()
        });
        let mut lines = BufReader::new(stdout).lines();
        let listens = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("listening on ") {
                    return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some(address.parse()?));
                }
                tell(number, &line, &batches);
            }
            Ok(None)
        };
        if let Some(address) = timeout(PATIENCE, listens).await?? {
            tokio::spawn(listen(number, lines, batches));
            return Ok(Started::Serving(Box::new(Self {
                number,
                release,
                address,
                child,
                _stdin: stdin,
                complaints,
            })));
        }
        let status = timeout(PATIENCE, child.wait()).await??;
        drop(stdin);
        let why = complaints.await?;
        if status.code() == Some(REFUSED.into()) {
            return Ok(Started::Refused(why));
        }
        Err(format!("an instance of release {release} ended with {status}: {why}").into())
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(id.ok_or_else(|| format!("{self} has ended by itself"))?, Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        self.ended(status).await
    }

    /// `kill -9`.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn ended(self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let name = self.to_string();
        Err(format!("{name} ended with {status}: {}", self.complaints.await?).into())
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {} (release {})", self.number, self.release)
    }
}

/// Its log. Read to the end, since a full pipe would stop the process.
async fn listen(number: u32, mut lines: Lines<BufReader<ChildStdout>>, batches: UnboundedSender<Batch>) {
    while let Ok(Some(line)) = lines.next_line().await {
        tell(number, &line, &batches);
    }
}

fn tell(instance: u32, line: &str, batches: &UnboundedSender<Batch>) {
    let done = line.strip_prefix("backfill: ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    if let Some(done) = done {
        // Nobody may be listening any more.
        let _ = batches.send(Batch { instance, done });
    }
}
