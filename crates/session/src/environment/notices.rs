//! What an environment asks for and this version of Hob does not do yet, in words for the participants.
//!
//! Nothing of a file is ignored in silence: what is read is done, or told here.

use super::{Environment, Wants};
use hob_sandbox::Limits;

/// What is asked for and not done, a sentence for each. `allowed` is what a sandbox may use at most.
pub fn not_yet(environment: &Environment, allowed: Limits) -> Vec<String> {
    let mut told = Vec::new();
    let features: Vec<String> = environment.packages.features.iter().map(|feature| feature.id.clone()).collect();
    if !features.is_empty() {
        told.push(format!("The environment installs the features {}. They are not installed yet.", named(&features)));
    }
    if let Some(user) = environment.user.as_ref().filter(|user| *user != "root") {
        told.push(format!("The environment wants the user {user}. Commands run as root of the sandbox for now."));
    }
    if !environment.ports.is_empty() {
        let ports: Vec<String> = environment.ports.iter().map(u16::to_string).collect();
        told.push(format!("The environment forwards the ports {}. They are not forwarded yet.", named(&ports)));
    }
    if !environment.secrets.is_empty() {
        told.push(format!("The environment uses the secrets {}. None is given yet.", named(&environment.secrets)));
    }
    told.extend(cut(&environment.wants, allowed));
    told
}

/// Limits that are lower than the repository wants.
fn cut(wants: &Wants, allowed: Limits) -> Option<String> {
    let mut cut = Vec::new();
    if wants.cpu_millicores.is_some_and(|wanted| wanted > allowed.cpu_millicores) {
        cut.push(format!("{} cores", f64::from(allowed.cpu_millicores) / 1_000.0));
    }
    if wants.memory_bytes.is_some_and(|wanted| wanted > allowed.memory_bytes) {
        cut.push(format!("{} MiB of memory", allowed.memory_bytes >> 20));
    }
    if wants.disk_bytes.is_some_and(|wanted| wanted > allowed.disk_bytes) {
        cut.push(format!("{} MiB of disk", allowed.disk_bytes >> 20));
    }
    if wants.processes.is_some_and(|wanted| wanted > allowed.processes) {
        cut.push(format!("{} processes", allowed.processes));
    }
    (!cut.is_empty())
        .then(|| format!("The environment wants more than a sandbox may use here. It gets {}.", cut.join(", ")))
}

/// The first few of a list.
fn named(list: &[String]) -> String {
    const SHOWN: usize = 4;
    let short = |text: &String| format!("`{}`", crate::checks::clip(text, 60));
    let shown: Vec<String> = list.iter().take(SHOWN).map(short).collect();
    match list.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_is_not_done_is_told() {
        let secrets = "secrets = ['A','B','C','D','E','F']\nuser = 'node'\nports = [80]\ncpu = 64\n";
        let told = not_yet(&parse(secrets).unwrap(), Limits::default());
        assert_eq!(
            told,
            [
                "The environment wants the user node. Commands run as root of the sandbox for now.",
                "The environment forwards the ports `80`. They are not forwarded yet.",
                "The environment uses the secrets `A`, `B`, `C`, `D` and 2 more. None is given yet.",
                "The environment wants more than a sandbox may use here. It gets 2 cores.",
            ]
        );
    }

    #[test]
    fn where_all_is_done_nothing_is_told() {
        let text = "base = 'debian:bookworm'\ncpu = 1\nuser = 'root'\nwarm = 'make'\n[packages]\napt = ['redis']\n[[services]]\nname = 'a'\ncommand = 'b'\n[env]\nA = 'b'";
        assert_eq!(not_yet(&parse(text).unwrap(), Limits::default()), Vec::<String>::new());
    }
}
