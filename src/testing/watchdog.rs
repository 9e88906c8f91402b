//! A shell that does something once this process is gone.

use std::io::{self, Write as _};
use std::process::{Child, Command, Stdio};

/// Holds the only write end of a pipe that a shell reads from: when it is closed, by us or by the system
/// because this process died, the shell tidies up.
///
/// A destructor alone would not do: nothing runs it for statics, nor in a process that is killed. The
/// standard library opens pipes close-on-exec, so other children cannot hold the pipe open.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Option<Child>,
}

impl Watchdog {
    /// Runs `script` with the arguments and the user that `command` already has.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;

        // Its own process group, or the terminal's Ctrl-C and a test runner's timeout would end it before it
        // has done its work. No output, or it would hold open the pipes of whoever captures ours.
        let shell = command
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell: Some(shell) })
    }

    /// Whether the shell ended by itself, which it never does while all is well.
    pub(super) fn ended(&mut self) -> bool {
        match &mut self.shell {
            Some(shell) => !matches!(shell.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Writes to the shell's standard input.
    pub(super) fn send(&mut self, text: &str) -> io::Result<()> {
        match self.shell.as_mut().and_then(|shell| shell.stdin.as_mut()) {
            Some(pipe) => pipe.write_all(text.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets the shell tidy up and waits until it has.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.shell.take() {
            // Closes the pipe first.
            Some(mut shell) => shell.wait().map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            // Reaped on the side: tidying up takes longer than a destructor may block an executor. Without
            // a thread the shell still tidies up, only its entry in the process table stays.
            let _ = std::thread::Builder::new().name("phasewise-reaper".into()).spawn(move || shell.wait());
        }
    }
}
