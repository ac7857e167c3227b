//! What every command works with: the global options, the terminal, the configuration, the way to the server.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::{Client, Failure, Global};
use crate::config::{Config, Environment};
use crate::render::Style;
use crate::serve::Running;

/// What every command works with.
pub struct Context {
    pub(super) global: Global,
    pub(super) environment: Environment,
}

impl Context {
    pub(super) fn new(global: Global) -> Self {
        Self { global, environment: Environment::of_this_process() }
    }

    /// Whether JSON was asked for.
    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    /// How standard output is painted.
    pub(super) fn style(&self) -> Style {
        let colour = io::stdout().is_terminal() && self.environment.get("NO_COLOR").is_none();
        if colour { Style::Colour } else { Style::Plain }
    }

    /// The configuration, as the server on this machine would read it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Config::load(self.global.config.as_deref(), &self.environment).map_err(Failure::set_up)
    }

    /// The data folder: the option, the configuration's, or the default.
    pub(super) fn data_dir(&self) -> Result<PathBuf, Failure> {
        match &self.global.data_dir {
            Some(folder) => std::path::absolute(folder).map_err(Failure::set_up),
            None => Ok(self.config()?.data_dir(&self.environment)),
        }
    }

    /// The server that runs: the one of `--server`, or the one that uses the data folder.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let data_dir = self.data_dir()?;
        let url = match &self.global.server {
            Some(url) => url.clone(),
            None => {
                Running::find(&data_dir)
                    .ok_or_else(|| {
                        let folder = data_dir.display();
                        Failure::set_up(format!(
                            "find a server that uses {folder}; start one with `hob serve`, or name it with --server"
                        ))
                    })?
                    .url
            }
        };
        self.client_of(&url)
    }

    /// A client of the server at `url`, with the token of `HOB_TOKEN` or of the data folder.
    pub(super) fn client_of(&self, url: &str) -> Result<Client, Failure> {
        let token = match self.environment.get("HOB_TOKEN") {
            Some(token) => crate::auth::Secret::new(token),
            None => crate::auth::read_token(&self.data_dir()?).map_err(|error| {
                Failure::set_up(format!("{error}; for a server elsewhere, give its token in HOB_TOKEN"))
            })?,
        };
        Client::new(url, &token, crate::git::configured_author()).map_err(Failure::from)
    }
}

/// Writes text to standard output at once.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard error: what is no result.
pub(super) fn remark(text: &str) {
    // When standard error is gone, there is nobody left to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Writes a value as JSON, indented for a person, in one line for a program.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text =
        if io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    print(&(text.map_err(Failure::set_up)? + "\n"))
}

/// Lines of columns, each as wide as its widest cell; the last one as wide as it is.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [vec!["a".into(), "bb".into(), "c".into()], vec!["aaa".into(), "b".into(), String::new()]];
        assert_eq!(super::table(&rows), "a    bb  c\naaa  b\n");
    }
}
