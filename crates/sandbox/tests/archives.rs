//! Snapshots leave this machine as an archive and come back from one, and an archive that somebody has made does no harm.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use common::{Bench, MAKE, id, look, ok, spec};
use hob_sandbox::{LayerId, Provider, SandboxError, Spec};

/// Where an archive goes.
#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn exported(bench: &Bench, layers: &[LayerId]) -> Vec<u8> {
    let bytes = Bytes::default();
    bench.local.export(layers, Box::new(bytes.clone())).await.unwrap_or_else(|error| panic!("failed to {error}"));
    let held = bytes.0.lock().unwrap();
    held.clone()
}

async fn import(bench: &Bench, archive: Vec<u8>) -> Result<Vec<LayerId>, SandboxError> {
    bench.local.import(&id("taken-in"), Box::new(std::io::Cursor::new(archive))).await
}

fn unpacked(archive: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(archive).read_to_end(&mut tar).unwrap();
    tar
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn a_snapshot_goes_to_another_machine_with_all_that_it_is() {
    let (here, there) = (Bench::new().await, Bench::new().await);
    let sandbox = here.sandbox("goes").await;
    let more = "mkdir /workspace/low /workspace/old; echo 1 > /workspace/low/1; echo 1 > /workspace/old/1; \
                python3 -c \"import os; os.setxattr('/workspace/hard', 'user.note', b'v')\"; rm /etc/hostname; \
                mkdir -p /workspace/$(printf 'n%.0s' $(seq 200))/$(printf 'm%.0s' $(seq 200))";
    ok(&sandbox, &format!("{MAKE}; {more}")).await;
    here.local.snapshot(&id("goes")).await.unwrap();
    let sandbox = here.sandbox("goes").await;
    ok(
        &sandbox,
        "cd /workspace; rm low/1; rm -r old; mkdir old; echo 2 > old/2; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/usr/local/s')\"",
    )
    .await;
    let before = look(&sandbox).await;
    let taken = here.local.snapshot(&id("goes")).await.unwrap();
    assert_eq!(taken.layers.len(), 2);

    let layers =
        import(&there, exported(&here, &taken.layers).await).await.unwrap_or_else(|error| panic!("failed to {error}"));
    let again = there.create(Spec { layers: layers.clone(), ..spec("came") }).await;
    assert_eq!(look(&again).await, before);
    assert_eq!(
        ok(&again, "ls -A /workspace/low /workspace/old; stat -c %h /workspace/hard").await,
        "/workspace/low:\n\n/workspace/old:\n2\n2"
    );
    let note = "python3 -c \"import os; print(os.getxattr('/workspace/hard', 'user.note'))\"; ls /etc/hostname 2>&1 | grep -c 'No such'";
    assert_eq!(ok(&again, note).await, "b'v'\n1");
    there.local.destroy(&id("came")).await.unwrap();
    there.local.unpin(&id("taken-in")).await.unwrap();
    assert_eq!(std::fs::read_dir(there.data().join("layers")).unwrap().count(), 0, "nothing is left of it");
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn what_was_cut_off_or_changed_on_the_way_is_refused_and_leaves_nothing() {
    let bench = Bench::new().await;
    ok(&bench.sandbox("goes").await, "echo 'a line that is found' > /workspace/file").await;
    let taken = bench.local.snapshot(&id("goes")).await.unwrap();
    let archive = exported(&bench, &taken.layers).await;
    let refused = async |what: &str, archive: Vec<u8>, reason: &str| {
        let error = import(&bench, archive).await.expect_err(what).to_string();
        assert!(error.contains(reason), "{what}: {error}");
    };
    for length in [0, 1, 20, archive.len() / 2, archive.len() - 9] {
        refused("cut off", archive[..length].to_vec(), "").await;
    }
    let tar = unpacked(&archive);
    let at = tar.windows(6).position(|bytes| bytes == b"a line").unwrap();
    let mut changed = tar.clone();
    changed[at] = b'A';
    refused("changed", packed(&changed), "holds something else than the archive says").await;
    refused("half of the archive", packed(&tar[..tar.len() / 2 / 512 * 512]), "").await;
    refused("no archive", packed(&[b'x'; 5_000]), "").await;
    bench.local.destroy(&id("goes")).await.unwrap();
    assert_eq!(std::fs::read_dir(bench.data().join("layers")).unwrap().count(), 0, "nothing is left of any");
    bench.close().await;
}

/// An archive with a layer of these entries: a path, a type, a link's target.
fn hostile(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let contents = r#"{"format":1,"layers":[{"entries":1,"bytes":0,"sha256":""}]}"#;
    let mut add = |path: &str, kind: tar::EntryType, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        // Past the checks of whoever writes an honest archive.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    add("snapshot.json", tar::EntryType::Regular, "", contents.as_bytes());
    add("layers/0", tar::EntryType::Directory, "", b"");
    entries.iter().for_each(|(path, kind, link)| add(path, *kind, link, b""));
    packed(&builder.into_inner().unwrap())
}

#[tokio::test]
async fn a_hostile_archive_reaches_nothing_outside() {
    use tar::EntryType::{Block, Directory, Link, Regular, Symlink};
    let bench = Bench::new().await;
    let outside = bench.folder.path().join("outside");
    std::fs::write(&outside, "as it was").unwrap();
    let outside = outside.to_str().unwrap();
    let check = async |what: &str, entries: &[(&str, tar::EntryType, &str)]| {
        let refused = import(&bench, hostile(entries)).await;
        assert!(matches!(refused, Err(SandboxError::Refused { .. })), "{what}: {refused:?}");
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "as it was", "{what}");
    };
    check("dots", &[("layers/0/../../../../outside", Regular, "")]).await;
    check("an absolute path", &[(outside, Regular, "")]).await;
    check("a path through a link", &[("layers/0/l", Symlink, "/"), ("layers/0/l/x", Regular, "")]).await;
    check("a second name of a file outside", &[("layers/0/h", Link, outside)]).await;
    check("a link where an overlay is mounted from", &[("layers/0/root", Symlink, "/etc")]).await;
    check("a layer that is a link", &[("layers/1", Symlink, "/")]).await;
    check("a device", &[("layers/0/root", Directory, ""), ("layers/0/root/sda", Block, "")]).await;
    check("another list of layers", &[("snapshot.json", Directory, "")]).await;
    bench.close().await;
}
