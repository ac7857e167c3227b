//! Manifests and indexes: what an image is made of, as its registry says it.
//!
//! Pure. What is read here was written by whoever pushed the image; digests are checked before it is parsed.

use serde::Deserialize;

use super::digest::Digest;
use super::inflate::Packing;

/// The media types that we ask for, the better ones first.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The longest manifest or configuration, as registries have it.
pub(super) const DOCUMENT_MAX: u64 = 4 << 20;

/// What a registry answered for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// One image.
    Image(Manifest),
    /// The same image for several platforms.
    Index(Vec<Listed>),
}

/// What one image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Part,
    /// Bottom first.
    pub(super) layers: Vec<(Part, Packing)>,
}

/// A piece of content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    #[serde(default)]
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// An image in an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub(super) part: Part,
    #[serde(default)]
    platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Option<Vec<Part>>,
    #[serde(default)]
    manifests: Option<Vec<Listed>>,
}

impl Document {
    /// Reads a manifest or an index; the error says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|error| format!("its manifest cannot be read: {error}"))?;
        if raw.schema_version != 2 {
            return Err("its manifest is of the old version 1; push it again with a newer tool".to_owned());
        }
        match (raw.config, raw.layers, raw.manifests) {
            (None, None, Some(manifests)) => Ok(Self::Index(manifests)),
            (Some(config), Some(layers), None) => Ok(Self::Image(Manifest::of(config, layers)?)),
            // Read by one tool as an image and by another as an index: see CVE-2021-41190.
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                Err("its manifest is an image and an index at once".to_owned())
            }
            _ => Err(format!(
                "it is no image of a file system, but {}",
                raw.media_type.unwrap_or("something else".into())
            )),
        }
    }

    /// The image of an index for `machine` (as [`machine`] says it); the error names what there is.
    pub(super) fn pick<'a>(listed: &'a [Listed], machine: &str) -> Result<&'a Part, String> {
        let fits = |entry: &&Listed| {
            entry.platform.as_ref().is_some_and(|platform| platform.os == "linux" && platform.architecture == machine)
        };
        let entry = listed.iter().find(fits);
        entry.map(|entry| &entry.part).ok_or_else(|| {
            let name =
                |platform: &Platform| format!("{}/{}", printable(&platform.os), printable(&platform.architecture));
            let names: Vec<String> =
                listed.iter().take(20).filter_map(|entry| entry.platform.as_ref().map(name)).collect();
            format!("it is there for {}, and this machine is linux/{machine}", names.join(", "))
        })
    }
}

impl Manifest {
    fn of(config: Part, layers: Vec<Part>) -> Result<Self, String> {
        if layers.is_empty() {
            return Err("it has no layers".to_owned());
        }
        let packed = |part: Part| {
            let packing = packing(&part.media_type).ok_or_else(|| {
                format!(
                    "a layer is of the kind {}, and not a tar archive, plain or with gzip or zstd",
                    printable(&part.media_type)
                )
            })?;
            Ok((part, packing))
        };
        Ok(Self { config, layers: layers.into_iter().map(packed).collect::<Result<_, String>>()? })
    }
}

/// How a layer of a media type is packed. Layers that a registry may not hand out are asked of it all the same, and
/// never of an address that the image names.
fn packing(media_type: &str) -> Option<Packing> {
    let kind = media_type.strip_prefix("application/vnd.oci.image.layer.");
    match kind.map(|kind| kind.strip_prefix("nondistributable.").unwrap_or(kind)) {
        Some("v1.tar") => Some(Packing::Plain),
        Some("v1.tar+gzip") => Some(Packing::Gzip),
        Some("v1.tar+zstd") => Some(Packing::Zstd),
        Some(_) => None,
        None => match media_type.strip_prefix("application/vnd.docker.image.rootfs.")? {
            "diff.tar" => Some(Packing::Plain),
            "diff.tar.gzip" | "foreign.diff.tar.gzip" => Some(Packing::Gzip),
            "diff.tar.zstd" => Some(Packing::Zstd),
            _ => None,
        },
    }
}

/// This machine's architecture, in the words of images.
pub(super) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The start of a text of somebody else, fit for a message.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn part(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":3}}"#)
    }

    fn image(layer: &str) -> Result<Packing, String> {
        let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, part("x"), part(layer));
        match Document::read(text.as_bytes())? {
            Document::Image(manifest) => Ok(manifest.layers[0].1),
            Document::Index(_) => panic!("it is no index"),
        }
    }

    #[test]
    fn layers_are_plain_gzip_or_zstd_in_both_vocabularies() {
        let check = |kind: &str, expect| assert_eq!(image(&format!("application/vnd.{kind}")).ok(), expect, "{kind}");
        check("oci.image.layer.v1.tar", Some(Packing::Plain));
        check("oci.image.layer.v1.tar+gzip", Some(Packing::Gzip));
        check("oci.image.layer.v1.tar+zstd", Some(Packing::Zstd));
        check("oci.image.layer.nondistributable.v1.tar+gzip", Some(Packing::Gzip));
        check("docker.image.rootfs.diff.tar.gzip", Some(Packing::Gzip));
        check("docker.image.rootfs.foreign.diff.tar.gzip", Some(Packing::Gzip));
        check("oci.image.layer.v1.tar+gzip+encrypted", None);
        check("cncf.helm.chart.content.v1.tar+gzip", None);
    }

    #[test]
    fn the_image_for_this_machine_is_picked_and_a_missing_one_is_told() {
        let entry = |digit: char, platform: &str| {
            format!(r#"{{"mediaType":"m","digest":"sha256:{}","size":1{platform}}}"#, String::from(digit).repeat(64))
        };
        let on = |os: &str, machine: &str| format!(r#","platform":{{"os":"{os}","architecture":"{machine}"}}"#);
        let entries = [
            entry('0', &on("unknown", "unknown")),
            entry('1', &on("linux", "arm64")),
            entry('2', ""),
            entry('3', &on("linux", "amd64")),
        ];
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let Document::Index(listed) = Document::read(text.as_bytes()).unwrap() else { panic!("it is an index") };
        let digest = |machine| Document::pick(&listed, machine).map(|part| part.digest.hex().chars().next());
        assert_eq!(digest("amd64"), Ok(Some('3')));
        assert_eq!(digest("arm64"), Ok(Some('1')));
        let missing = "it is there for unknown/unknown, linux/arm64, linux/amd64, and this machine is linux/riscv64";
        assert_eq!(digest("riscv64").unwrap_err(), missing);
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        let check = |text: &str, reason: &str| {
            let error = Document::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        check("", "cannot be read");
        check(r#"{"schemaVersion":1}"#, "old version 1");
        check(r#"{"schemaVersion":2,"mediaType":"a/b"}"#, "no image of a file system, but a/b");
        check(&format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, part("x")), "no layers");
        check(
            &format!(r#"{{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}}"#, part("x")),
            "an image and an index at once",
        );
    }
}
