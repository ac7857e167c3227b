//! What a sandbox has written is frozen, comes back, is shared, and is kept as long as somebody needs it.

use hob_sandbox::{Snapshot, Spec};

use crate::common::{id, ok};
use crate::house::House;

/// Everything about the workspace that a person or a program could notice; times to the second, as images keep no more.
const LOOK: &str = "cd /workspace && find . -mindepth 1 -exec stat -c '%N %F %a %u:%g %s %h %Y' {} + | sort; \
                    find . -type f -exec sha256sum {} + | sort";

/// Makes files of every kind, some owned by others, some old.
const MAKE: &str = "cd /workspace && mkdir -p deep/er .cache && echo one > deep/er/one && head -c 300000 /dev/zero > big && \
                    ln deep/er/one hard && ln -s /nowhere soft && mkfifo pipe && chmod 4755 big && touch -d @1 deep/er && \
                    echo kept > .cache/ignored && chown 12:34 deep && chown -h 5:6 soft && echo x > \"odd \\\"name\\\" $(printf '\\n')\"";

async fn snapshot(house: &House, name: &str) -> Snapshot {
    house.provider().snapshot(&id(name)).await.unwrap_or_else(|error| panic!("failed to {error}"))
}

pub async fn files_of_every_kind_come_back_from_a_snapshot(house: &mut House) {
    let sandbox = house.sandbox("back").await;
    ok(&sandbox, MAKE).await;
    let before = ok(&sandbox, LOOK).await;
    let taken = snapshot(house, "back").await;
    assert_eq!(sandbox.closed().await, "a snapshot of it was taken");
    assert!(taken.bytes >= 300_000 && taken.entries > 8 && !taken.layers.is_empty(), "{taken:?}");
    let again = house.sandbox("back").await;
    assert_eq!(ok(&again, LOOK).await, before);
    assert_eq!(again.lost(), None);
}

pub async fn a_fork_goes_on_from_a_snapshot_and_neither_sees_the_other(house: &mut House) {
    let sandbox = house.sandbox("one").await;
    ok(&sandbox, &format!("{MAKE}; echo installed > /usr/tool; rm /usr/bin/wc")).await;
    let taken = snapshot(house, "one").await;
    let fork = house.create(Spec { layers: taken.layers, ..house.spec("two") }).await;
    let one = house.sandbox("one").await;
    assert_eq!(ok(&fork, LOOK).await, ok(&one, LOOK).await);
    assert_eq!(ok(&fork, "cat /usr/tool; ls /usr/bin/wc 2>&1 | grep -c 'No such'").await, "installed\n1");
    ok(&fork, "echo fork > /workspace/deep/er/one; rm -r /workspace/.cache").await;
    assert_eq!(ok(&one, "cat /workspace/deep/er/one /workspace/.cache/ignored").await, "one\nkept");
}

pub async fn snapshots_of_snapshots_keep_what_each_has_added(house: &mut House) {
    let mut layers = Vec::new();
    for round in 1..=3 {
        let sandbox = house.sandbox("chain").await;
        ok(&sandbox, &format!("echo {round} > /workspace/{round}; rm -f /workspace/$(({round} - 2))")).await;
        layers = snapshot(house, "chain").await.layers;
    }
    assert_eq!(snapshot(house, "chain").await.layers, layers, "a second snapshot of the same adds nothing");
    let fork = house.create(Spec { layers, ..house.spec("fork") }).await;
    assert_eq!(ok(&fork, "ls /workspace").await, "2\n3");
}

pub async fn layers_stay_as_long_as_a_sandbox_or_a_pin_needs_them(house: &mut House) {
    let sandbox = house.sandbox("origin").await;
    ok(&sandbox, "echo kept > /workspace/kept").await;
    let layers = snapshot(house, "origin").await.layers;
    let fork = house.create(Spec { layers: layers.clone(), ..house.spec("fork") }).await;
    house.provider().destroy(&id("origin")).await.unwrap();
    assert_eq!(ok(&fork, "cat /workspace/kept").await, "kept");
    house.provider().pin(&id("image"), &layers).await.unwrap();
    house.provider().destroy(&id("fork")).await.unwrap();
    house.open_again().await;
    let next = house.create(Spec { layers: layers.clone(), ..house.spec("next") }).await;
    assert_eq!(ok(&next, "cat /workspace/kept").await, "kept");
    house.provider().destroy(&id("next")).await.unwrap();
    house.provider().unpin(&id("image")).await.unwrap();
    house.provider().unpin(&id("image")).await.unwrap();
    let late = house.provider().create(Spec { layers: layers.clone(), ..house.spec("late") }).await;
    let told = late.unwrap_err().to_string();
    assert!(told.contains(layers[0].as_str()), "{told}");
    assert!(house.provider().pin(&id("image"), &layers).await.is_err());
    assert_eq!(house.left(&id("origin")), Vec::<String>::new());
}
