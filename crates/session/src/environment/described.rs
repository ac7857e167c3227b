//! Everything that a repository's files say of its environment, whichever of them says it.

use super::{Base, Environment, PATH, devcontainer, parse};
use crate::checks::{Check, detect};

/// Why a reader gives no text.
const UNREADABLE: &str = "there is no such plain file of at most 1 MiB";

/// What a repository says of itself, or what its files show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// Its environment; the default where it has no file, or one that cannot be read.
    pub environment: Environment,
    /// The files that it was read from, the one that counts most first.
    pub sources: Vec<String>,
    /// Its checks, in the order they run: those that it names, or those that were detected.
    pub checks: Vec<Check>,
    /// Why a file was not taken, in words for the participants.
    pub problems: Vec<String>,
    /// What a file says and is not taken, in words for the participants.
    pub notices: Vec<String>,
}

/// Reads what a repository says of itself. `files` are its paths from the top folder; `read` gives the text of one of
/// them, and nothing where it cannot.
pub fn describe(files: &[String], mut read: impl FnMut(&str) -> Option<String>) -> Described {
    let mut described = Described::default();
    described.own(files, &mut read);
    // Without a file of its own, and with a base that another file makes, that one is read.
    let beside = match &described.environment.base {
        Base::Devcontainer { path } => Some(path.clone()),
        _ if described.sources.is_empty() => devcontainer::find(files).map(str::to_owned),
        _ => None,
    };
    if let Some(path) = beside {
        described.devcontainer(&path, &mut read);
    }
    described.checks = match &described.environment.checks {
        Some(checks) => checks.clone(),
        None => detect::detect(files, read),
    };
    described
}

impl Described {
    fn own(&mut self, files: &[String], read: &mut impl FnMut(&str) -> Option<String>) {
        let Some(text) = read(PATH) else {
            if files.iter().any(|file| file == PATH) {
                self.problems.push(format!("failed to read {PATH}: {UNREADABLE}"));
            }
            return;
        };
        self.sources.push(PATH.to_owned());
        match parse(&text) {
            Ok(environment) => self.environment = environment,
            Err(error) => self.problems.push(format!("failed to read {PATH}: {error}")),
        }
    }

    fn devcontainer(&mut self, path: &str, read: &mut impl FnMut(&str) -> Option<String>) {
        let Some(text) = read(path) else {
            self.problems.push(format!("failed to read {path}: {UNREADABLE}"));
            return;
        };
        self.sources.push(path.to_owned());
        match devcontainer::read(&text, path) {
            Ok(found) => {
                self.environment = std::mem::take(&mut self.environment).with(found.environment);
                self.notices.extend(found.notices);
            }
            Err(error) => self.problems.push(format!("failed to read {path}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Described {
        let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        describe(&names, |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
    }

    const DEVCONTAINER: (&str, &str) =
        (".devcontainer.json", r#"{"image": "node:20", "containerEnv": {"A": "1", "B": "1"}, "privileged": true}"#);

    #[test]
    fn a_devcontainer_counts_where_there_is_no_file_of_our_own() {
        let alone = of(&[DEVCONTAINER]);
        assert_eq!(alone.environment.base, Base::Image { reference: "node:20".to_owned() });
        assert_eq!((alone.sources, alone.notices.len()), (vec![".devcontainer.json".to_owned()], 1));
        let beside = of(&[DEVCONTAINER, (PATH, "cpu = 1")]);
        assert_eq!((beside.environment.base, beside.notices.len()), (Base::Host, 0));
    }

    #[test]
    fn what_stands_beside_a_devcontainer_as_base_counts_more() {
        let both = of(&[DEVCONTAINER, (PATH, "base = '.devcontainer.json'\nwarm = 'make'\nenv = { B = '2' }")]);
        assert_eq!(both.environment.base, Base::Image { reference: "node:20".to_owned() });
        assert_eq!(both.environment.warm, ["make"]);
        let env: Vec<_> = both.environment.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=1", "B=2"]);
        assert_eq!(both.problems, Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_not_there_or_wrong_is_a_problem() {
        assert_eq!(
            of(&[(PATH, "base = 'a/devcontainer.json'")]).problems,
            ["failed to read a/devcontainer.json: there is no such plain file of at most 1 MiB"]
        );
        let too_large = describe(&[PATH.to_owned()], |_| None);
        assert_eq!(too_large.problems, [format!("failed to read {PATH}: {UNREADABLE}")]);
        let wrong = of(&[DEVCONTAINER, (PATH, "wombat = 1")]);
        let told = "failed to read .hob/environment.toml: line 1, column 1: unknown key `wombat`";
        assert_eq!((wrong.problems, wrong.environment), (vec![told.to_owned()], Environment::default()));
    }

    #[test]
    fn checks_are_detected_where_none_are_named() {
        let cargo = ("Cargo.toml", "[package]\nname = 'a'\n");
        let detected = of(&[cargo, ("src/lib.rs", ""), ("tests/a.rs", "")]);
        assert!(!detected.checks.is_empty());
        assert_eq!(of(&[cargo, ("tests/a.rs", ""), (PATH, "checks = []")]).checks, []);
    }
}
