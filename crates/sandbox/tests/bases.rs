//! The base that is this machine: what is private on it stays so, however deep it lies and whenever it came.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Bench, LIMIT, fails, id, ok};
use hob_sandbox::{Local, LocalConfig, Provider, Token};

/// A folder deep in a shown one, gone when the test is.
struct Deep(PathBuf);

impl Deep {
    fn below(folder: &str) -> Self {
        let path = PathBuf::from(folder).join(format!("hob-test-{}", std::process::id()));
        fs::create_dir_all(path.join("a/b/c/d")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join("a/b/c/d").join(name);
        fs::write(&path, "canary-secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// As after a restart of the server: another provider on the same folder.
async fn restart(bench: &mut Bench) {
    bench.local = Local::open(LocalConfig::new(bench.data())).await.unwrap();
}

fn bases(bench: &Bench) -> BTreeSet<String> {
    let entries = fs::read_dir(bench.data().join("base")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_private_file_that_came_later_is_not_there_after_a_restart_and_old_bases_go_with_their_last_sandbox() {
    assert!(rustix::process::geteuid().is_root(), "this test writes to /usr and needs root");
    let (usr, opt) = (Deep::below("/usr/share"), Deep::below("/opt"));
    let open = usr.file("open", 0o644);
    let mut bench = Bench::new().await;
    let before = bench.sandbox("before").await;
    assert_eq!(ok(&before, &format!("cat {}", open.display())).await, "canary-secret");
    let first = bases(&bench);

    let (fresh, closed) = (opt.file("fresh", 0o600), open);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    restart(&mut bench).await;
    let after = bench.sandbox("after").await;
    for path in [&fresh, &closed] {
        fails(&after, &format!("cat {}", path.display())).await;
    }
    assert_eq!(
        ok(&after, &format!("ls -A {}/a/b/c/d {}/a/b/c/d | grep -v :", usr.0.display(), opt.0.display())).await,
        ""
    );
    let before = bench.local.attach(&id("before"), 2, Token("second".to_owned())).await.unwrap().expect("it runs on");
    assert!(first.is_subset(&bases(&bench)), "a sandbox that runs keeps what it is made of");
    assert_eq!(ok(&before, "cat /etc/machine-id; ls /etc/sudoers 2>&1 | grep -c cannot").await, "1");

    // One that is suspended is made of the new base when it comes back.
    bench.local.suspend(&id("before")).await.unwrap();
    restart(&mut bench).await;
    let again = bench.sandbox("before").await;
    fails(&again, &format!("cat {}", closed.display())).await;
    let gone = async {
        while !first.is_disjoint(&bases(&bench)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("nobody uses the first base any more");
    bench.close().await;
}
