//! Processes that are stopped and go on.

use std::process::Child;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Stops it. Returns once all of its threads stand still, which is later than the signal.
pub(crate) fn stop(child: &Child) {
    kill_process(pid(child), Signal::STOP).expect("a process that can be stopped");
    let (_, status) =
        waitpid(Some(pid(child)), WaitOptions::UNTRACED).expect("its state").expect("a change of it");
    assert!(status.stopped(), "{status:?}");
}

/// Lets it go on.
pub(crate) fn go_on(child: &Child) {
    kill_process(pid(child), Signal::CONT).expect("a process that goes on");
}
