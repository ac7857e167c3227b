//! Images: what sessions start from, built ahead by real commands in real sandboxes.

use std::time::Duration;

use futures_util::TryStreamExt;
use hob_session::event::{EventKind, PhaseStatus};
use hob_session::{NewImage, SessionId, State};

use crate::house::{House, LIMIT, git};
use crate::turns::fix;

/// An environment whose every step leaves a mark, and counts how often it ran.
const MARKS: &str = "setup = 'echo set up > /root/setup; date +%s%N > /root/when'\n\
    warm = ['test -e /root/setup', 'echo built by $(cat calc.py | wc -l) lines > built.txt; echo x >> .gitignore']\n\
    [packages]\ncommands = ['echo installed > /opt/installed']\n[env]\nDOOR = 'green'\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_starts_from_what_its_environment_has_built() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&id, "cat /opt/installed /root/setup built.txt").await, "installed\nset up\nbuilt by 2 lines");
    assert_eq!(
        phases(&house, &id).await,
        ["queue", "workspace", "packages", "setup", "clone", "warm", "image", "sandbox", "sync"]
    );

    // What the warm-up left behind is nobody's change.
    assert_eq!(house.sh(&id, "git status --porcelain; git branch --show-current | cut -c1-4").await, "hob/");
    assert_eq!(house.engine.diff(&id).await.unwrap(), "");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_session_starts_from_the_same_image_and_from_the_newest_commit() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    let made = house.sh(&first, "cat /root/when").await;
    std::fs::write(house.repo().join("calc.py"), "# Newer.\n").unwrap();
    git(&house.repo(), &["commit", "--quiet", "--all", "-m", "Newer"]);

    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat /root/when").await, made);
    assert_eq!(phases(&house, &second).await, ["queue", "workspace", "image", "sandbox", "sync"]);
    assert_eq!(
        house.sh(&second, "cat calc.py; git log --format=%s; cat built.txt; git status --porcelain").await,
        "# Newer.\nNewer\nAnother environment\nA calculator\nbuilt by 2 lines"
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_environment_is_built_from_the_layer_that_changed() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    let made = house.sh(&first, "cat /root/when").await;
    house.environment(&MARKS.replace("built by", "compiled by"));
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat built.txt /root/when").await, format!("compiled by 2 lines\n{made}"));
    assert_eq!(phases(&house, &second).await[2..5], ["clone", "warm", "image"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_fails_is_told_and_the_session_starts_without_it() {
    let house = House::new(fix()).await;
    house.environment("warm = ['echo made > made.txt', 'echo no such wombat >&2; exit 3']\n");
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&id, "cat calc.py | head -1; ls made.txt 2>&1 | wc -l").await, "def add(a, b):\n1");
    let told = house.notices(&id).await;
    assert!(told.contains("`echo no such wombat >&2; exit 3` ended with exit code 3: no such wombat"), "{told}");
    assert!(told.contains("without what the warm-up would have made"), "{told}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_image_fails_the_last_good_one_is_used_and_said() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&first, State::Idle).await;
    house.environment(&MARKS.replace("echo set up", "false; exit 7"));
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat /root/setup; git log -1 --format=%s").await, "set up\nAnother environment");
    let told = house.notices(&second).await;
    assert!(told.contains("ended with exit code 7") && told.contains("starts from the one before it"), "{told}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_image_the_session_fails_and_says_what_failed() {
    let house = House::new(fix()).await;
    house.environment("[packages]\ncommands = ['echo the package is gone >&2; exit 100']\n");
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    let failed = house.state(&id, State::Failed).await;
    let EventKind::StateChanged { cause, .. } = failed.kind else { panic!() };
    assert!(cause.contains("exit code 100: the package is gone"), "{cause}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_what_is_being_built_waits_for_the_same_building() {
    let house = House::new(fix()).await;
    house.environment("setup = 'until test -e /tmp/go; do sleep 0.05; touch /tmp/go; done; echo made once'\n");
    let new = NewImage { repository: house.repo().display().to_string(), ..NewImage::default() };
    let (one, other) = tokio::join!(house.engine.build_image(new.clone()), house.engine.build_image(new));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.image_id, other.image_id);
    let session = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&session, State::Idle).await;
    assert_eq!(log(&house, &one.image_id).await.matches("] $ until").count(), 1);
    assert_eq!(house.engine.images(None).len(), 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_has_moved_on_is_built_again_on_top_of_what_is_there() {
    let house = House::with(fix(), |config| config.images.rebuild_every = Duration::from_millis(200)).await;
    house.environment("setup = 'date +%s%N > /root/when'\nwarm = 'cat calc.py >> built.log'\n");
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    let made = house.sh(&first, "cat /root/when").await;
    std::fs::write(house.repo().join("calc.py"), "# Newer.\n").unwrap();
    git(&house.repo(), &["commit", "--quiet", "--all", "-m", "Newer"]);
    let newer = git(&house.repo(), &["rev-parse", "HEAD"]);

    let renewed = async {
        loop {
            let images = house.engine.images(None);
            if let [image] = images.as_slice()
                && image.commit == newer
                && image.is_ready()
            {
                return image.image_id.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let renewed = tokio::time::timeout(LIMIT, renewed).await;
    let image_id = renewed.unwrap_or_else(|_| panic!("not one that is renewed: {:?}", house.engine.images(None)));
    assert!(log(&house, &image_id).await.contains("on top of image"));
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    let expect = format!("{made}\ndef add(a, b):\n    return a - b\n# Newer.");
    assert_eq!(house.sh(&second, "cat /root/when built.log").await, expect);
    // The session that stands on the old image has all its files.
    assert_eq!(house.sh(&first, "cat /root/when").await, made);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_torn_is_made_anew() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&first, State::Idle).await;
    let image = house.engine.images(None).remove(0);
    let layer = house.layer(image.layers.last().unwrap());
    std::fs::remove_file(layer.join("verified")).unwrap();
    std::fs::write(layer.join("tree/opt/installed"), "torn\n")
        .or_else(|_| std::fs::write(layer.join("tree/root/opt/installed"), "torn\n"))
        .unwrap();
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat /opt/installed").await, "installed");
    assert!(house.notices(&second).await.contains("is made anew"), "{}", house.timeline(&second).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_cannot_send_the_server_to_a_registry_of_its_own() {
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    registry.set_nonblocking(true).unwrap();
    let house = House::new(fix()).await;
    house.environment(&format!("base = '{}/inside:latest'\n", registry.local_addr().unwrap()));
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    let failed = house.state(&id, State::Failed).await;
    let EventKind::StateChanged { cause, .. } = failed.kind else { panic!() };
    assert!(cause.contains("is none of the registries that this server pulls from"), "{cause}");
    let asked = registry.accept().map(drop);
    assert_eq!(asked.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody knocked");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_holds_no_commit_of_another_session() {
    let house = House::new(fix()).await;
    let first = house.session("@@script:note@@").await;
    house.turn_ended(&first, 1).await;
    let commit = house.get(&first).await.commit.unwrap();
    assert_eq!(house.sh(&first, &format!("git cat-file -t {commit}")).await, "commit");
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    let base = house.sh(&second, "git rev-parse HEAD").await;
    assert_eq!(house.sh(&second, &format!("git cat-file -t {base}")).await, "commit");
    assert_eq!(house.sh(&second, &format!("git cat-file -t {commit} 2>&1 | head -1 | cut -c1-6")).await, "fatal:");
    assert_eq!(house.sh(&second, "git for-each-ref --format='%(refname)' | grep -c hob/").await, "1", "its own");
    house.close().await;
}

/// The whole log of an image that is built.
async fn log(house: &House, image_id: &str) -> String {
    let pieces: Vec<_> = house.engine.image_log(image_id, 0, true).await.unwrap().try_collect().await.unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

/// The phases that have ended, in order.
pub async fn phases(house: &House, id: &SessionId) -> Vec<String> {
    let ended = house.log(id).await.into_iter().filter_map(|event| match event.kind {
        EventKind::Phase { name, status: PhaseStatus::Ended, .. } if name != "agent" => Some(name),
        _ => None,
    });
    ended.collect()
}
