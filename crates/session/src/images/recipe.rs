//! How an image is made, from what the environment says. Pure.

use std::sync::Arc;

use hob_sandbox::Command;

use super::image::{Image, StageName};
use crate::environment::{self, Environment, Fingerprints, Packages, fingerprints};
use crate::workspace::ROOT;

/// How often an image is made on top of the one before it, until it is made anew: what a workspace's builds leave behind
/// grows with each.
const REFRESHES_MAX: u32 = 8;

/// Where commands run that need no repository.
const HOME: &str = "/root";

/// Puts git into a base that has none: the agent needs it, and so does the way of its work out of the sandbox.
const GIT: &str = "command -v git >/dev/null && exit 0
if command -v apt-get >/dev/null; then
  apt-get -o APT::Sandbox::User=root update && apt-get -o APT::Sandbox::User=root install --yes --no-install-recommends git ca-certificates
elif command -v apk >/dev/null; then apk add git
else echo 'the base has no git, and Hob does not know how to install it there: name a base with git' >&2; exit 1
fi";

/// What is to be done for an image, above its base.
#[derive(Debug)]
pub(super) struct Recipe {
    /// By which its layers are known.
    pub(super) fingerprints: Fingerprints,
    packages: Vec<Line>,
    setup: Vec<Line>,
    warm: Vec<Line>,
}

/// A command of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// As the log shows it.
    pub(super) shown: String,
    /// As it is run.
    pub(super) command: Command,
}

/// What an image is made on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground<'a> {
    /// Nothing but its base.
    Base,
    /// Another image, as it was after a step.
    After(&'a Image, StageName),
    /// An older image of the same repository and recipe: only its workspace is brought up to date.
    Older(&'a Image),
}

impl Recipe {
    /// The recipe of an environment on a base.
    pub(super) fn new(environment: &Environment, base_digest: &str, runtime: &str) -> Self {
        let lines = |lines: &[String], folder| lines.iter().map(|line| Line::shell(line, folder)).collect();
        let mut packages = installs(&environment.packages);
        if environment.base != environment::Base::Host {
            packages.push(Line { shown: "install git".to_owned(), command: Command::shell(GIT).cwd(HOME) });
        }
        Self {
            fingerprints: fingerprints(environment, base_digest, runtime),
            packages,
            setup: lines(&environment.setup, HOME),
            warm: lines(&environment.warm, ROOT),
        }
    }

    /// The commands of a step.
    pub(super) fn lines(&self, stage: StageName) -> &[Line] {
        match stage {
            StageName::Base | StageName::Clone => &[],
            StageName::Packages => &self.packages,
            StageName::Setup => &self.setup,
            StageName::Warm => &self.warm,
        }
    }

    /// The best of what is there to begin on.
    pub(super) fn ground<'a>(&self, images: &'a [Arc<Image>], repository: &str) -> Ground<'a> {
        let whole = |image: &&Arc<Image>| {
            image.is_ready()
                && image.repository == repository
                && image.fingerprints == self.fingerprints
                && image.refreshes < REFRESHES_MAX
        };
        if let Some(older) = images.iter().rfind(whole) {
            return Ground::Older(older);
        }
        let wanted = &self.fingerprints;
        let set_up = |image: &&Arc<Image>| image.fingerprints.setup == wanted.setup && image.has(StageName::Setup);
        let packed =
            |image: &&Arc<Image>| image.fingerprints.packages == wanted.packages && image.has(StageName::Packages);
        let usable = || images.iter().rev().filter(|image| image.state != super::ImageState::Building);
        if let Some(image) = usable().find(set_up) {
            return Ground::After(image, StageName::Setup);
        }
        usable().find(packed).map_or(Ground::Base, |image| Ground::After(image, StageName::Packages))
    }
}

impl Line {
    fn shell(line: &str, folder: &str) -> Self {
        Self { shown: line.to_owned(), command: Command::shell(line).cwd(folder) }
    }

    fn program(words: &[&str], more: &[String]) -> Self {
        let argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(more.iter().cloned()).collect();
        Self { shown: argv.join(" "), command: Command::new(argv).cwd(HOME) }
    }
}

