//! Attacks by an image: whoever pushed it wants to write outside its folder, fill the machine, or show other files than
//! were checked. `docs/threat-model.md` names each of them.

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
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use common::{Bench, ok, spec};
use door::{Answer, Asked, Door};
use hob_sandbox::image::{Credentials, Digest, ImageLimits, ImageReference};
use hob_sandbox::{Base, Provider, Spec};
use house::{House, entries, on};
use made::{INDEX, Image, Layer, tools};
use serde_json::json;
use tar::EntryType;

#[track_caller]
fn says(refusal: &str, expect: &str) {
    assert!(refusal.contains(expect), "{refusal:?} says nothing of {expect:?}");
}

#[tokio::test]
async fn a_path_with_dots_does_not_lead_out_of_the_layer() {
    let house = House::new();
    for path in ["../escaped", "a/../../escaped", "../../../../../../../tmp/escaped", "a/..", ".."] {
        says(&house.refusal(Layer::new().file(path, 0o644, "x")).await, "leads out of its folder");
        says(&house.refusal(Layer::new().folder(path, 0o755)).await, "leads out of its folder");
        says(&house.refusal(Layer::new().pax("path", path.as_bytes()).file("good", 0o644, "x")).await, "leads out");
    }
    says(&house.refusal(Layer::new().file(".wh...", 0o644, "")).await, "hides what is no name");
    says(&house.refusal(Layer::new().without("../images")).await, "leads out of its folder");
}

#[tokio::test]
async fn an_absolute_path_is_below_the_layers_own_root() {
    let house = House::new();
    let name = format!("hob-test-absolute-{}", std::process::id());
    let rootfs = house.image([Layer::new().file(format!("/tmp/{name}"), 0o644, "x")]).await;
    assert_eq!(entries(&rootfs.layers[0].join("tmp")), [name.as_str()]);
    assert!(!std::path::Path::new("/tmp").join(name).exists());
}

#[tokio::test]
async fn a_link_of_the_layer_is_not_followed_while_it_is_unpacked() {
    let house = House::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    fs::write(outside.path().join("file"), "untouched").unwrap();
    let as_folder = "is a folder in one entry and something else in another";
    for link in [target, "../../../../../../../../../tmp", "."] {
        let linked = || Layer::new().folder("in", 0o755).link("in/link", link);
        says(&house.refusal(linked().file("in/link/deeper/file", 0o644, "x")).await, "leads through a link");
        says(&house.refusal(linked().file("in/link/file", 0o644, "x")).await, as_folder);
        says(&house.refusal(linked().folder("in/link", 0o777)).await, as_folder);
        says(&house.refusal(linked().without("in/link/file")).await, as_folder);
        says(&house.refusal(linked().opaque("in/link")).await, as_folder);
        says(&house.refusal(linked().second_name("in/second", "in/link/file")).await, as_folder);
    }
    // A file in the place of a link replaces the link, and not what it leads to.
    let file = format!("{target}/file");
    let rootfs = house.image([Layer::new().link("link", &file).file("link", 0o600, "own")]).await;
    assert_eq!(fs::read_to_string(rootfs.layers[0].join("link")).unwrap(), "own");
    let kept = fs::metadata(&file).unwrap();
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), kept.permissions().mode() & 0o777), ("untouched", 0o644));
    assert_eq!(entries(outside.path()), ["file"]);
}

#[tokio::test]
async fn a_hard_link_does_not_reach_a_file_outside() {
    let house = House::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let path = outside.path().to_str().unwrap();
    for target in [path, "/etc/passwd", "etc/honest", "", "."] {
        says(&house.refusal(Layer::new().second_name("mine", target)).await, "that the layer does not have");
    }
    says(
        &house.refusal(Layer::new().second_name("mine", "../../../../../etc/passwd")).await,
        "leads out of its folder",
    );
    says(&house.refusal(Layer::new().folder("f", 0o755).second_name("mine", "f")).await, "a second name of a folder");
    // A second name of a link is the link, and a write to it stays a write to the layer.
    let layer = Layer::new().link("link", path).second_name("mine", "link").file("mine", 0o644, "own");
    let rootfs = house.image([layer]).await;
    assert_eq!(fs::read_link(rootfs.layers[0].join("link")).unwrap(), outside.path());
    assert_eq!(fs::read_to_string(path).unwrap(), "");
}

