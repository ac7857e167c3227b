//! The configuration of an image: how its programs are to be run, and which layers it is made of.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::manifest::printable;

/// What an image says about the programs in it. Whoever starts them decides what of it to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// The folder in which its programs start; empty for `/`.
    pub workdir: String,
    /// The user, with or without a group, by name or number; empty for root.
    pub user: String,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<RawRun>,
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    user: Option<String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads a configuration: what it says of running, and the digests of the unpacked layers, bottom first.
    pub(super) fn read(bytes: &[u8], machine: &str) -> Result<(Self, Vec<Digest>), String> {
        let raw: RawConfig =
            serde_json::from_slice(bytes).map_err(|error| format!("its configuration cannot be read: {error}"))?;
        if raw.os != "linux" || raw.architecture != machine {
            let (os, architecture) = (printable(&raw.os), printable(&raw.architecture));
            return Err(format!("it is for {os}/{architecture}, and this machine is linux/{machine}"));
        }
        let run = raw.config.unwrap_or_default();
        let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let is_usable =
            |(name, value): &(String, String)| !name.is_empty() && !name.contains('\0') && !value.contains('\0');
        let env = run.env.unwrap_or_default().iter().filter_map(pair).filter(is_usable).collect();
        let config = Self { env, workdir: run.working_dir.unwrap_or_default(), user: run.user.unwrap_or_default() };
        Ok((config, raw.rootfs.diff_ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_configuration_says_how_to_run_and_for_which_machine_it_is() {
        let text = |machine: &str, run: &str| {
            format!(
                r#"{{"architecture":"{machine}","os":"linux","config":{run},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
            )
        };
        let run = r#"{"Env":["PATH=/bin","EMPTY=","broken","A=b=c"],"WorkingDir":"/srv","User":"www:www"}"#;
        let (config, ids) = ImageConfig::read(text("amd64", run).as_bytes(), "amd64").unwrap();
        let pairs = [("PATH", "/bin"), ("EMPTY", ""), ("A", "b=c")];
        assert_eq!(config.env, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((config.workdir.as_str(), config.user.as_str(), ids.len()), ("/srv", "www:www", 1));
        assert!(ImageConfig::read(text("amd64", "null").as_bytes(), "amd64").is_ok());
        let error = ImageConfig::read(text("s390x", "null").as_bytes(), "amd64").unwrap_err();
        assert_eq!(error, "it is for linux/s390x, and this machine is linux/amd64");
    }
}
