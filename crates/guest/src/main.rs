//! `hob-guest`: process 1 of a sandbox, and, in its other modes, what starts a sandbox.
//!
//! One small static program, so that it runs in any root and its start costs less than a millisecond. Each mode is a
//! process of its own: `helper` (starts sandboxes), `stage` (one sandbox's first steps), `enter` (those of a container
//! that another program has made), `init` (process 1 inside), `supervise` (one command inside), `terminal` (a command
//! that controls a terminal).

mod entry;
mod helper;
mod init;
mod passing;
mod place;
mod stage;
mod supervise;
mod syscall;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match mode.as_str() {
        "helper" => helper::detach(&rest),
        "helper-run" => helper::run(&rest),
        "stage" => Err(stage::run()),
        "enter" => Err(entry::run()),
        "init" => init::run(),
        "supervise" => supervise::run(),
        "terminal" => Err(supervise::terminal(&rest)),
        _ => Err("start without a mode: this program is started by hob".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => complain(&mode, &reason),
    }
}

#[expect(clippy::print_stderr, reason = "standard error is all that this program has")]
fn complain(mode: &str, reason: &str) -> ExitCode {
    eprintln!("hob-guest {mode}: failed to {reason}");
    // What a shell says of a program that cannot be run.
    ExitCode::from(127)
}
