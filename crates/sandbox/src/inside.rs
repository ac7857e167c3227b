//! What every sandbox finds inside, whichever provider makes it: its environment, and what its root may do.

use std::collections::BTreeMap;

use hob_guest::protocol::GATEWAY_PORT;

use crate::spec::Spec;

/// What installing packages and running services needs, inside the sandbox's own namespaces.
pub(crate) const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    // Given up by the guest as soon as it has limited what can ever be had below it.
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Where a system has its programs that says nothing else.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of process 1, and so of every command; `path` is where the sandbox's system has its programs.
pub(crate) fn environment(spec: &Spec, path: &str, reaches_gateway: bool) -> BTreeMap<String, String> {
    let own = [
        ("PATH", path),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm-256color"),
    ];
    let mut env: BTreeMap<String, String> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    if reaches_gateway {
        let proxy = format!("http://127.0.0.1:{GATEWAY_PORT}");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            env.extend([(name.to_owned(), proxy.clone()), (name.to_lowercase(), proxy.clone())]);
        }
        let direct = "localhost,127.0.0.1,::1".to_owned();
        env.extend([("NO_PROXY".to_owned(), direct.clone()), ("no_proxy".to_owned(), direct)]);
        env.insert("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned());
    }
    env.extend(spec.env.clone());
    env
}
