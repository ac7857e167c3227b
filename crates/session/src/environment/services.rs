//! Reads the services of an environment file, and says in which order they can start.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::EnvironmentError;
use super::parse::{name, path, port, time, variables};
use super::reader::{Section, Value};
use super::{READY_WITHIN, Service};

const SERVICES_MAX: usize = 16;
const READY_WITHIN_MAX: Duration = Duration::from_secs(30 * 60);

type Result<T> = std::result::Result<T, EnvironmentError>;

pub(super) fn services(value: &Value<'_>) -> Result<Vec<Service>> {
    let entries = value.list(SERVICES_MAX)?;
    let sections = entries.iter().map(Value::section).collect::<Result<Vec<_>>>()?;
    let services = sections.iter().map(service).collect::<Result<Vec<_>>>()?;
    for (at, section) in sections.iter().enumerate() {
        unique(section, &services, at)?;
        known_after(section, &services)?;
    }
    if let Err(at) = order(&services) {
        let (service, section) = (&services[at], &sections[at]);
        let cycle = format!("{} waits for itself, by way of {}", service.name, service.after.join(", "));
        return Err(section.need("after")?.bad(cycle));
    }
    Ok(services)
}

fn service(section: &Section<'_>) -> Result<Service> {
    let directory = section.get("directory");
    let after = section.get("after").map_or(Ok(Vec::new()), |value| value.names(|_| true, "a service"));
    Ok(Service {
        name: name(&section.need("name")?)?,
        command: section.need("command")?.text()?.to_owned(),
        directory: directory.as_ref().map_or(Ok(String::new()), path)?,
        ready: section.get("ready").map(|value| value.text().map(str::to_owned)).transpose()?,
        port: section.get("port").map(|value| port(&value)).transpose()?,
        after: after?,
        ready_within: section.get("ready_within").map_or(Ok(READY_WITHIN), |value| time(&value, READY_WITHIN_MAX))?,
        env: section.get("env").map_or(Ok(BTreeMap::new()), |value| variables(&value))?,
    })
}

/// Neither its name nor its port belongs to a service before it.
fn unique(section: &Section<'_>, services: &[Service], at: usize) -> Result<()> {
    let (before, service) = (&services[..at], &services[at]);
    if before.iter().any(|other| other.name == service.name) {
        return Err(section.need("name")?.bad(format!("a service named {:?} is there already", service.name)));
    }
    match service.port.and_then(|port| before.iter().find(|other| other.port == Some(port))) {
        Some(other) => Err(section.need("port")?.bad(format!("{} listens there already", other.name))),
        None => Ok(()),
    }
}

fn known_after(section: &Section<'_>, services: &[Service]) -> Result<()> {
    let Some(after) = section.get("after") else { return Ok(()) };
    let is_known = |name: &str| services.iter().any(|service| service.name == name);
    after.names(is_known, "the name of another service").map(drop)
}

/// The order in which services start: each after those that it needs, and otherwise as they stand.
///
/// # Errors
/// One of those that wait for each other, by its place.
pub(super) fn order(services: &[Service]) -> std::result::Result<Vec<usize>, usize> {
    let mut order: Vec<usize> = Vec::new();
    while order.len() < services.len() {
        let started = |name: &String| order.iter().any(|at| services[*at].name == *name);
        let waits = |at: &usize| !order.contains(at);
        let can_start = |at: &usize| services[*at].after.iter().all(started);
        match (0..services.len()).find(|at| waits(at) && can_start(at)) {
            Some(next) => order.push(next),
            None => return Err((0..services.len()).find(waits).unwrap_or_default()),
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(name: usize, after: &[usize]) -> Service {
        Service {
            name: name.to_string(),
            command: "true".to_owned(),
            directory: String::new(),
            ready: None,
            port: None,
            after: after.iter().map(usize::to_string).collect(),
            ready_within: READY_WITHIN,
            env: BTreeMap::new(),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_needed_starts_before(edges in prop::collection::vec((0..8_usize, 0..8_usize), 0..12)) {
            let after = |at: usize| edges.iter().filter(|edge| edge.0 == at).map(|edge| edge.1).collect::<Vec<_>>();
            let services: Vec<Service> = (0..8).map(|at| service(at, &after(at))).collect();
            match order(&services) {
                Ok(order) => {
                    let place = |at: usize| order.iter().position(|other| *other == at).unwrap();
                    prop_assert!(edges.iter().all(|(at, needs)| place(*needs) < place(*at)));
                    prop_assert_eq!(order.len(), services.len());
                }
                // Whoever follows what it needs comes back to where they were.
                Err(at) => {
                    let mut reached = after(at);
                    for _ in 0..8 {
                        reached = reached.iter().flat_map(|at| after(*at).into_iter().chain([*at])).collect();
                        reached.sort_unstable();
                        reached.dedup();
                    }
                    prop_assert!(reached.iter().any(|at| after(*at).iter().any(|needs| reached.contains(needs))));
                }
            }
        }
    }
}
