//! `hob repo`: the repositories that sessions were made for.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::json;

use super::context::{print, print_json, table};
use super::{Context, Failure};
use crate::api::SessionPage;
use crate::render::style::{clean, counted};

#[derive(Debug, Subcommand)]
pub(super) enum Repo {
    /// List the repositories that sessions were made for
    List,
}

impl Repo {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let mut sessions = BTreeMap::<String, u64>::new();
        let mut path = "/api/v1/sessions?limit=200".to_owned();
        loop {
            let page: SessionPage = client.get(&path).await?;
            for session in page.sessions {
                *sessions.entry(session.repository).or_default() += 1;
            }
            let Some(next) = page.next else { break };
            path = format!("/api/v1/sessions?limit=200&cursor={}", super::session::escaped(&next));
        }
        if context.json() {
            let list: Vec<_> = sessions
                .iter()
                .map(|(repository, count)| json!({ "repository": repository, "sessions": count }))
                .collect();
            return print_json(&list);
        }
        let rows: Vec<_> =
            sessions.iter().map(|(repository, count)| vec![clean(repository), counted(*count, "session")]).collect();
        print(&table(&rows))
    }
}
