//! The file of a release: a gzipped tar of one folder, whose `SHA256SUMS` has the digest of every other file in it.

use super::list::{self, Entry, Places};
use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

const SUMS: &str = "SHA256SUMS";
/// The folder of units, which name places.
const UNITS: &str = "systemd";
/// No list of digests or files is longer, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// Unpacks into `to`, which is made, what a release puts on a machine, after every file of it was compared with its digest; gives that with its places.
/// What it has beside that (papers, the image of ourselves) is compared, too, and not kept.
pub(super) fn unpack(release: &Path, to: &Path, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let file = File::open(release)?;
    fs::create_dir(to).with_context(|| format!("make {}", to.display()))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let (mut found, mut sums, mut list) = (BTreeMap::new(), None, None);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = inner(&entry.path()?)?;
        if name == Path::new(SUMS) {
            sums = Some(parse(&text(&mut entry)?)?);
            continue;
        }
        // The list comes early in a release that `make dist` packed; until then everything is kept.
        let known: Option<&Vec<Entry>> = list.as_ref();
        let wanted = known.is_none_or(|list| list.iter().any(|entry| entry.from == name));
        let digest = if wanted {
            let path = to.join(&name);
            fs::create_dir_all(path.parent().unwrap_or(to))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
            copy(&mut entry, &mut file)?
        } else {
            copy(&mut entry, &mut io::sink())?
        };
        if name == Path::new(list::NAME) {
            let text = text(&mut File::open(to.join(&name))?)?;
            list = Some(list::parse(&text, places)?);
        }
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
    let entries = match list {
        Some(list) => list,
        None => list::without_list(places, |name| found.contains_key(name))?,
    };
    for name in super::PROGRAMS.map(|program| Path::new("bin").join(program)) {
        ensure!(entries.iter().any(|entry| entry.from == name), "it has no {}", name.display());
    }
    for entry in &entries {
        ensure!(found.contains_key(&entry.from), "it has no {}", entry.from.display());
        settle(&to.join(&entry.from), entry, places)?;
    }
    Ok(entries)
}

/// Gives an unpacked file its mode, and, where it names places, the machine's; and has it on disk.
fn settle(path: &Path, entry: &Entry, places: &Places) -> anyhow::Result<()> {
    if entry.from.starts_with(UNITS) {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", entry.from.display()))?;
        fs::write(path, places.fill(&text))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
    File::open(path)?.sync_all().with_context(|| format!("sync {}", path.display()))
}

/// A file that is read whole.
fn text(file: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    file.take(TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
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

    fn places() -> Places {
        Places::of(Path::new("/usr/local/bin"))
    }

    #[test]
    fn a_release_that_is_older_than_the_list_brings_what_it_has_in_folders() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("stage");
        let entries = unpack(&release(dir.path(), &WHOLE, &WHOLE), &to, &places()).unwrap();
        let targets: Vec<_> = entries.iter().map(|entry| entry.to.to_str().unwrap()).collect();
        assert_eq!(targets, ["/usr/local/bin/windlass-cni", "/usr/local/bin/windlass"]);
        assert_eq!(fs::metadata(to.join("bin/windlass")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_release_brings_what_its_list_names_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("stage");
        let list = "FILES @LIB@/FILES 644\nbin/windlass @BIN@/windlass 755\nbin/windlass-cni @BIN@/windlass-cni 755\n\
                    systemd/new.service @UNITS@/new.service 644\n";
        let files = [
            ("FILES", list),
            WHOLE[0],
            WHOLE[1],
            ("docs/x.md", "x"),
            ("systemd/new.service", "ExecStart=@BIN@/windlass"),
        ];
        let entries = unpack(&release(dir.path(), &files, &files), &to, &places()).unwrap();
        assert_eq!(entries.len(), 4);
        let unit = fs::read_to_string(to.join("systemd/new.service")).unwrap();
        assert_eq!(unit, "ExecStart=/usr/local/bin/windlass");
        assert!(!to.join("docs").exists());
        let dir = tempfile::tempdir().unwrap();
        let lacking = &files[..4];
        let refused = unpack(&release(dir.path(), lacking, lacking), &dir.path().join("stage"), &places());
        assert_eq!(format!("{:#}", refused.unwrap_err()), "it has no systemd/new.service");
    }

    #[test]
    fn a_release_that_is_not_whole_must_not_be_taken() {
        let refused = |files: &[(&str, &str)], sums: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            let done = unpack(&release(dir.path(), files, sums), &dir.path().join("stage"), &places());
            format!("{:#}", done.unwrap_err())
        };
        let changed = [("bin/windlass", "evil"), WHOLE[1], WHOLE[2]];
        assert_eq!(refused(&changed, &WHOLE), "bin/windlass is damaged: its digest differs");
        assert_eq!(refused(&WHOLE[..2], &WHOLE), "install.sh is missing");
        assert_eq!(refused(&WHOLE, &WHOLE[..2]), "install.sh has no digest in SHA256SUMS");
        assert_eq!(refused(&WHOLE[..1], &WHOLE[..1]), "it has no bin/windlass-cni");
    }

    #[test]
    fn a_path_that_leads_out_must_not_be_followed() {
        for path in ["../windlass/x", "/etc/passwd", "windlass/../../x", "windlass", "."] {
            assert!(inner(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(inner(Path::new("./windlass-1/bin/windlass")).unwrap(), Path::new("bin/windlass"));
    }
}
