//! Images of a real registry: what is hard to unpack is right inside, and what is hostile is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;
#[path = "images/door.rs"]
mod door;
#[path = "images/house.rs"]
mod house;
#[path = "images/made.rs"]
mod made;
#[path = "images/registry.rs"]
mod registry;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use common::{Bench, ok};
use door::{Answer, Asked, Door};
use hob_sandbox::Sandbox;
use hob_sandbox::image::{Credentials, Digest, ImageReference, ImageStore, PullProgress};
use house::{House, entries, on};
use made::{INDEX, Image, Layer, MANIFEST, tools};
use registry::Registry;
use serde_json::json;
use tar::EntryType;

/// A sandbox of these layers over a shell.
async fn inside(house: &House, bench: &Bench, layers: Vec<Layer>) -> Sandbox {
    let rootfs = house.image([tools()].into_iter().chain(layers)).await;
    bench.create(on(&rootfs)).await
}

#[tokio::test]
async fn what_a_layer_hides_of_those_below_is_hidden_inside() {
    let (house, bench) = (House::new(), Bench::new().await);
    let below = Layer::new()
        .file("a/gone", 0o644, "old")
        .file("a/kept", 0o644, "old")
        .file("b/gone/deep", 0o644, "old")
        .file("c/old", 0o644, "old")
        .file("d/old", 0o644, "old")
        .file("e", 0o644, "old");
    // In whatever order the entries come, a whiteout speaks of the layers below alone.
    let above = Layer::new()
        .without("a/gone")
        .without("b/gone")
        .file("c/new", 0o644, "new")
        .opaque("c")
        .without("d")
        .file("d/new", 0o644, "new")
        .file("e", 0o644, "new")
        .without("e");
    let sandbox = inside(&house, &bench, vec![below, above]).await;
    assert_eq!(ok(&sandbox, "ls -A /a /b /c /d && cat /e").await, "/a:\nkept\n\n/b:\n\n/c:\nnew\n\n/d:\nnew\nnew");
    // What is hidden can be made anew, and what is shown can be changed.
    assert_eq!(ok(&sandbox, "echo x > /a/gone; echo y > /a/kept; cat /a/gone /a/kept").await, "x\ny");
    bench.close().await;
}

#[tokio::test]
async fn a_layer_that_hides_everything_below_stands_alone() {
    let house = House::new();
    let opaque = Layer::new().file(".wh..wh..opq", 0o644, "").file("new", 0o644, "");
    let rootfs = house.image([Layer::new().file("old", 0o644, ""), opaque]).await;
    assert_eq!(rootfs.layers.iter().map(|layer| entries(layer)).collect::<Vec<_>>(), [["new"]]);
}

#[tokio::test]
async fn owners_modes_times_and_second_names_are_as_in_the_image() {
    let (house, bench) = (House::new(), Bench::new().await);
    let layer = Layer::new()
        .folder("closed", 0o700)
        .owner(33, 44)
        .file("closed/own", 0o640, "x")
        .file("set", 0o6755, "x")
        .second_name("closed/second", "set")
        .second_name("third", "./closed/../set".trim_start_matches("./closed/../"))
        .link("to-nowhere", "/../../etc/../nowhere")
        .folder("sticky", 0o1777)
        .entry(EntryType::Fifo, b"pipe", b"", 0o622, b"");
    let sandbox = inside(&house, &bench, vec![layer]).await;
    let line = "stat -c '%n %a %u:%g %Y %h %F' /closed /closed/own /set /closed/second /sticky /pipe /to-nowhere";
    let expect = "/closed 700 0:0 1700000000 2 directory\n\
        /closed/own 640 33:44 1700000000 1 regular file\n\
        /set 6755 33:44 1700000000 3 regular file\n\
        /closed/second 6755 33:44 1700000000 3 regular file\n\
        /sticky 1777 33:44 1700000000 2 directory\n\
        /pipe 622 33:44 1700000000 1 fifo\n\
        /to-nowhere 777 33:44 1700000000 1 symbolic link";
    let lines = ok(&sandbox, line).await;
    // How many links an overlay's folder has is its own matter.
    assert_eq!(lines.replace("1700000000 1 directory", "1700000000 2 directory"), expect);
    assert_eq!(
        ok(&sandbox, "test /set -ef /third && test /set -ef /closed/second && stat -c %N /to-nowhere").await,
        "'/to-nowhere' -> '/../../etc/../nowhere'"
    );
    bench.close().await;
}

