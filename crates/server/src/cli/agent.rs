//! `hob agent`: which agents there are.

use clap::Subcommand;
use hob_session::BUILT_IN;
use serde_json::json;

use super::context::{print, print_json, table};
use super::{Context, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// List agents
    List,
}

impl Agent {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let version = env!("CARGO_PKG_VERSION");
        if context.json() {
            return print_json(&[json!({ "name": BUILT_IN, "version": version, "installed": true })]);
        }
        print(&table(&[vec![BUILT_IN.into(), version.into(), "built in".into()]]))
    }
}
