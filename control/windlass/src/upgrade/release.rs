//! The file of a release: a gzipped tar of one folder, whose `SHA256SUMS` has the digest of every other file in it.

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

const SUMS: &str = "SHA256SUMS";
/// The folder of programs.
const PROGRAMS: &str = "bin";
/// No list of digests is longer, in bytes.
const SUMS_MAX: u64 = 1 << 20;

/// Unpacks the programs of a release into `to`, which is made, after every file of it was compared with its digest.
pub(super) fn unpack(release: &Path, to: &Path, programs: &[&str]) -> anyhow::Result<()> {
    let file = File::open(release)?;
    fs::create_dir(to).with_context(|| format!("make {}", to.display()))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let (mut found, mut sums) = (BTreeMap::new(), None);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = inner(&entry.path()?)?;
        if name == Path::new(SUMS) {
            let mut text = String::new();
            entry.by_ref().take(SUMS_MAX).read_to_string(&mut text)?;
            sums = Some(parse(&text)?);
            continue;
        }
        let wanted = programs.iter().find(|program| Path::new(PROGRAMS).join(program) == name);
        let digest = match wanted {
            Some(program) => {
                let path = to.join(program);
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o755).open(&path)?;
                let digest = copy(&mut entry, &mut file)?;
                file.sync_all()?;
                digest
            }
            None => copy(&mut entry, &mut io::sink())?,
        };
        ensure!(found.insert(name.clone(), digest).is_none(), "{} is in it twice", name.display());
    }
    let sums = sums.with_context(|| format!("there is no {SUMS} in it"))?;
    for (name, digest) in &sums {
        match found.get(name) {
            None => bail!("{} is missing", name.display()),
            Some(other) => ensure!(other == digest, "{} is damaged: its digest differs", name.display()),
        }
    }
    if let Some(unknown) = found.keys().find(|name| !sums.contains_key(*name)) {
        bail!("{} has no digest in {SUMS}", unknown.display());
    }
    let absent = programs.iter().find(|program| !to.join(program).is_file());
    absent.map_or(Ok(()), |program| bail!("it has no program {program}"))
}

/// A path without the folder that everything is in.
fn inner(path: &Path) -> anyhow::Result<PathBuf> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    ensure!(matches!(parts.next(), Some(Component::Normal(_))), "{} leads out of it", path.display());
    let rest: PathBuf = parts.collect();
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && rest != Path::new(""), "{} leads out of it", path.display());
    Ok(rest)
}

/// Lines as `sha256sum` writes them.
fn parse(text: &str) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let line = |line: &str| -> anyhow::Result<(PathBuf, String)> {
        let (digest, name) = line.split_once("  ").with_context(|| format!("{SUMS}: {line:?}"))?;
        Ok((name.trim_start_matches("./").into(), digest.to_owned()))
    };
    text.lines().map(line).collect()
}

/// Copies all, and gives its digest in hexadecimal.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<String> {
    struct Hashing<'a, W>(&'a mut W, Sha256);
    impl<W: Write> Write for Hashing<'_, W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.0.write(bytes)?;
            self.1.update(bytes.get(..written).unwrap_or_default());
            Ok(written)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    let mut hashing = Hashing(to, Sha256::new());
    io::copy(from, &mut hashing)?;
    Ok(hashing.1.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn digest(content: &str) -> String {
        copy(&mut content.as_bytes(), &mut io::sink()).unwrap()
    }

    /// A release of these files; the digests are those of `sums`.
    fn release(dir: &Path, files: &[(&str, &str)], sums: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("release.tar.gz");
        let mut tar = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        let lines: String = sums.iter().map(|(name, c)| format!("{}  {name}\n", digest(c))).collect();
        for (name, content) in files.iter().copied().chain([("SHA256SUMS", lines.as_str())]) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let name = format!("windlass-1/{name}");
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        path
    }

    const WHOLE: [(&str, &str); 3] = [("bin/windlass", "w"), ("bin/windlass-cni", "c"), ("install.sh", "i")];
    const BOTH: [&str; 2] = ["windlass", "windlass-cni"];

    #[test]
    fn programs_of_a_whole_release_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("stage");
        unpack(&release(dir.path(), &WHOLE, &WHOLE), &to, &BOTH).unwrap();
        assert_eq!(fs::read_to_string(to.join("windlass")).unwrap(), "w");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
    }

    #[test]
    fn a_release_that_is_not_whole_must_not_be_taken() {
        let refused = |files: &[(&str, &str)], sums: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            let done = unpack(&release(dir.path(), files, sums), &dir.path().join("stage"), &BOTH);
            format!("{:#}", done.unwrap_err())
        };
        let changed = [("bin/windlass", "evil"), WHOLE[1], WHOLE[2]];
        assert_eq!(refused(&changed, &WHOLE), "bin/windlass is damaged: its digest differs");
        assert_eq!(refused(&WHOLE[..2], &WHOLE), "install.sh is missing");
        assert_eq!(refused(&WHOLE, &WHOLE[..2]), "install.sh has no digest in SHA256SUMS");
        assert_eq!(refused(&WHOLE[..1], &WHOLE[..1]), "it has no program windlass-cni");
    }

    #[test]
    fn a_path_that_leads_out_must_not_be_followed() {
        for path in ["../windlass/x", "/etc/passwd", "windlass/../../x", "windlass", "."] {
            assert!(inner(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(inner(Path::new("./windlass-1/bin/windlass")).unwrap(), Path::new("bin/windlass"));
    }
}
