//! A repository's environment, for a person and for a program.

use hob_session::environment::{Base, Described, Environment, Service, Wants};
use serde_json::{Value, json};

use super::super::context::table;
use crate::render::Style;
use crate::render::style::{clean, first_line};

/// What a person reads.
pub(super) fn text(style: Style, described: &Described, notices: &[String]) -> String {
    let environment = &described.environment;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let from = if described.sources.is_empty() { "no file; detected".to_owned() } else { described.sources.join(", ") };
    add(&mut rows, "read from", [from]);
    add(&mut rows, "base", [base(&environment.base)]);
    add(&mut rows, "packages", packages(environment));
    add(&mut rows, "setup", environment.setup.iter().cloned());
    add(&mut rows, "warm", environment.warm.iter().cloned());
    add(&mut rows, "start", environment.start.iter().cloned());
    add(&mut rows, "env", environment.env.iter().map(|(name, value)| format!("{name}={value}")));
    add(&mut rows, "services", environment.services.iter().map(service));
    let checks = described.checks.iter().map(|check| match check.directory.as_str() {
        "" => format!("{}: {}", check.name, check.command),
        directory => format!("{}: {} (in {directory})", check.name, check.command),
    });
    let none = "none; nothing proves the work of an agent".to_owned();
    add(&mut rows, "checks", checks.chain(described.checks.is_empty().then_some(none)));
    add(&mut rows, "egress", environment.egress.iter().cloned());
    add(&mut rows, "secrets", environment.secrets.iter().cloned());
    add(&mut rows, "user", environment.user.clone());
    add(&mut rows, "ports", environment.ports.iter().map(u16::to_string));
    add(&mut rows, "pool", environment.pool.map(|count| format!("{count} kept warm")));
    add(&mut rows, "limits", limits(&environment.wants));
    let mut text = table(&rows);
    for problem in &described.problems {
        text.push_str(&format!("{} {}\n", style.red("✗"), clean(problem)));
    }
    for notice in described.notices.iter().chain(notices) {
        text.push_str(&format!("{} {}\n", style.yellow("!"), clean(notice)));
    }
    text
}

/// A row for each value; the first one has the name.
fn add(rows: &mut Vec<Vec<String>>, name: &str, values: impl IntoIterator<Item = String>) {
    for (at, value) in values.into_iter().enumerate() {
        rows.push(vec![if at == 0 { name.to_owned() } else { String::new() }, first_line(&value)]);
    }
}

fn base(base: &Base) -> String {
    match base {
        Base::Host => "this machine's own system".to_owned(),
        Base::Debian { suite } => format!("Debian {suite}"),
        Base::Image { reference } => format!("the image {reference}"),
        Base::Dockerfile(file) => format!("built from {}", file.path),
        Base::Devcontainer { path } => path.clone(),
    }
}

fn packages(environment: &Environment) -> Vec<String> {
    let packages = &environment.packages;
    let features: Vec<String> = packages.features.iter().map(|feature| feature.id.clone()).collect();
    let lists = [("apt", &packages.apt), ("pip", &packages.pip), ("npm", &packages.npm), ("features", &features)];
    let named = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let named = named.map(|(name, list)| format!("{name}: {}", list.join(", ")));
    named.chain(packages.commands.iter().cloned()).collect()
}

fn service(service: &Service) -> String {
    let mut how = Vec::new();
    how.extend(service.port.map(|port| format!("port {port}")));
    how.extend(service.ready.as_ref().map(|line| format!("ready by `{}`", first_line(line))));
    how.push(format!("within {} s", service.ready_within.as_secs()));
    if !service.after.is_empty() {
        how.push(format!("after {}", service.after.join(", ")));
    }
    format!("{}: {} ({})", service.name, first_line(&service.command), how.join(", "))
}

fn limits(wants: &Wants) -> Option<String> {
    let mib = |bytes: u64, of: &str| format!("{} MiB of {of}", bytes >> 20);
    let said = [
        wants.cpu_millicores.map(|millicores| format!("{} cores", f64::from(millicores) / 1_000.0)),
        wants.memory_bytes.map(|bytes| mib(bytes, "memory")),
        wants.disk_bytes.map(|bytes| mib(bytes, "disk")),
        wants.processes.map(|processes| format!("{processes} processes")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// What a program reads.
pub(super) fn json(described: &Described, notices: &[String]) -> Value {
    let environment = &described.environment;
    let services = environment.services.iter().map(|service| {
        json!({
            "name": service.name, "command": service.command, "directory": service.directory, "port": service.port,
            "ready": service.ready, "ready_within_s": service.ready_within.as_secs(), "after": service.after,
            "env": service.env,
        })
    });
    let checks = described.checks.iter().map(|check| {
        json!({
            "name": check.name, "command": check.command, "directory": check.directory,
            "timeout_s": check.timeout.as_secs(), "parser": check.parser, "prepare": check.prepare,
        })
    });
    json!({
        "sources": described.sources,
        "base": environment.base,
        "packages": environment.packages,
        "setup": environment.setup,
        "warm": environment.warm,
        "start": environment.start,
        "env": environment.env,
        "services": services.collect::<Vec<_>>(),
        "checks": checks.collect::<Vec<_>>(),
        "egress": environment.egress,
        "secrets": environment.secrets,
        "user": environment.user,
        "ports": environment.ports,
        "pool": environment.pool,
        "limits": {
            "cpu_millicores": environment.wants.cpu_millicores, "memory_bytes": environment.wants.memory_bytes,
            "disk_bytes": environment.wants.disk_bytes, "processes": environment.wants.processes,
        },
        "problems": described.problems,
        "notices": described.notices.iter().chain(notices).collect::<Vec<_>>(),
    })
}
