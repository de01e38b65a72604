//! The file of a snapshot: a gzipped tar of `snapshot.json`, which comes first and has the digest of everything else, the
//! store, and the server's keys and certificates. Anyone can look into it with tar.

use anyhow::{Context as _, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// The entry that describes the others.
const DESCRIPTION: &str = "snapshot.json";
/// The layout written here, and the only one read.
const FORMAT: u32 = 1;
/// No description is longer, in bytes.
const DESCRIPTION_MAX: u64 = 1 << 20;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    format: u32,
    /// The version that wrote it.
    version: String,
    pub(crate) created: Timestamp,
    /// The node it was made on.
    pub(crate) node: String,
    /// The newest revision in it.
    pub(crate) revision: u64,
    /// What keys begin with, where they are etcd's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// What is in it, by its path below the server's directory.
    files: BTreeMap<String, Content>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Content {
    bytes: u64,
    /// Hexadecimal.
    sha256: String,
}

/// Writes a snapshot of `files` (path in the archive, path here) to `to`, which must not exist, durably. The `prefix` is etcd's.
pub(crate) fn write(
    to: &Path,
    node: &str,
    revision: u64,
    prefix: Option<String>,
    files: &[(String, PathBuf)],
) -> anyhow::Result<Snapshot> {
    let mut contents = BTreeMap::new();
    for (name, path) in files {
        let content =
            digest(File::open(path)?, io::sink()).with_context(|| format!("read {}", path.display()))?;
        contents.insert(name.clone(), content);
    }
    let snapshot = Snapshot {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created: Timestamp::now(),
        node: node.to_owned(),
        revision,
        prefix,
        files: contents,
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(pki::files::PRIVATE).open(to)?;
    let mut tar = tar::Builder::new(GzEncoder::new(BufWriter::new(file), Compression::fast()));
    let described = serde_json::to_vec_pretty(&snapshot)?;
    append(&mut tar, DESCRIPTION, described.len() as u64, snapshot.created, &*described)?;
    for (name, path) in files {
        let file = File::open(path)?;
        append(&mut tar, name, file.metadata()?.len(), snapshot.created, file)?;
    }
    let file = tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(snapshot)
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    bytes: u64,
    at: Timestamp,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(pki::files::PRIVATE);
    header.set_mtime(u64::try_from(at.as_second()).unwrap_or(0));
    tar.append_data(&mut header, name, content)
}

/// What the snapshot at `path` says of itself; the rest is not read.
pub(crate) fn inspect(path: &Path) -> anyhow::Result<Snapshot> {
    let named = || format!("read snapshot {}", path.display());
    let mut tar = open(path).with_context(named)?;
    let mut entries = tar.entries().with_context(named)?;
    describe(&mut entries).with_context(named)
}

/// Checks the snapshot at `path` against its digests while its files are written, durably, below the new directory `to`.
///
/// # Errors
/// With anything missing, changed, cut or added. What was written until then is left.
pub(crate) fn unpack(path: &Path, to: &Path) -> anyhow::Result<Snapshot> {
    let named = || format!("read snapshot {}", path.display());
    let mut tar = open(path).with_context(named)?;
    let snapshot = unpack_entries(&mut tar, to).with_context(named)?;
    // The checksum of the compressed stream is behind its last entry.
    io::copy(&mut tar.into_inner(), &mut io::sink()).with_context(named)?;
    Ok(snapshot)
}

fn unpack_entries(tar: &mut tar::Archive<impl Read>, to: &Path) -> anyhow::Result<Snapshot> {
    let mut entries = tar.entries()?;
    let snapshot = describe(&mut entries)?;
    pki::files::create_private_dir(to)?;
    let mut left = snapshot.files.clone();
    for entry in entries {
        let entry = entry?;
        let name = entry.path()?.to_str().context("a name is not UTF-8")?.to_owned();
        let Some(expected) = left.remove(&name) else { bail!("{name} is not described") };
        let below = Path::new(&name);
        ensure!(below.components().all(|c| matches!(c, Component::Normal(_))), "{name} leads elsewhere");
        let target = to.join(below);
        let dir = target.parent().unwrap_or(to);
        pki::files::create_private_dir(dir)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(pki::files::PRIVATE).open(&target)?;
        let found = digest(entry, &file).with_context(|| name.clone())?;
        ensure!(found == expected, "{name} is damaged: its digest is {}", found.sha256);
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    if let Some(name) = left.keys().next() {
        bail!("{name} is missing");
    }
    File::open(to)?.sync_all()?;
    Ok(snapshot)
}

fn open(path: &Path) -> io::Result<tar::Archive<GzDecoder<BufReader<File>>>> {
    Ok(tar::Archive::new(GzDecoder::new(BufReader::new(File::open(path)?))))
}

fn describe<R: Read>(entries: &mut tar::Entries<'_, R>) -> anyhow::Result<Snapshot> {
    let first = entries.next().context("it is empty")??;
    ensure!(first.path()? == Path::new(DESCRIPTION), "it is no snapshot of windlass");
    let mut text = Vec::new();
    first.take(DESCRIPTION_MAX).read_to_end(&mut text)?;
    let snapshot: Snapshot = serde_json::from_slice(&text).context(DESCRIPTION)?;
    ensure!(
        snapshot.format == FORMAT,
        "format {} is unknown to this version, which knows {FORMAT}",
        snapshot.format
    );
    Ok(snapshot)
}

/// Copies, and says what was copied.
fn digest(mut from: impl Read, mut to: impl Write) -> io::Result<Content> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(Content { bytes, sha256: format!("{:x}", hash.finalize()) });
        }
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        bytes += n as u64;
    }
}

