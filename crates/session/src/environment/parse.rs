//! Reads `.hob/environment.toml`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::EnvironmentError;
use super::reader::{Section, Value, read};
use super::services::services;
use super::values::{bytes, duration, inside, is_apt, is_host, is_image, is_name, is_package, is_suite, is_variable};
use super::{Base, Dockerfile, Environment, Packages, Wants};
use crate::checks::parse::ParserKind;
use crate::checks::{CHECK_TIMEOUT, Check};
use crate::keys::distance;

const CHECKS_MAX: usize = 32;
const COMMANDS_MAX: usize = 64;
const MAX_ROUNDS_MAX: u64 = 20;
const POOL_MAX: u64 = 16;
const TIMEOUT_MAX: Duration = Duration::from_secs(6 * 60 * 60);
const SIZE_MIN: u64 = 16 << 20;

type Result<T> = std::result::Result<T, EnvironmentError>;

/// Reads the text of the file.
///
/// # Errors
/// The first thing that is wrong with it, with its place and key.
pub fn parse(text: &str) -> Result<Environment> {
    read(text, environment)
}

fn environment(top: &Section<'_>) -> Result<Environment> {
    let commands = |key| top.get(key).map_or(Ok(Vec::new()), |value: Value<'_>| value.commands(COMMANDS_MAX));
    Ok(Environment {
        base: top.get("base").map_or(Ok(Base::Host), |value| base(&value))?,
        packages: top.get("packages").map_or(Ok(Packages::default()), |value| packages(&value))?,
        setup: commands("setup")?,
        warm: commands("warm")?,
        start: commands("start")?,
        services: top.get("services").map_or(Ok(Vec::new()), |value| services(&value))?,
        env: top.get("env").map_or(Ok(Default::default()), |value| variables(&value))?,
        user: top.get("user").map(|value| user(&value)).transpose()?,
        ports: top.get("ports").map_or(Ok(Vec::new()), |value| ports(&value))?,
        secrets: top.get("secrets").map_or(Ok(Vec::new()), |value| secrets(&value))?,
        checks: top.get("checks").map(|value| checks(&value)).transpose()?,
        max_rounds: top.get("max_rounds").map(|value| max_rounds(&value)).transpose()?,
        pool: top.get("pool").map(|value| pool(&value)).transpose()?,
        egress: top.get("egress").map_or(Ok(Vec::new()), |value| egress(&value))?,
        wants: wants(top)?,
    })
}

fn base(value: &Value<'_>) -> Result<Base> {
    if value.is_table() {
        return dockerfile(&value.section()?);
    }
    let text = value.text()?;
    if text == "host" {
        return Ok(Base::Host);
    }
    if let Some(suite) = text.strip_prefix("debian:") {
        let told = || {
            let image = format!("docker.io/library/{text}");
            value.bad(format!("expected a suite, such as \"debian:bookworm\"; the image of that name is \"{image}\""))
        };
        return if is_suite(suite) { Ok(Base::Debian { suite: suite.to_owned() }) } else { Err(told()) };
    }
    let name = text.rsplit('/').next().unwrap_or(text);
    if name == "devcontainer.json" || name == ".devcontainer.json" {
        return Ok(Base::Devcontainer { path: path(value)? });
    }
    if matches!(name, "Dockerfile" | "Containerfile") || name.starts_with("Dockerfile.") {
        return Ok(Base::Dockerfile(Dockerfile { path: path(value)?, ..Dockerfile::default() }));
    }
    // A base of one word that is nearly `host` is more likely that than an image of a registry.
    if !text.contains(['/', ':']) && distance(text, "host") <= 1 {
        return Err(value.bad("did you mean \"host\"?"));
    }
    if is_image(text) {
        return Ok(Base::Image { reference: text.to_owned() });
    }
    Err(value.bad(
        "expected \"host\", \"debian:SUITE\", an image such as \"python:3.12\", or the path of a Dockerfile or a \
         devcontainer.json",
    ))
}

fn dockerfile(section: &Section<'_>) -> Result<Base> {
    let context = section.get("context");
    Ok(Base::Dockerfile(Dockerfile {
        path: path(&section.need("dockerfile")?)?,
        context: context.as_ref().map_or(Ok(String::new()), path)?,
        target: section.get("target").map(|value| value.text().map(str::to_owned)).transpose()?,
        args: section.get("args").map_or(Ok(Default::default()), |value| variables(&value))?,
    }))
}

/// A path in the repository.
pub(super) fn path(value: &Value<'_>) -> Result<String> {
    inside(value.maybe_empty()?).ok_or_else(|| value.bad("must lie in the repository"))
}

/// Variables by name.
pub(super) fn variables(value: &Value<'_>) -> Result<std::collections::BTreeMap<String, String>> {
    value.texts(is_variable, "a name of letters, digits and `_`")
}

fn packages(value: &Value<'_>) -> Result<Packages> {
    let section = value.section()?;
    let list = |key, fits: fn(&str) -> bool, expected| {
        section.get(key).map_or(Ok(Vec::new()), |value: Value<'_>| value.names(fits, expected))
    };
    Ok(Packages {
        apt: list("apt", is_apt, "a Debian package, such as \"libpq-dev\" or \"git=1:2.39*\"")?,
        pip: list("pip", is_package, "a Python package, such as \"ruff==0.5\"; options belong into a command")?,
        npm: list("npm", is_package, "a Node package, such as \"pnpm@9\"; options belong into a command")?,
        features: Vec::new(),
        commands: section.get("commands").map_or(Ok(Vec::new()), |value| value.commands(COMMANDS_MAX))?,
    })
}

fn user(value: &Value<'_>) -> Result<String> {
    let name = value.text()?;
    let fits = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if fits { Ok(name.to_owned()) } else { Err(value.bad("expected a user's name, such as \"dev\"")) }
}

fn ports(value: &Value<'_>) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for entry in value.list(64)? {
        let port = port(&entry)?;
        if ports.contains(&port) {
            return Err(entry.bad(format!("{port} is there already")));
        }
        ports.push(port);
    }
    Ok(ports)
}

/// A TCP port.
pub(super) fn port(value: &Value<'_>) -> Result<u16> {
    let port = value.whole(1..65_536)?;
    u16::try_from(port).map_err(|_| value.bad("must be from 1 to 65535"))
}

fn secrets(value: &Value<'_>) -> Result<Vec<String>> {
    value.names(is_variable, "the secret's name, of letters, digits and `_`; its value never stands here")
}

fn max_rounds(value: &Value<'_>) -> Result<u32> {
    let rounds = value.whole(0..MAX_ROUNDS_MAX + 1)?;
    u32::try_from(rounds).map_err(|_| value.bad("is too large"))
}

fn pool(value: &Value<'_>) -> Result<u32> {
    let sandboxes = value.whole(0..POOL_MAX + 1)?;
    u32::try_from(sandboxes).map_err(|_| value.bad("is too large"))
}

fn egress(value: &Value<'_>) -> Result<Vec<String>> {
    let hosts = value.names(is_host, "`host`, `host:port` or `*.host`, without a scheme")?;
    Ok(hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect())
}

fn wants(top: &Section<'_>) -> Result<Wants> {
    let whole_u32 = |value: Value<'_>| {
        let number = value.whole(16..1_000_001)?;
        u32::try_from(number).map_err(|_| value.bad("is too large"))
    };
    Ok(Wants {
        cpu_millicores: top.get("cpu").map(|value| cpu(&value)).transpose()?,
        memory_bytes: top.get("memory").map(|value| size(&value)).transpose()?,
        disk_bytes: top.get("disk").map(|value| size(&value)).transpose()?,
        processes: top.get("processes").map(whole_u32).transpose()?,
    })
}