#[tokio::test]
async fn devices_are_left_out_and_said_to_be() {
    let house = House::new();
    let layer =
        Layer::new().device("dev/mem", 1, 1).device("hidden", 0, 0).device("sda", 8, 0).file("dev/x", 0o644, "");
    let rootfs = house.image([Layer::new().file("hidden", 0o644, "seen"), layer]).await;
    assert_eq!(
        (entries(&rootfs.layers[0]), entries(&rootfs.layers[0].join("dev"))),
        (vec!["dev".to_owned()], vec!["x".to_owned()])
    );
    assert_eq!(rootfs.notes, ["3 devices were left out; a sandbox has its own"]);
}

#[tokio::test]
async fn marks_that_the_overlay_would_obey_are_not_kept() {
    let house = House::new();
    let mut layer = Layer::new();
    for (name, value) in [("user.overlay.redirect", "/etc"), ("user.overlay.opaque", "y"), ("user.note", "kept")] {
        layer = layer.pax(&format!("SCHILY.xattr.{name}"), value.as_bytes()).folder(name, 0o755);
    }
    let capability = layer.pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02").file("capable", 0o755, "");
    let rootfs = house.image([capability]).await;
    let attributes = |name: &str| {
        let mut names = [0; 256];
        let length = rustix::fs::listxattr(rootfs.layers[0].join(name), &mut names).unwrap();
        String::from_utf8(names[..length].to_vec()).unwrap()
    };
    assert_eq!(["user.overlay.redirect", "user.overlay.opaque", "capable"].map(attributes).concat(), "");
    assert_eq!(attributes("user.note"), "user.note\0");
}

#[tokio::test]
async fn entries_that_contradict_each_other_do_not_replace_folders() {
    let house = House::new();
    let contradiction = "is a folder in one entry and something else in another";
    says(&house.refusal(Layer::new().folder("a", 0o755).file("a", 0o644, "x")).await, contradiction);
    says(&house.refusal(Layer::new().folder("a/b", 0o755).link("a", "/etc")).await, contradiction);
    says(&house.refusal(Layer::new().file("a", 0o644, "x").file("a/b", 0o644, "x")).await, contradiction);
    says(&house.refusal(Layer::new().file("a", 0o644, "x").folder("a", 0o755)).await, contradiction);
    says(
        &house.refusal(Layer::new().entry(EntryType::Regular, b"/", b"", 0o644, b"x")).await,
        "replaces the top folder",
    );
    says(&house.refusal(Layer::new().file(".wh.a/b", 0o644, "x")).await, "lies below a whiteout");
    let rootfs = house.image([Layer::new().file("a", 0o600, "first").file("a", 0o644, "second")]).await;
    assert_eq!(fs::read_to_string(rootfs.layers[0].join("a")).unwrap(), "second", "the later one counts");
}

#[tokio::test]
async fn names_without_measure_are_refused() {
    let house = House::new();
    says(&house.refusal(Layer::new().file("x".repeat(256), 0o644, "")).await, "longer path than the kernel takes");
    says(&house.refusal(Layer::new().file("xy/".repeat(2_000), 0o644, "")).await, "longer path than the kernel takes");
    says(&house.refusal(Layer::new().folder("d/".repeat(257), 0o755)).await, "deeper than 256 folders");
    says(&house.refusal(Layer::new().link("a", &"x".repeat(5_000))).await, "a link whose target cannot be");
    says(&house.refusal(Layer::new().link("a", "")).await, "a link whose target cannot be");
    says(&house.refusal(Layer::new().pax("path", b"zero\0byte").file("a", 0o644, "")).await, "a zero byte in its path");
    says(&house.refusal(Layer::new().owner(u64::from(u32::MAX), 0).file("a", 0o644, "")).await, "belongs to nobody");
    // A header of a gigabyte is refused by what it says, before anything of it is read.
    let layer = Layer::new();
    let header = layer.header(EntryType::GNULongName, b"././@LongLink", b"", 0o644, 1 << 30);
    says(&house.refusal(layer.append(header, b"x")).await, "more than 1048576 bytes in a header");
}