/// Every file below `dir` as (path below `base`, path here), in order.
pub(crate) fn files_below(base: &Path, dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry?.path();
            let kind = fs::symlink_metadata(&path)?;
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(base)?.to_str().context("a name is not UTF-8")?.to_owned();
                found.push((name, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(dir: &Path) -> PathBuf {
        fs::create_dir_all(dir.join("server/pki/deep")).unwrap();
        fs::write(dir.join("server/store.redb"), vec![7; 300_000]).unwrap();
        fs::write(dir.join("server/pki/ca.key"), "key").unwrap();
        fs::write(dir.join("server/pki/deep/empty"), "").unwrap();
        let server = dir.join("server");
        let mut files = files_below(&server, &server.join("pki")).unwrap();
        files.push(("store.redb".into(), server.join("store.redb")));
        let path = dir.join("snapshot");
        write(&path, "n1", 42, Some("/a".into()), &files).unwrap();
        path
    }

    fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let files = files_below(dir, dir).unwrap();
        files.into_iter().map(|(name, path)| (name, fs::read(path).unwrap())).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let to = dir.path().join("new");
        let snapshot = unpack(&path, &to).unwrap();
        assert_eq!((snapshot.revision, snapshot.node.as_str()), (42, "n1"));
        assert_eq!(snapshot.prefix.as_deref(), Some("/a"));
        assert_eq!(snapshot, inspect(&path).unwrap());
        assert_eq!(contents(&to).len(), 3);
        assert_eq!(contents(&to), contents(&dir.path().join("server")));
    }

    #[test]
    fn a_path_that_leads_out_of_the_directory_must_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("evil"), "evil").unwrap();
        let path = dir.path().join("snapshot");
        write(&path, "n1", 1, None, &[("pki/x".to_owned(), dir.path().join("evil"))]).unwrap();
        // the library refuses to write such a name: the bytes are changed behind its back
        let mut tar = Vec::new();
        GzDecoder::new(File::open(&path).unwrap()).read_to_end(&mut tar).unwrap();
        let text =
            String::from_utf8(tar).unwrap().replace("\"pki/x\"", "\"../xx\"").replace("pki/x\0", "../xx\0");
        let mut bytes = text.into_bytes();
        for header in [0, 1024] {
            let block = &mut bytes[header..header + 512];
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut gz = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        gz.write_all(&bytes).unwrap();
        gz.finish().unwrap();
        let error = format!("{:#}", unpack(&path, &dir.path().join("a/b")).unwrap_err());
        assert!(error.ends_with("../xx leads elsewhere"), "{error}");
        assert!(!dir.path().join("a/xx").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_file_is_never_taken(at in 0_usize..100_000, bit in 0_u8..8, cut: bool) {
            let dir = tempfile::tempdir().unwrap();
            let path = sample(dir.path());
            let mut bytes = fs::read(&path).unwrap();
            // ten bytes of gzip's header say nothing of the content: time and system
            let at = 10 + at % (bytes.len() - 10);
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            fs::write(&path, bytes).unwrap();
            let (server, to) = (dir.path().join("server"), dir.path().join("new"));
            if unpack(&path, &to).is_ok() {
                // a bit that means nothing: the padding behind the compressed stream
                prop_assert!(!cut);
                prop_assert_eq!(contents(&server), contents(&to));
            }
        }
    }
}
