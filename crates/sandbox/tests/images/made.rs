//! Images made by hand, entry by entry: honest ones and hostile ones.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::io::Read;
use std::path::Path;

use hob_sandbox::image::{Digest, ImageReference};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::registry::Registry;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layer in the making. Whatever is asked for is written, without a look at whether it makes sense.
pub struct Layer {
    archive: tar::Builder<Vec<u8>>,
    owner: (u64, u64),
}

impl Layer {
    pub fn new() -> Self {
        Self { archive: tar::Builder::new(Vec::new()), owner: (0, 0) }
    }

    /// Who owns what comes after.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub fn folder(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_ref(), b"", mode, b"")
    }

    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path.as_ref(), b"", mode, content.as_ref())
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub fn second_name(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// Hides a name of the layers below.
    pub fn without(self, path: &str) -> Self {
        let (above, name) = path.rsplit_once('/').map_or((String::new(), path), |(a, n)| (format!("{a}/"), n));
        self.file(format!("{above}.wh.{name}"), 0o644, "")
    }

    /// Hides all that the layers below have in a folder.
    pub fn opaque(self, folder: &str) -> Self {
        self.file(format!("{folder}/.wh..wh..opq"), 0o644, "")
    }

    pub fn device(self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = self.header(EntryType::Char, path.as_bytes(), b"", 0o666, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.append(header, b"")
    }

    /// What stands before the next entry: an extended header.
    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.archive.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    /// An entry whose names are longer than the header has room for gets them in an extended one.
    pub fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        for (key, text) in [("path", path), ("linkpath", link)].iter().filter(|(_, text)| text.len() > 100) {
            self.archive.append_pax_extensions([(*key, *text)]).unwrap();
        }
        let header = self.header(kind, path, link, mode, content.len() as u64);
        self.append(header, content)
    }

    pub fn header(&self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_size(size);
        header.set_mtime(1_700_000_000);
        let fields = header.as_old_mut();
        for (field, text) in [(&mut fields.name, path), (&mut fields.linkname, link)] {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text[..length]);
        }
        header
    }

    pub fn append(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.archive.append(&header, content).unwrap();
        self
    }

    /// A file of this machine and the libraries that it needs, where they are here.
    pub fn program(mut self, path: &str) -> Self {
        let output = std::process::Command::new("ldd").arg(path).output().unwrap();
        let libraries = String::from_utf8(output.stdout).unwrap();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
        for file in libraries.chain([path.to_owned()]) {
            self = self.file(&file[1..], 0o755, std::fs::read(&file).unwrap());
        }
        self
    }

    pub fn archive(self) -> Vec<u8> {
        self.archive.into_inner().unwrap()
    }
}

/// How a layer is packed, in the words of its media type.
pub fn pack(archive: &[u8], packing: &str) -> Vec<u8> {
    match packing {
        "gzip" => {
            let mut blob = Vec::new();
            flate2::bufread::GzEncoder::new(archive, flate2::Compression::none()).read_to_end(&mut blob).unwrap();
            blob
        }
        "zstd" => ruzstd::encoding::compress_to_vec(archive, ruzstd::encoding::CompressionLevel::Fastest),
        _ => archive.to_vec(),
    }
}

/// An image in the making.
pub struct Image {
    layers: Vec<(Vec<u8>, &'static str)>,
    run: Value,
    machine: &'static str,
}

impl Image {
    /// Layers bottom first, packed with gzip.
    pub fn of(layers: impl IntoIterator<Item = Layer>) -> Self {
        let layers = layers.into_iter().map(|layer| (layer.archive(), "gzip")).collect();
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { layers, run: json!({}), machine }
    }

    /// Another layer on top.
    pub fn layer(mut self, archive: Vec<u8>, packing: &'static str) -> Self {
        self.layers.push((archive, packing));
        self
    }

    pub fn run(mut self, run: Value) -> Self {
        self.run = run;
        self
    }

    pub fn machine(mut self, machine: &'static str) -> Self {
        self.machine = machine;
        self
    }

    pub async fn push(self, registry: &Registry, name: &str) -> ImageReference {
        self.push_with(registry, name, |_, _| {}).await;
        registry.reference(name)
    }

    /// Pushes it with a configuration and a manifest that `lie` has changed, and returns the manifest's digest.
    pub async fn push_with(self, registry: &Registry, name: &str, lie: impl FnOnce(&mut Value, &mut Value)) -> Digest {
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let mut layers = Vec::new();
        for (archive, packing) in &self.layers {
            let blob = pack(archive, packing);
            let kind = if *packing == "plain" { String::new() } else { format!("+{packing}") };
            let digest = registry.push_blob(repository, &blob).await;
            layers.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"),
                "digest": digest.to_string(), "size": blob.len(),
            }));
        }
        let archives: Vec<String> = self.layers.iter().map(|(archive, _)| Digest::of(archive).to_string()).collect();
        let mut config = json!({
            "os": "linux", "architecture": self.machine, "config": self.run,
            "rootfs": {"type": "layers", "diff_ids": archives},
        });
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers});
        lie(&mut config, &mut manifest);
        let config = config.to_string();
        let digest = registry.push_blob(repository, config.as_bytes()).await;
        let kind = "application/vnd.oci.image.config.v1+json";
        manifest["config"] = json!({"mediaType": kind, "digest": digest.to_string(), "size": config.len()});
        registry.push_manifest(repository, tag, MANIFEST, &manifest.to_string()).await
    }
}

/// A layer with a shell and the few programs that look at files.
pub fn tools() -> Layer {
    let programs = ["/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/stat", "/usr/bin/id"];
    programs
        .iter()
        .filter(|program| Path::new(program).exists())
        .fold(Layer::new(), |layer, program| layer.program(program))
}