fn small() -> ImageLimits {
    ImageLimits { unpacked_bytes: 1 << 20, entries: 100, names_bytes: 4_096, layers: 3, ..ImageLimits::default() }
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_goes_off() {
    let house = House::with_limits(small());
    let zeros = vec![0; 2 << 20];
    says(&house.refusal(Layer::new().file("zeros", 0o644, &zeros)).await, "more than 1048576 bytes unpacked");
    let many = (0..101).fold(Layer::new(), |layer, number| layer.file(format!("{number}"), 0o644, ""));
    says(&house.refusal(many).await, "more than 100 entries");
    let deep = (0..90).fold(Layer::new(), |layer, number| layer.folder(format!("{number}"), 0o755));
    says(&house.refusal(deep).await, "more than 4096 bytes of names");
    // Bytes after the end of the archive count, and so do the holes of a file.
    let trailing = [Layer::new().archive(), zeros].concat();
    for packing in ["plain", "gzip", "zstd"] {
        let reference = Image::of([]).layer(trailing.clone(), packing).push(&house.registry, "trailing").await;
        says(&house.pull(&reference).await.unwrap_err().to_string(), "more than 1048576 bytes unpacked");
    }
    let layer = Layer::new();
    let mut header = layer.header(EntryType::GNUSparse, b"sparse", b"", 0o644, 0);
    header.as_gnu_mut().unwrap().set_real_size(1 << 50);
    says(&house.refusal(layer.append(header, b"")).await, "more than 1048576 bytes unpacked");
}

#[tokio::test]
async fn an_image_of_too_many_layers_or_bytes_is_not_fetched() {
    let house = House::with_limits(ImageLimits { fetched_bytes: 1_000_000, ..small() });
    let many = (0..4).map(|number| Layer::new().file(format!("{number}"), 0o644, ""));
    let reference = Image::of(many).push(&house.registry, "many").await;
    says(&house.pull(&reference).await.unwrap_err().to_string(), "it has more than 3 layers");
    let lie = |_: &mut _, manifest: &mut serde_json::Value| manifest["layers"][0]["size"] = json!(i64::MAX);
    Image::of([Layer::new()]).push_with(&house.registry, "large", lie).await;
    let reference = house.registry.reference("large");
    says(&house.pull(&reference).await.unwrap_err().to_string(), "it has more than 1000000 bytes to fetch");
    let lie = |_: &mut _, manifest: &mut serde_json::Value| manifest["layers"][0]["size"] = json!(10);
    Image::of([Layer::new().file("a", 0o644, "longer")]).push_with(&house.registry, "longer", lie).await;
    let reference = house.registry.reference("longer");
    says(&house.pull(&reference).await.unwrap_err().to_string(), "it has more than 10 bytes in a part");
}

#[tokio::test]
async fn content_that_the_registry_has_changed_is_refused() {
    let house = House::new();
    let archive = Layer::new().file("bin/tool", 0o755, "honest").archive();
    let blob = made::pack(&archive, "gzip");
    let reference = Image::of([]).layer(archive.clone(), "gzip").push(&house.registry, "image").await;
    let path = house.registry.blob_path(&Digest::of(&blob));
    let evil = made::pack(&Layer::new().file("bin/tool", 0o755, "hacked").archive(), "gzip");
    assert_eq!(evil.len(), blob.len());
    fs::File::create(&path).unwrap().write_all(&evil).unwrap();
    says(&house.pull(&reference).await.unwrap_err().to_string(), "verify a layer of");
    fs::write(&path, &blob).unwrap();

    // The same for the manifest, where the name has its digest.
    let rootfs = house.pull(&reference).await.unwrap();
    let pinned = ImageReference::parse(&format!("{}/image@{}", reference.registry(), rootfs.digest)).unwrap();
    fs::write(house.registry.blob_path(&rootfs.digest), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert_eq!(house.pull(&pinned).await.unwrap(), rootfs, "what is here is not asked for again");
    let elsewhere = House::new();
    let refused = elsewhere.pull(&pinned).await.unwrap_err().to_string();
    assert!(refused.contains("verify the manifest") || refused.contains("answers"), "{refused}");
}

#[tokio::test]
async fn a_layer_that_is_another_than_the_image_names_is_refused() {
    let house = House::new();
    let lie = |config: &mut serde_json::Value, _: &mut _| {
        config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"another").to_string());
    };
    Image::of([Layer::new().file("a", 0o644, "x")]).push_with(&house.registry, "other", lie).await;
    let refused = house.pull(&house.registry.reference("other")).await.unwrap_err().to_string();
    says(&refused, "its archive is sha256:");
    assert!(entries(&house.images().join("layers")).is_empty() && entries(&house.images().join("new")).is_empty());
    let lie = |config: &mut serde_json::Value, _: &mut _| config["rootfs"]["diff_ids"] = json!([]);
    Image::of([Layer::new()]).push_with(&house.registry, "fewer", lie).await;
    let refused = house.pull(&house.registry.reference("fewer")).await.unwrap_err().to_string();
    says(&refused, "name different layers");
}

