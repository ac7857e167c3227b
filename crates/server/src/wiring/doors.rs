//! The engine's doors, over the gateway: one access for each session and epoch.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use hob_gateway::{AccessSpec, Gateway, HostRule, UnknownModel};
use hob_session::{Access, Doors, SessionId, Wishes};

use crate::auth::Secret;
use crate::config::Egress;

/// Where programs in a sandbox find the gateway: the guest listens there and joins every connection to the socket.
const INSIDE_URL: &str = "http://127.0.0.1:3128";

/// What sessions may add to what every sandbox may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    forge: bool,
    repositories_may_add: bool,
}

impl From<&Egress> for Policy {
    fn from(egress: &Egress) -> Self {
        Self { forge: egress.forge, repositories_may_add: egress.repositories_may_add }
    }
}

impl Policy {
    /// The rules that are granted, and words for each wish that is not.
    fn judge(self, wishes: &Wishes) -> (Vec<HostRule>, Vec<String>) {
        let forge = wishes.forge.iter().filter(|_| self.forge);
        // What a person gave as the repository's URL may be no host at all; git has said so by then.
        let mut granted: Vec<HostRule> = forge.filter_map(|host| host.parse().ok()).collect();
        let mut refused = Vec::new();
        for host in &wishes.repository {
            match host.parse() {
                Ok(rule) if self.repositories_may_add => granted.push(rule),
                Ok(_) => refused.push(format!(
                    "the repository asks to reach {host}; this server does not let repositories add hosts \
                     (egress.repositories_may_add of hob.toml)"
                )),
                Err(error) => refused.push(format!("the repository asks to reach {host}: {error}")),
            }
        }
        (granted, refused)
    }
}

/// Opens and closes accesses of the gateway.
pub struct GatewayDoors {
    gateway: Gateway,
    sockets: PathBuf,
    default_model: String,
    policy: Policy,
    open: Mutex<HashMap<SessionId, hob_gateway::Access>>,
}

impl GatewayDoors {
    /// Doors whose sockets lie in the folder `sockets`. Calls that name no model of ours go to `default_model`.
    pub fn new(gateway: Gateway, sockets: PathBuf, default_model: String, policy: Policy) -> Self {
        Self { gateway, sockets, default_model, policy, open: Mutex::default() }
    }

    fn take(&self, session: &SessionId) -> Option<hob_gateway::Access> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(session)
    }
}

/// A folder for sockets: in the data folder, or in a shorter one where their paths would not fit an address
/// (`sun_path` has 108 bytes, unix(7)).
pub fn socket_folder(data_dir: &Path) -> PathBuf {
    let folder = data_dir.join("gateway");
    // A name has at most 32 characters, beside `/` and `.sock`.
    if folder.as_os_str().len() + 38 < 108 {
        return folder;
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(data_dir.as_os_str().as_encoded_bytes());
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    std::env::temp_dir().join(format!("hob-gateway-{short}"))
}

#[async_trait]
impl Doors for GatewayDoors {
    async fn open(&self, session: &SessionId, epoch: u64) -> Result<Access, String> {
        if let Some(earlier) = self.take(session) {
            earlier.close().await;
        }
        let token = Secret::random().as_str().to_owned();
        let socket = self.sockets.join(format!("{session}.sock"));
        let spec = AccessSpec {
            session: session.to_string(),
            epoch,
            token: token.clone(),
            unix_socket: Some(socket.clone()),
            default_model: self.default_model.clone(),
            unknown_model: UnknownModel::UseDefault,
            allow: Vec::new(),
        };
        let access = self.gateway.open(spec).await.map_err(|error| error.to_string())?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone(), access);
        Ok(Access { socket, token, inside_url: INSIDE_URL.into(), base_url: self.gateway.base_url() })
    }

    async fn allow(&self, session: &SessionId, wishes: &Wishes) -> Vec<String> {
        let (granted, refused) = self.policy.judge(wishes);
        if let Some(access) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(session) {
            access.allow(granted);
        }
        refused
    }

    async fn close(&self, session: &SessionId) {
        if let Some(access) = self.take(session) {
            access.close().await;
        }
    }
}