/// The commands that install what is asked for, in the order of the file.
fn installs(packages: &Packages) -> Vec<Line> {
    let Packages { apt, pip, npm, features: _, commands } = packages;
    let mut lines = Vec::new();
    if !apt.is_empty() {
        // apt gives its rights up for a user of its own, which needs more rights than a sandbox has.
        let apt_get = ["apt-get", "-o", "APT::Sandbox::User=root"];
        lines.push(Line::program(&[apt_get.as_slice(), &["update"]].concat(), &[]));
        lines
            .push(Line::program(&[apt_get.as_slice(), &["install", "--yes", "--no-install-recommends"]].concat(), apt));
    }
    if !pip.is_empty() {
        let install = Line::program(&["python3", "-m", "pip", "install", "--no-input"], pip);
        let command = install.command.env("PIP_BREAK_SYSTEM_PACKAGES", "1").env("PIP_ROOT_USER_ACTION", "ignore");
        lines.push(Line { shown: install.shown, command });
    }
    if !npm.is_empty() {
        lines.push(Line::program(&["npm", "install", "--global"], npm));
    }
    lines.extend(commands.iter().map(|line| Line::shell(line, HOME)));
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ImageState;
    use super::super::image::Stage;
    use super::*;
    use crate::environment::parse;

    const FILE: &str = "setup = 'a'\nwarm = 'b'\n[packages]\napt = ['redis']\n";

    fn recipe(text: &str) -> Recipe {
        Recipe::new(&parse(text).unwrap(), "digest", "1")
    }

    /// A ready image of a repository, begun at a time.
    pub(in super::super) fn image(repository: &str, begun_ms: u64) -> Image {
        by(repository, &recipe(FILE), begun_ms)
    }

    /// The same, made by a recipe.
    fn by(repository: &str, recipe: &Recipe, begun_ms: u64) -> Image {
        let stages = [StageName::Base, StageName::Packages, StageName::Setup, StageName::Clone, StageName::Warm];
        let stage = |name| Stage { name, layers: 0, elapsed_ms: 0, reused: false };
        Image {
            image_id: format!("i{begun_ms}"),
            repository: repository.to_owned(),
            asked: None,
            commit: String::new(),
            state: ImageState::Ready,
            reason: None,
            notes: Vec::new(),
            fingerprints: recipe.fingerprints.clone(),
            base_digest: "digest".to_owned(),
            base: hob_sandbox::Base::Host,
            env: std::collections::BTreeMap::new(),
            held: crate::git::carry::Held::default(),
            layers: Vec::new(),
            stages: stages.map(stage).to_vec(),
            bytes: 0,
            begun_ms,
            ended_ms: Some(begun_ms),
            used_ms: 0,
            refreshes: 0,
            trial: false,
            checks: Vec::new(),
        }
    }

    #[track_caller]
    fn check(images: Vec<Image>, expect: &str) {
        let images: Vec<Arc<Image>> = images.into_iter().map(Arc::new).collect();
        let said = match recipe(FILE).ground(&images, "repo") {
            Ground::Base => "base".to_owned(),
            Ground::After(image, stage) => format!("{} after {}", image.image_id, stage.as_str()),
            Ground::Older(image) => format!("{} as it is", image.image_id),
        };
        assert_eq!(said, expect);
    }

    #[test]
    fn an_image_is_made_on_the_most_that_is_there() {
        let same = recipe(FILE);
        let other_warm = recipe(&FILE.replace("'b'", "'c'"));
        let other_setup = recipe(&FILE.replace("'a'", "'c'"));
        let other_packages = recipe(&FILE.replace("redis", "nginx"));
        check(vec![], "base");
        check(vec![by("repo", &other_packages, 1)], "base");
        check(vec![by("repo", &other_setup, 1)], "i1 after packages");
        check(vec![by("repo", &other_warm, 1), by("repo", &other_setup, 2)], "i1 after setup");
        check(vec![by("repo", &same, 1), by("repo", &same, 2), by("repo", &other_warm, 3)], "i2 as it is");
        check(vec![by("another", &same, 1)], "i1 after setup");
    }

    #[test]
    fn what_is_not_whole_or_too_deep_is_not_built_upon() {
        let same = recipe(FILE);
        check(vec![Image { state: ImageState::Building, ..by("repo", &same, 1) }], "base");
        check(vec![Image { refreshes: REFRESHES_MAX, ..by("repo", &same, 1) }], "i1 after setup");
        let failed = Image { state: ImageState::Failed, ..by("repo", &same, 1) };
        check(vec![failed.clone()], "i1 after setup");
        let stages = failed.stages[..2].to_vec();
        check(vec![Image { stages, ..failed }], "i1 after packages");
    }

    #[test]
    fn packages_are_installed_by_their_own_programs() {
        let text = "base = 'debian:bookworm'\n[packages]\napt = ['redis']\npip = ['ruff==0.5']\nnpm = ['tsx']\n\
                    commands = ['make install']";
        let recipe = recipe(text);
        let shown: Vec<&str> = recipe.lines(StageName::Packages).iter().map(|line| line.shown.as_str()).collect();
        assert_eq!(
            shown,
            [
                "apt-get -o APT::Sandbox::User=root update",
                "apt-get -o APT::Sandbox::User=root install --yes --no-install-recommends redis",
                "python3 -m pip install --no-input ruff==0.5",
                "npm install --global tsx",
                "make install",
                "install git",
            ]
        );
    }
}