#[tokio::test]
async fn a_layer_that_is_cut_off_or_no_archive_is_refused() {
    let house = House::new();
    let archive = Layer::new().file("a", 0o644, vec![b'x'; 3_000]).archive();
    for (bytes, expect) in [
        (archive[..700].to_vec(), "ends in the midst of a file"),
        (archive[..100].to_vec(), "ends in the midst of a header"),
        (vec![b'z'; 2_000], "no tar archive"),
    ] {
        let reference = Image::of([]).layer(bytes, "plain").push(&house.registry, "broken").await;
        says(&house.pull(&reference).await.unwrap_err().to_string(), expect);
    }
    let reference = Image::of([]).layer(archive, "plain").push(&house.registry, "packed").await;
    let lie = |_: &mut _, manifest: &mut serde_json::Value| {
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
    };
    Image::of([]).layer(b"no gzip".to_vec(), "plain").push_with(&house.registry, "packed", lie).await;
    says(&house.pull(&reference).await.unwrap_err().to_string(), "it is broken");
}

#[tokio::test]
async fn links_where_a_sandbox_mounts_lead_nowhere_on_the_host() {
    let (house, bench) = (House::new(), Bench::new().await);
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let target = outside.path().to_str().unwrap();
    let workspace = house.folder.path().join("workspace");
    fs::create_dir(&workspace).unwrap();
    fs::write(workspace.join("file"), "own").unwrap();
    for (number, place) in [".hob", "dev", "workspace"].iter().enumerate() {
        // The link leads to the image's own folder of that name, which is not the host's.
        let layer = Layer::new().link(place, target).folder(target.trim_start_matches('/'), 0o755);
        let rootfs = house.image([tools(), layer]).await;
        let spec = Spec { workspace: Some(workspace.clone()), ..on(&rootfs) };
        let spec = Spec { id: common::id(&format!("image-{number}")), ..spec };
        let sandbox = bench.create(spec).await;
        assert_eq!(
            ok(&sandbox, "cat /workspace/file; : > /dev/null; stat -c %F /dev/null").await,
            "owncharacter special file"
        );
        let nowhere = house.image([tools(), Layer::new().link(place, &format!("{target}/missing"))]).await;
        let spec =
            Spec { id: common::id(&format!("nowhere-{number}")), workspace: Some(workspace.clone()), ..on(&nowhere) };
        bench.local.create(spec).await.unwrap_err();
    }
    let proc = house.image([tools(), Layer::new().link("proc", target)]).await;
    let refused = bench.local.create(Spec { base: Base::Layers(proc.layers), ..spec("proc") }).await.unwrap_err();
    says(&refused.to_string(), "the base has a link there");
    assert!(entries(outside.path()).is_empty(), "nothing was made on the host");
    bench.close().await;
}

