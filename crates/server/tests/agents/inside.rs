//! What can be seen and done from inside a sandbox, as a person's commands find it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::Session;

/// Whether a process with the words `$1` runs.
const RUNS: &str = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q -e \"$1\"";

/// The sandbox of a session.
pub struct Inside<'a>(pub &'a Session<'a>);

impl Inside<'_> {
    /// Runs a shell script; gives its exit code and its output.
    pub async fn sh(&self, script: &str, arguments: &[&str]) -> (i64, String) {
        let argv: Vec<&str> = ["bash", "-c", script, "bash"].iter().chain(arguments).copied().collect();
        let (status, ran) = self.0.server.post(&self.0.path("/exec"), json!({ "argv": argv })).await;
        assert_eq!(status, 200, "{ran}");
        (ran["exit_code"].as_i64().unwrap_or(-1), ran["stdout"].as_str().unwrap_or_default().to_owned())
    }

    /// Files and processes (`/proc/PID/environ`, `/proc/PID/cmdline`) that hold a text.
    pub async fn places_of(&self, text: &str) -> Vec<String> {
        let places = "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /root /workspace /home /tmp /var /run /etc /srv";
        let (_, found) = self.sh(&format!("grep -rlas -D skip -e \"$1\" {places}"), &[&not_itself(text)]).await;
        found.lines().map(str::to_owned).collect()
    }

    /// Whether a connection to a port of 127.0.0.1 succeeds.
    pub async fn reaches(&self, port: u16) -> bool {
        self.sh("exec 3<>\"/dev/tcp/127.0.0.1/$1\"", &[&port.to_string()]).await.0 == 0
    }

    /// Waits until a process with these words runs.
    pub async fn until_runs(&self, words: &str) {
        self.sh(&format!("until {RUNS}; do sleep 0.02; done"), &[&not_itself(words)]).await;
    }

    /// Waits until none does.
    pub async fn until_gone(&self, words: &str) {
        self.sh(&format!("while {RUNS}; do sleep 0.02; done"), &[&not_itself(words)]).await;
    }

    /// Whether a process with these words runs.
    pub async fn runs(&self, words: &str) -> bool {
        self.sh(RUNS, &[&not_itself(words)]).await.0 == 0
    }

    /// `kill -9` for the process that Hob started as the agent: the one with the lowest number.
    pub async fn kill_agent(&self) {
        let kill = "for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in /opt/hob/agents/*) \
                    echo $exe;; esac; done | tr -cd '0-9\\n' | sort -n | head -n 1 | xargs kill -9";
        assert_eq!(self.sh(kill, &[]).await.0, 0, "no agent runs");
    }

    /// Memory of all processes with these words in their command line, at their peaks, in MiB.
    pub async fn memory_mib(&self, words: &str) -> u64 {
        let sum = "for p in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null <$p/cmdline | grep -q -e \"$1\" \\
                   && cat $p/status; done | awk '/VmHWM/ { sum += $2 } END { print int(sum / 1024) }'";
        self.sh(sum, &[&not_itself(words)]).await.1.trim().parse().unwrap_or_default()
    }

    /// How long it takes from `stop` until no process with these words runs.
    pub async fn gone_within(&self, words: &str, stop: impl Future<Output = ()>) -> Duration {
        // The watcher runs before the stop, so that its own start does not count.
        let ready = "/tmp/watched";
        let watch = format!("touch {ready}; while {RUNS}; do sleep 0.02; done; rm {ready}");
        let pattern = not_itself(words);
        let arguments = [pattern.as_str()];
        let watcher = self.sh(&watch, &arguments);
        let stopper = async {
            self.sh(&format!("until [ -e {ready} ]; do sleep 0.02; done"), &[]).await;
            let begun = Instant::now();
            stop.await;
            begun
        };
        let (begun, _) = tokio::join!(stopper, watcher);
        begun.elapsed()
    }
}

/// A pattern that matches a text, but not itself: it is an argument of the one who searches.
fn not_itself(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("[{first}]{rest}")
}