fn cpu(value: &Value<'_>) -> Result<u32> {
    let cores = value.number()?.filter(|cores| (0.05..=1_024.0).contains(cores));
    let cores = cores.ok_or_else(|| value.bad("must be cores from 0.05 to 1024"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked above")]
    let millicores = (cores * 1_000.0).round() as u32;
    Ok(millicores)
}

fn size(value: &Value<'_>) -> Result<u64> {
    let fits = bytes(value.text()?).filter(|bytes| *bytes >= SIZE_MIN);
    fits.ok_or_else(|| value.bad("expected a size of at least 16 MiB, such as \"512 MiB\" or \"4 GiB\""))
}

/// A time limit: seconds, or a text such as `10m`.
pub(super) fn time(value: &Value<'_>, max: Duration) -> Result<Duration> {
    let time = match value.if_whole() {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => duration(value.text()?),
    };
    let fits = time.filter(|time| !time.is_zero() && *time <= max);
    let minutes = max.as_secs() / 60;
    let max = if minutes.is_multiple_of(60) { format!("{} hours", minutes / 60) } else { format!("{minutes} minutes") };
    fits.ok_or_else(|| value.bad(format!("expected 1 second to {max}, such as 90, \"90s\", \"10m\" or \"1h\"")))
}

fn checks(value: &Value<'_>) -> Result<Vec<Check>> {
    let mut names = BTreeSet::new();
    let mut checks = Vec::new();
    for entry in value.list(CHECKS_MAX)? {
        let section = entry.section()?;
        let check = check(&section)?;
        if !names.insert(check.name.clone()) {
            return Err(section.need("name")?.bad(format!("a check named {:?} is there already", check.name)));
        }
        checks.push(check);
    }
    Ok(checks)
}

fn check(section: &Section<'_>) -> Result<Check> {
    let directory = section.get("directory");
    let parser = section.get("parser").map(|value| {
        let known = || value.bad(format!("expected one of {}", ParserKind::NAMES.join(", ")));
        ParserKind::named(value.text()?).ok_or_else(known)
    });
    Ok(Check {
        name: name(&section.need("name")?)?,
        command: section.need("command")?.text()?.to_owned(),
        directory: directory.as_ref().map_or(Ok(String::new()), path)?,
        timeout: section.get("timeout").map_or(Ok(CHECK_TIMEOUT), |value| time(&value, TIMEOUT_MAX))?,
        parser: parser.transpose()?.unwrap_or(ParserKind::Auto),
        prepare: section.get("prepare").map(|value| value.text().map(str::to_owned)).transpose()?,
    })
}

/// A name of a check or a service.
pub(super) fn name(value: &Value<'_>) -> Result<String> {
    let name = value.text()?;
    if is_name(name) { Ok(name.to_owned()) } else { Err(value.bad("must have 1 to 64 characters, and no `\\``")) }
}