#[tokio::test]
async fn a_folder_that_a_layer_says_nothing_of_looks_as_in_the_layers_below() {
    let (house, bench) = (House::new(), Bench::new().await);
    let below = Layer::new().folder("tmp", 0o1777).owner(33, 33).folder("home", 0o711).folder("home/me", 0o700);
    let between = Layer::new().file("tmp/a", 0o644, "").file("home/me/b", 0o644, "").file("gone/deep/c", 0o644, "");
    let fresh = Layer::new().folder("fresh", 0o700).folder("gone/deep", 0o700);
    let above =
        Layer::new().file("home/me/d", 0o644, "").without("fresh").file("fresh/e", 0o644, "").file("new/f", 0o644, "");
    let sandbox = inside(&house, &bench, vec![below, fresh, between, above]).await;
    let looks = ok(&sandbox, "stat -c '%n %a %u %Y' /tmp /home /home/me /fresh /new /gone/deep").await;
    let expect = "/tmp 1777 0 1700000000\n/home 711 33 1700000000\n/home/me 700 33 1700000000\n\
        /fresh 755 0 0\n/new 755 0 0\n/gone/deep 700 0 1700000000";
    assert_eq!(looks, expect);
    assert_eq!(ok(&sandbox, "ls -A /tmp /home/me").await, "/home/me:\nb\nd\n\n/tmp:\na");
    bench.close().await;
}

#[tokio::test]
async fn odd_and_long_names_holes_and_empty_layers_are_right_inside() {
    let (house, bench) = (House::new(), Bench::new().await);
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    let names: Vec<Vec<u8>> =
        [b"odd/\xff\xfe".to_vec(), b"odd/new\nline".to_vec(), "odd/…  ".into(), b"odd/-rf".to_vec()].to_vec();
    let mut layer =
        Layer::new().folder("./odd/", 0o755).file(&long, 0o644, "long").file("/absolute//path/.", 0o644, "");
    for name in &names {
        layer = layer.pax("path", name).file("short", 0o644, "odd");
    }
    let layer = layer.pax("mtime", b"1600000000.5").file("odd/time", 0o644, "");
    let rootfs = house.image([tools(), sparse(), Layer::new(), layer, Layer::new()]).await;
    assert_eq!(rootfs.layers.len(), 4, "the two empty layers are one, and an overlay takes it once");
    let sandbox = bench.create(on(&rootfs)).await;
    assert_eq!(ok(&sandbox, &format!("cat /{long}")).await, "long");
    assert_eq!(ok(&sandbox, "ls -A -b /odd").await, "-rf\nnew\\nline\ntime\n\\342\\200\\246\\ \\ \n\\377\\376");
    assert_eq!(ok(&sandbox, "cat /odd/-rf /odd/n*; stat -c %.1Y /odd/time").await, "oddodd1600000000.5");
    let holes = ok(&sandbox, "stat -c '%s %b' /sparse").await;
    let (size, blocks) = holes.split_once(' ').unwrap();
    assert_eq!(size, (64 << 20).to_string());
    assert!(blocks.parse::<u64>().unwrap() < 100, "the holes take no room: {blocks}");
    let (start, end) = (sandbox.read_file("/sparse", 0..8).await.unwrap(), (64 << 20) - 8..64 << 20);
    assert_eq!(
        (&start[..], &sandbox.read_file("/sparse", end).await.unwrap()[..]),
        (&b"start\0\0\0"[..], &b"\0\0\0enden"[..])
    );
    bench.close().await;
}

/// How often a pull fetched something, and how often it found a layer in the store.
async fn counted(house: &House, reference: &ImageReference) -> (usize, usize) {
    let seen = Mutex::new((0, 0));
    let count = |progress| match progress {
        PullProgress::Unpacked { .. } => seen.lock().unwrap().0 += 1,
        PullProgress::Shared { .. } => seen.lock().unwrap().1 += 1,
        _ => {}
    };
    house.store.pull(reference, None, &count).await.unwrap();
    seen.into_inner().unwrap()
}