#[tokio::test]
async fn a_registry_does_not_send_credentials_or_the_server_elsewhere() {
    let house = House::new();
    let pushed = Image::of([Layer::new().file("a", 0o644, "x")]).push(&house.registry, "image").await;
    let known = Credentials { username: "somebody".to_owned(), password: "secret".to_owned() };
    // An address of the cloud's metadata, for tokens and for blobs.
    let realm = |_: &Asked, _: &str| {
        let header = "www-authenticate: Bearer realm=\"http://169.254.169.254/token\"\r\n".to_owned();
        Answer::Say("401 Unauthorized", header, String::new())
    };
    let reference = Door::before(&pushed, realm).await.reference("image");
    let refused = house.store.pull(&reference, Some(&known), &|_| {}).await.unwrap_err().to_string();
    says(&refused, "names an unfit address for tokens");
    let led = |_: &Asked, _: &str| {
        Answer::Say("307 Temporary Redirect", "location: http://169.254.169.254/x\r\n".to_owned(), String::new())
    };
    says(
        &house.pull(&Door::before(&pushed, led).await.reference("image")).await.unwrap_err().to_string(),
        "is not asked",
    );
    // Blobs may come from elsewhere, where nobody is shown what is for the registry.
    let elsewhere = Door::before(&pushed, |_, _| Answer::Pass).await;
    let there = elsewhere.reference("image").registry().to_owned();
    let led = move |asked: &Asked, _: &str| match (&asked.authorization, asked.path.contains("/blobs/")) {
        (None, _) => Answer::Say("401 Unauthorized", "www-authenticate: Basic\r\n".to_owned(), String::new()),
        (Some(_), true) => {
            Answer::Say("307 Temporary Redirect", format!("location: http://{there}{}\r\n", asked.path), String::new())
        }
        (Some(_), false) => Answer::Pass,
    };
    let reference = Door::before(&pushed, led).await.reference("image");
    house.store.pull(&reference, Some(&known), &|_| {}).await.unwrap_or_else(|error| panic!("failed to {error}"));
    let asked = elsewhere.asked();
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked.authorization.is_none()), "{asked:?}");
}

#[tokio::test]
async fn an_index_or_manifest_that_makes_no_sense_is_refused() {
    let house = House::new();
    let reference = Image::of([Layer::new()]).machine("s390x").push(&house.registry, "foreign").await;
    says(&house.pull(&reference).await.unwrap_err().to_string(), "it is for linux/s390x, and this machine is linux/");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    house.registry.push_manifest("empty", "latest", INDEX, &index).await;
    let refused = house.pull(&house.registry.reference("empty")).await.unwrap_err().to_string();
    says(&refused, "this machine is linux/");
}

#[tokio::test]
async fn set_user_id_programs_of_an_image_are_out_of_reach_and_gain_nothing() {
    let (house, bench) = (House::new(), Bench::new().await);
    let id = fs::read("/usr/bin/id").unwrap();
    let rootfs = house.image([tools(), Layer::new().file("usr/bin/id", 0o6755, id)]).await;
    assert_eq!(fs::metadata(house.images()).unwrap().permissions().mode() & 0o777, 0o700, "nobody else gets there");
    let sandbox = bench.create(on(&rootfs)).await;
    assert_eq!(
        ok(&sandbox, "stat -c %a /usr/bin/id; grep NoNewPrivs /proc/self/status || cat /proc/self/status")
            .await
            .lines()
            .next(),
        Some("6755")
    );
    let status = ok(&sandbox, "cat /proc/self/status /proc/mounts").await;
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("overlay rw,nosuid,nodev"), "{status}");
    bench.close().await;
}
