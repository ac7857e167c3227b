//! Reads a `devcontainer.json` (<https://containers.dev/implementors/json_reference/>) as an environment.
//!
//! What says how a person's editor looks is passed over. What changes the container and is not taken is told.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{EnvironmentError, Place};
use super::values::{inside, is_image, is_variable};
use super::{BYTES_MAX, Base, Dockerfile, Environment, Feature};
use crate::checks::clip;
use crate::workspace::ROOT;

mod commands;
mod jsonc;

/// Where a repository may keep it, the first one first. Folders below the first one's are looked at after these.
pub const PATHS: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// Entries of a list or an object that are read.
const ENTRIES_MAX: usize = 256;

/// Keys that say nothing about what the sandbox is made of: an editor's, or about a container's life that sandboxes
/// have of their own.
const PASSED_OVER: &[&str] = &[
    "$schema",
    "name",
    "customizations",
    "settings",
    "extensions",
    "waitFor",
    "shutdownAction",
    "overrideCommand",
    "overrideFeatureInstallOrder",
    "portsAttributes",
    "otherPortsAttributes",
    "updateRemoteUserUID",
    "userEnvProbe",
    "init",
    "secrets",
];

/// Keys that are read.
const READ: &[&str] = &[
    "image",
    "build",
    "dockerFile",
    "context",
    "features",
    "onCreateCommand",
    "updateContentCommand",
    "postCreateCommand",
    "postStartCommand",
    "containerEnv",
    "remoteEnv",
    "forwardPorts",
    "remoteUser",
    "containerUser",
];

/// What a `devcontainer.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devcontainer {
    /// As an environment.
    pub environment: Environment,
    /// What it says and is not taken, a sentence for each.
    pub notices: Vec<String>,
}

/// Finds the file of a repository, among its paths from the top folder: one of [`PATHS`], or the only one in a folder
/// below `.devcontainer`.
pub fn find(files: &[String]) -> Option<&str> {
    let has = |path: &&str| files.iter().any(|file| file == path);
    if let Some(path) = PATHS.iter().copied().find(has) {
        return Some(path);
    }
    let in_folder = |file: &&String| {
        let name = file.strip_prefix(".devcontainer/").and_then(|rest| rest.strip_suffix("/devcontainer.json"));
        name.is_some_and(|name| !name.contains('/'))
    };
    let mut found = files.iter().filter(in_folder);
    let only = found.next()?;
    found.next().is_none().then_some(only.as_str())
}

/// Reads the text of a `devcontainer.json` that lies at `path` of its repository.
///
/// # Errors
/// It is not JSON with comments, or no object, or too long.
pub fn read(text: &str, path: &str) -> Result<Devcontainer, EnvironmentError> {
    if text.len() > BYTES_MAX {
        return Err(EnvironmentError::TooLong { max: BYTES_MAX });
    }
    let value: Map<String, Value> = serde_json::from_str(&jsonc::plain(text)).map_err(|error| {
        let place = Place { line: error.line(), column: error.column() };
        // serde_json tells the place in its message too.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        EnvironmentError::Syntax { place, message: clip(message, 200) }
    })?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut reader = Reader { value: &value, folder, path, notices: Vec::new() };
    let environment = reader.environment();
    let mut notices = reader.notices;
    notices.truncate(32);
    Ok(Devcontainer { environment, notices })
}

struct Reader<'a> {
    value: &'a Map<String, Value>,
    folder: &'a str,
    path: &'a str,
    notices: Vec<String>,
}