#[tokio::test]
async fn a_layer_is_fetched_once_for_all_images_and_all_who_pull_at_once() {
    let mut house = House::new();
    let shared = || Layer::new().file("shared", 0o644, "x");
    let one = Image::of([shared(), Layer::new().file("one", 0o644, "1")]).push(&house.registry, "one").await;
    let two = Image::of([shared(), Layer::new().file("two", 0o644, "2")]).push(&house.registry, "two").await;
    let (first, second, third) = tokio::join!(counted(&house, &one), counted(&house, &one), counted(&house, &two));
    assert_eq!(first.0 + second.0 + third.0, 3, "three layers");
    assert_eq!(first.1 + second.1 + third.1, 3, "each of which was found by the others");
    assert_eq!(entries(&house.images().join("layers")).len(), 3);

    // With the digest in its name an image is here without the registry, also for the next server.
    let rootfs = house.pull(&one).await.unwrap();
    house.registry.stop();
    let store = ImageStore::open(&house.images()).unwrap();
    let pinned = ImageReference::parse(&format!("{one}@{}", rootfs.digest)).unwrap();
    assert_eq!(store.pull(&pinned, None, &|_| {}).await.unwrap(), rootfs);
    let unreached = store.pull(&one, None, &|_| {}).await.unwrap_err().to_string();
    assert!(unreached.contains(&format!("reach {}", one.registry())), "{unreached}");
}

#[tokio::test]
async fn what_no_image_in_use_has_is_removed() {
    let house = House::new();
    let shared = || Layer::new().file("shared", 0o644, "x");
    let one = Image::of([shared(), Layer::new().file("one", 0o644, "1")]).push(&house.registry, "one").await;
    let two = Image::of([shared(), Layer::new().file("two", 0o644, "2")]).push(&house.registry, "two").await;
    let (kept, gone) = (house.pull(&one).await.unwrap(), house.pull(&two).await.unwrap());
    assert_eq!(house.store.remove_unused(&[kept.digest.clone()].into()).await.unwrap(), 1);
    assert_eq!(house.store.find(&kept.digest).unwrap(), Some(kept.clone()));
    assert_eq!(house.store.find(&gone.digest).unwrap(), None);
    assert_eq!(house.pull(&two).await.unwrap(), gone, "it can be had again");
    assert_eq!(house.store.remove_unused(&[].into()).await.unwrap(), 3);
    assert!(["layers", "pulled", "new"].iter().all(|part| entries(&house.images().join(part)).is_empty()));
}

#[tokio::test]
async fn what_a_killed_process_left_half_done_is_removed_and_pulled_again() {
    let house = House::new();
    let reference = Image::of([Layer::new().file("file", 0o644, "whole")]).push(&house.registry, "image").await;
    let half = house.images().join("new/1-0/root");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("file"), "ha").unwrap();
    // A layer that lost its end of the story with the power counts for nothing either.
    let store = ImageStore::open(&house.images()).unwrap();
    assert!(entries(&house.images().join("new")).is_empty());
    let rootfs = store.pull(&reference, None, &|_| {}).await.unwrap();
    assert_eq!(fs::read_to_string(rootfs.layers[0].join("file")).unwrap(), "whole");
    assert!(entries(&house.images().join("new")).is_empty(), "and the fetched blobs are gone");
    assert_eq!(entries(rootfs.layers[0].parent().unwrap()), ["layer.json", "root"]);
}