impl Reader<'_> {
    fn environment(&mut self) -> Environment {
        let mut environment = Environment { base: self.base(), ..Environment::default() };
        environment.packages.features = self.features();
        for key in ["onCreateCommand", "updateContentCommand", "postCreateCommand"] {
            environment.warm.extend(self.commands(key));
        }
        environment.start = self.commands("postStartCommand");
        for key in ["containerEnv", "remoteEnv"] {
            let variables = self.variables(key);
            environment.env.extend(variables);
        }
        environment.ports = self.ports();
        environment.user =
            ["remoteUser", "containerUser"].into_iter().find_map(|key| self.text(key).map(str::to_owned));
        self.rest();
        environment
    }

    fn tell(&mut self, key: &str, why: &str) {
        self.notices.push(format!("`{}` of {} {why}.", clip(key, 80), self.path));
    }

    fn text(&mut self, key: &str) -> Option<&str> {
        let text = self.value.get(key)?.as_str();
        if text.is_none() {
            self.tell(key, "is not a text, and is not taken");
        }
        text
    }

    /// A path that the file says from its own folder on, from the repository's top folder on.
    fn rooted(&self, path: &str) -> Option<String> {
        let mut parts: Vec<&str> = self.folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        inside(&parts.join("/")).filter(|_| !path.starts_with('/'))
    }

    fn base(&mut self) -> Base {
        let build = self.value.get("build").and_then(Value::as_object);
        // The keys of the first versions stood at the top.
        let from = |name: &str, old: &str| {
            build.and_then(|build| build.get(name)).or_else(|| self.value.get(old)).and_then(Value::as_str)
        };
        if let Some(file) = from("dockerfile", "dockerFile") {
            let context = from("context", "context").unwrap_or(".");
            let (Some(path), Some(context)) = (self.rooted(file), self.rooted(context)) else {
                self.tell("build", "names a path outside the repository, and is not taken");
                return Base::Host;
            };
            let target = build.and_then(|build| build.get("target")).and_then(Value::as_str).map(str::to_owned);
            let args = build.and_then(|build| build.get("args")).and_then(Value::as_object);
            let args = args.map(texts).unwrap_or_default();
            return Base::Dockerfile(Dockerfile { path, context, target, args });
        }
        match self.text("image").map(str::to_owned) {
            Some(reference) if is_image(&reference) => Base::Image { reference },
            Some(_) => {
                self.tell("image", "is no reference of an image, and is not taken");
                Base::Host
            }
            None => Base::Host,
        }
    }

    fn features(&mut self) -> Vec<Feature> {
        let Some(features) = self.value.get("features").and_then(Value::as_object) else { return Vec::new() };
        let mut found = Vec::new();
        for (id, options) in features.iter().take(ENTRIES_MAX) {
            let is_local = id.starts_with("./") || id.starts_with("../");
            let at = if is_local { self.rooted(id) } else { Some(id.clone()).filter(|id| is_image(id)) };
            let Some(at) = at else {
                self.tell(&format!("features.{id}"), "is neither published nor in the repository, and is not taken");
                continue;
            };
            let options = match options {
                Value::Object(options) => texts(options),
                // The short form names the version.
                Value::String(version) => BTreeMap::from([("version".to_owned(), version.clone())]),
                _ => BTreeMap::new(),
            };
            found.push(Feature { id: at, options });
        }
        found
    }

    fn commands(&mut self, key: &str) -> Vec<String> {
        let Some(value) = self.value.get(key).filter(|value| !value.is_null()) else { return Vec::new() };
        let Some(commands) = commands::lines(value) else {
            self.tell(key, "is no command, and is not taken");
            return Vec::new();
        };
        commands
    }

    fn variables(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(variables) = self.value.get(key).and_then(Value::as_object) else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (name, value) in variables.iter().take(ENTRIES_MAX) {
            // A variable that is set to null is to be taken away, and is not there.
            let Some(value) = value.as_str() else { continue };
            match replaced(value) {
                Some(value) if is_variable(name) => drop(found.insert(name.clone(), value)),
                _ => self.tell(&format!("{key}.{name}"), "needs what is known only elsewhere, and is not taken"),
            }
        }
        found
    }

    fn ports(&mut self) -> Vec<u16> {
        let Some(ports) = self.value.get("forwardPorts").and_then(Value::as_array) else { return Vec::new() };
        let mut found = Vec::new();
        for port in ports.iter().take(ENTRIES_MAX) {
            let number = match port {
                Value::String(place) => {
                    place.strip_prefix("localhost:").unwrap_or(place).parse().ok().filter(|port| *port > 0)
                }
                port => port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
            };
            match number {
                Some(port) if found.contains(&port) => {}
                Some(port) => found.push(port),
                None => self.tell("forwardPorts", &format!("has {port}, which is no port of the sandbox")),
            }
        }
        found
    }

    /// What changes the container, and is not taken.
    fn rest(&mut self) {
        let value = self.value;
        for key in value.keys().filter(|key| !READ.contains(&key.as_str()) && !PASSED_OVER.contains(&key.as_str())) {
            let why = match key.as_str() {
                "dockerComposeFile" | "service" | "runServices" => {
                    "is not supported; services belong into .hob/environment.toml"
                }
                "initializeCommand" => "runs on the machine itself, and so is not run",
                "postAttachCommand" => "is not run: nobody attaches to a sandbox",
                "hostRequirements" => "is not looked at; limits belong into .hob/environment.toml",
                "mounts" | "workspaceMount" | "runArgs" | "appPort" | "privileged" | "capAdd" | "securityOpt" => {
                    "is not supported: a sandbox has its own files, network and rights"
                }
                "workspaceFolder" => "is not looked at: the checkout is /workspace",
                _ => "is not known, and is not taken",
            };
            self.tell(key, why);
        }
    }
}

/// The texts, numbers and truths of an object, as a shell has them.
fn texts(object: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    object.iter().take(ENTRIES_MAX).filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

/// A value with its `${…}` replaced; `None` where one of them is not known inside.
fn replaced(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, later) = after.split_once('}')?;
        out.push_str(before);
        match name {
            "containerWorkspaceFolder" => out.push_str(ROOT),
            "containerWorkspaceFolderBasename" => out.push_str(ROOT.trim_start_matches('/')),
            // Of the machine's own variables none is told; the default after the second colon is.
            name => out.push_str(name.strip_prefix("localEnv:")?.split_once(':')?.1),
        }
        rest = later;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests;