/// Pulls in a process of its own, which is this program again, and kills it when it has said so many lines.
fn kill_after(lines: usize, store: &Path, reference: &ImageReference) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "a_kill_in_the_midst_of_a_pull_leaves_nothing_half"])
        .env("HOB_TEST_PULL", format!("{reference} {}", store.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    said.filter(|line| line.starts_with("progress")).take(lines).for_each(drop);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[expect(clippy::print_stdout, reason = "the test above reads it")]
async fn pull_and_tell(text: &str) {
    let (reference, store) = text.split_once(' ').unwrap();
    let store = ImageStore::open(Path::new(store)).unwrap();
    let tell = |progress| println!("progress {progress:?}");
    store.pull(&ImageReference::parse(reference).unwrap(), None, &tell).await.unwrap();
}

#[tokio::test]
async fn a_kill_in_the_midst_of_a_pull_leaves_nothing_half() {
    if let Ok(text) = std::env::var("HOB_TEST_PULL") {
        return pull_and_tell(&text).await;
    }
    let house = House::new();
    let layer = |number: u8| {
        (0..200).fold(Layer::new(), |layer, file| layer.file(format!("{number}-{file}"), 0o644, vec![number; 9_000]))
    };
    let reference = Image::of((0..4).map(layer)).push(&house.registry, "image").await;
    for lines in [1, 2, 10, 100, 200, 300, 400, 500] {
        let folder = house.folder.path().join(format!("killed-{lines}"));
        kill_after(lines, &folder, &reference);
        let store = ImageStore::open(&folder).unwrap();
        assert!(entries(&folder.join("new")).is_empty(), "what was half done is gone after {lines} lines");
        for layer in entries(&folder.join("layers")) {
            let files = entries(&folder.join("layers").join(&layer).join("root"));
            assert_eq!(files.len(), 200, "after {lines} lines the layer {layer} is whole");
        }
        let rootfs = store.pull(&reference, None, &|_| {}).await.unwrap();
        assert_eq!(rootfs.layers.len(), 4);
        assert!(rootfs.layers.iter().all(|layer| entries(layer).len() == 200));
    }
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_leaves_nothing() {
    let house = House::new();
    let large = Layer::new().file("large", 0o644, vec![7; 8 << 20]);
    let reference = Image::of([large]).push(&house.registry, "image").await;
    let stop = tokio::sync::Notify::new();
    let on_progress = |progress| {
        if matches!(progress, PullProgress::Fetched { .. }) {
            stop.notify_one();
        }
    };
    tokio::select! {
        pulled = house.store.pull(&reference, None, &on_progress) => panic!("it was faster: {pulled:?}"),
        () = stop.notified() => {}
    }
    assert!(entries(&house.images().join("new")).is_empty());
    assert!(house.pull(&reference).await.is_ok(), "and the next one is not in its way");
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let house = House::new();
    let ours = Image::of([Layer::new().file("ours", 0o644, "")]);
    let ours = ours.push_with(&house.registry, "many:ours", |_, _| {}).await;
    let theirs = Image::of([Layer::new().file("theirs", 0o644, "")]).machine("s390x");
    let theirs = theirs.push_with(&house.registry, "many:theirs", |_, _| {}).await;
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entry = |digest: &Digest, machine| {
        let size = fs::metadata(house.registry.blob_path(digest)).unwrap().len();
        json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": size,
            "platform": {"os": "linux", "architecture": machine}})
    };
    let manifests = [entry(&theirs, "s390x"), entry(&ours, machine)];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let index = house.registry.push_manifest("many", "latest", INDEX, &index).await;
    let rootfs = house.pull(&house.registry.reference("many")).await.unwrap();
    assert_eq!((&rootfs.digest, entries(&rootfs.layers[0])), (&ours, vec!["ours".to_owned()]));
    let pinned = house.pull(&house.registry.reference(&format!("many@{index}"))).await.unwrap();
    assert_eq!(pinned, rootfs);
    assert_eq!(house.store.find(&index).unwrap(), Some(rootfs));
}

#[tokio::test]
async fn a_closed_registry_wants_the_right_credentials() {
    let house = House { registry: Registry::closed(), ..House::new() };
    let reference = Image::of([Layer::new().file("a", 0o644, "")]).push(&house.registry, "private/image:1").await;
    let known = |password: &str| Credentials { username: "somebody".to_owned(), password: password.to_owned() };
    let pull = async |known: Option<Credentials>| house.store.pull(&reference, known.as_ref(), &|_| {}).await;
    let denied = |who: &str| {
        let registry = reference.registry();
        format!("pull {reference}: {registry} refuses {who}; name credentials that may read it")
    };
    assert_eq!(pull(None).await.unwrap_err().to_string(), denied("whoever has no credentials"));
    assert_eq!(pull(Some(known("wrong"))).await.unwrap_err().to_string(), denied("\"somebody\""));
    assert_eq!(pull(Some(known("open sesame"))).await.unwrap().layers.len(), 1);
    let missing = house.registry.reference("private/other");
    let missing = house.store.pull(&missing, Some(&known("open sesame")), &|_| {}).await.unwrap_err().to_string();
    assert!(missing.contains("knows no such image"), "{missing}");
}

/// A door that wants the token which it hands out to `somebody`.
fn wants_token(asked: &Asked, address: &str) -> Answer {
    // somebody:open sesame
    let known = asked.authorization.as_deref() == Some("Basic c29tZWJvZHk6b3BlbiBzZXNhbWU=");
    let refusal = format!(
        "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"test\",scope=\"repository:image:pull\"\r\n"
    );
    match asked.path.split('?').next() {
        Some("/token") if known => Answer::Say("200 OK", String::new(), r#"{"token":"let me in"}"#.to_owned()),
        _ if asked.authorization.as_deref() == Some("Bearer let me in") => Answer::Pass,
        _ => Answer::Say("401 Unauthorized", refusal, String::new()),
    }
}

#[tokio::test]
async fn a_token_is_asked_for_once_where_the_registry_says_and_shown_from_then_on() {
    let house = House::new();
    let pushed = Image::of([Layer::new().file("a", 0o644, "x")]).push(&house.registry, "image").await;
    let door = Door::before(&pushed, wants_token).await;
    let known = |password: &str| Credentials { username: "somebody".to_owned(), password: password.to_owned() };
    let reference = door.reference("image");
    let refused = house.store.pull(&reference, Some(&known("wrong")), &|_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("refuses \"somebody\""), "{refused}");
    let before = door.asked().len();
    let rootfs = house.store.pull(&reference, Some(&known("open sesame")), &|_| {}).await.unwrap();
    assert_eq!(entries(&rootfs.layers[0]), ["a"]);
    let asked = door.asked().split_off(before);
    assert_eq!(asked[1].path, "/token?service=test&scope=repository%3Aimage%3Apull");
    assert!(asked[2..].iter().all(|asked| asked.authorization.as_deref() == Some("Bearer let me in")), "{asked:?}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_or_fails_for_a_moment_is_asked_for_again() {
    let house = House::new();
    let pushed = Image::of([Layer::new().file("a", 0o644, vec![7; 100_000])]).push(&house.registry, "image").await;
    let count = Mutex::new(0);
    let flaky = move |_: &Asked, _: &str| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count % 3 {
            1 => Answer::Say("503 Service Unavailable", String::new(), String::new()),
            2 => Answer::Cut(700),
            _ => Answer::Pass,
        }
    };
    let door = Door::before(&pushed, flaky).await;
    let rootfs = house.pull(&door.reference("image")).await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(fs::read(rootfs.layers[0].join("a")).unwrap(), vec![7; 100_000]);
}

#[tokio::test]
async fn a_sandbox_starts_from_many_layers_and_what_it_writes_is_its_own() {
    let (house, bench) = (House::new(), Bench::new().await);
    let layer =
        |number: usize| Layer::new().file("count", 0o644, number.to_string()).file(format!("{number}"), 0o644, "");
    let rootfs = house.image([tools()].into_iter().chain((1..=127).map(layer))).await;
    assert_eq!(rootfs.layers.len(), 128);
    let sandbox = bench.create(on(&rootfs)).await;
    assert_eq!(ok(&sandbox, "cat /count /1 /127; echo mine > /count; cat /count").await, "127mine");
    assert_eq!(fs::read_to_string(rootfs.layers[0].join("count")).unwrap(), "127", "the image is as it was");
    bench.close().await;
}

#[tokio::test]
async fn a_debian_is_made_of_its_packages_once() {
    assert!(rustix::process::geteuid().is_root(), "this test makes a system of packages and needs root");
    let (house, bench) = (House::new(), Bench::new().await);
    let unknown = house.store.debian("nosuchsuite").await.unwrap_err().to_string();
    assert!(unknown.starts_with("make a Debian nosuchsuite: "), "{unknown}");
    assert!(house.store.debian("../../tmp/x").await.unwrap_err().to_string().contains("a suite is a word"));
    let debian = house.store.debian("bookworm").await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(house.store.debian("bookworm").await.unwrap(), debian);
    let sandbox = bench.create(on(&debian)).await;
    assert!(ok(&sandbox, "cat /etc/os-release").await.contains("VERSION_CODENAME=bookworm"));
    assert_eq!(ok(&sandbox, "dpkg --audit; ls /etc/hostname 2>/dev/null || echo none").await, "none");
    bench.close().await;
}

#[tokio::test]
async fn an_image_without_a_shell_is_a_sandbox_too_and_says_how_it_is_to_be_run() {
    let (house, bench) = (House::new(), Bench::new().await);
    let run = json!({"Env": ["PATH=/app", "MODE=quiet"], "WorkingDir": "/app", "User": "1000"});
    let image = Image::of([Layer::new().folder("app", 0o755).file("app/data", 0o644, "x")]).run(run);
    let archive = Layer::new().file("app/more", 0o644, "y").archive();
    let reference = image.layer(archive, "zstd").push(&house.registry, "scratch").await;
    let rootfs = house.pull(&reference).await.unwrap();
    let env = [("PATH", "/app"), ("MODE", "quiet")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        (&rootfs.config.env[..], &rootfs.config.workdir[..], &rootfs.config.user[..]),
        (&env[..], "/app", "1000")
    );
    let sandbox = bench.create(on(&rootfs)).await;
    let names = sandbox.list_dir("/app").await.unwrap();
    assert_eq!(names.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["data", "more"]);
    bench.close().await;
}

/// A file of 64 MB with five bytes at each end, as `tar --sparse` packs it.
fn sparse() -> Layer {
    let layer = Layer::new();
    let mut header = layer.header(EntryType::GNUSparse, b"sparse", b"", 0o644, 10);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(64 << 20);
    for (piece, at) in gnu.sparse.iter_mut().zip([0, (64 << 20) - 5]) {
        piece.set_offset(at);
        piece.set_length(5);
    }
    layer.append(header, b"startenden")
}
