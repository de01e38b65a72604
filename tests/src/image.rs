//! Container images made on this machine: a layer from files, a configuration, a manifest; stored by digest for the registry.

use anyhow::{Context, Result, anyhow, ensure};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifest,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What goes into an image.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Repository without a host: `echo`.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `USER`, empty for root.
    pub user: String,
    /// Regular files: path in the image, mode, content.
    pub files: Vec<(String, u32, Vec<u8>)>,
    /// Symbolic links: path in the image, target.
    pub links: Vec<(String, String)>,
    /// Folders, such as `/tmp`, with their mode.
    pub folders: Vec<(String, u32)>,
}

/// Blobs by digest and manifests by tag, below one folder.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

impl ImageStore {
    /// The store at `root`; made when missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        for dir in ["blobs", "tags"] {
            fs::create_dir_all(root.join(dir))
                .with_context(|| format!("make {}", root.join(dir).display()))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Builds an image and tags it.
    ///
    /// # Errors
    /// A file cannot be written, or the recipe is not a valid image.
    pub fn build(&self, recipe: &Recipe) -> Result<()> {
        let layer = layer(recipe).context("write the layer")?;
        let layer_digest = self.put(&layer)?;
        let config = ImageConfigurationBuilder::default()
            .architecture(Arch::from(
                std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64").as_str(),
            ))
            .os(Os::Linux)
            .config(
                ConfigBuilder::default()
                    .entrypoint(recipe.entrypoint.clone())
                    .user(recipe.user.clone())
                    .env(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
                    .build()?,
            )
            .rootfs(
                RootFsBuilder::default()
                    .typ("layers")
                    .diff_ids(vec![format!("sha256:{layer_digest}")])
                    .build()?,
            )
            .build()?
            .to_string()?;
        let config_digest = self.put(config.as_bytes())?;
        let descriptor = |media, size: usize, digest: &str| -> Result<Descriptor> {
            Ok(Descriptor::new(media, u64::try_from(size)?, Sha256Digest::from_str(digest)?))
        };
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config.len(), &config_digest)?)
            .layers(vec![descriptor(MediaType::ImageLayer, layer.len(), &layer_digest)?])
            .build()?
            .to_string()?;
        let digest = self.put(manifest.as_bytes())?;
        self.tag(&recipe.repository, &recipe.tag, &digest)
    }

    /// Stores bytes; gives their digest in hex.
    fn put(&self, bytes: &[u8]) -> Result<String> {
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        let path = self.root.join("blobs").join(&digest);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        Ok(digest)
    }

    fn tag(&self, repository: &str, tag: &str, digest: &str) -> Result<()> {
        let dir = self.root.join("tags").join(repository);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(dir.join(format!(":{tag}")), digest).with_context(|| format!("tag {repository}:{tag}"))
    }

    /// A blob by its digest in hex.
    ///
    /// # Errors
    /// There is no such blob, or the digest is not one.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        ensure!(
            digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
            "{digest:?} is no digest"
        );
        fs::read(self.root.join("blobs").join(digest)).with_context(|| format!("read blob {digest}"))
    }

    /// The digest (hex) a tag points at.
    ///
    /// # Errors
    /// There is no such tag.
    pub fn resolve(&self, repository: &str, tag: &str) -> Result<String> {
        ensure!(
            !repository.split('/').any(|p| p.is_empty() || p.starts_with('.')),
            "{repository:?} is no repository"
        );
        ensure!(!tag.contains('/'), "{tag:?} is no tag");
        fs::read_to_string(self.root.join("tags").join(repository).join(format!(":{tag}")))
            .with_context(|| format!("no image {repository}:{tag}"))
    }

    /// Writes an image as an OCI archive, which a runtime loads under `name`.
    ///
    /// # Errors
    /// There is no such image, or the archive cannot be written.
    pub fn archive(&self, repository: &str, tag: &str, name: &str, to: &Path) -> Result<()> {
        let digest = self.resolve(repository, tag)?;
        let manifest = self.blob(&digest)?;
        let parts = ImageManifest::from_reader(manifest.as_slice()).context("read the manifest")?;
        let mut descriptor = Descriptor::new(
            MediaType::ImageManifest,
            u64::try_from(manifest.len())?,
            Sha256Digest::from_str(&digest)?,
        );
        let names = [("io.containerd.image.name", name), ("org.opencontainers.image.ref.name", tag)];
        let names: HashMap<_, _> = names.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        descriptor.set_annotations(Some(names));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![descriptor])
            .build()?
            .to_string()?;
        let mut files = vec![
            ("oci-layout".to_owned(), 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), 0o644, index.into_bytes()),
            (format!("blobs/sha256/{digest}"), 0o644, manifest),
        ];
        for part in parts.layers().iter().chain([parts.config()]) {
            let digest = part.digest().digest();
            files.push((format!("blobs/sha256/{digest}"), 0o644, self.blob(digest)?));
        }
        // an archive is made as a layer is
        let bytes = layer(&Recipe { files, ..Recipe::default() })?;
        fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
    }
}

fn layer(recipe: &Recipe) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for (path, mode) in &recipe.folders {
        let mut h = header(tar::EntryType::Directory, *mode, 0);
        tar.append_data(&mut h, path.trim_start_matches('/'), std::io::empty())?;
    }
    for (path, mode, content) in &recipe.files {
        let mut h = header(tar::EntryType::Regular, *mode, content.len() as u64);
        tar.append_data(&mut h, path.trim_start_matches('/'), content.as_slice())?;
    }
    for (path, target) in &recipe.links {
        let mut h = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut h, path.trim_start_matches('/'), target)?;
    }
    Ok(tar.into_inner()?)
}

/// The images every lab has: `pause` for sandboxes, `echo` (the guest program and busybox's tools) for workloads.
///
/// # Errors
/// busybox or the guest program is missing.
pub fn build_standard(store: &ImageStore) -> Result<()> {
    let guest = std::env::current_exe()?.with_file_name("guest");
    let mut files = with_libraries(&guest)?;
    let folders = vec![("/tmp".to_owned(), 0o1777), ("/root".to_owned(), 0o700), ("/proc".to_owned(), 0o555)];
    let pause = Recipe {
        repository: "pause".into(),
        tag: "1".into(),
        entrypoint: vec!["/guest".into(), "pause".into()],
        files: files.clone(),
        ..Recipe::default()
    };
    store.build(&pause)?;
    let busybox = Path::new("/bin/busybox");
    files.push((
        "/bin/busybox".into(),
        0o755,
        fs::read(busybox).context("read /bin/busybox (package busybox-static)")?,
    ));
    files.push((
        "/etc/passwd".into(),
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n".to_vec(),
    ));
    files.push(("/etc/group".into(), 0o644, b"root:x:0:\nnogroup:x:65534:\n".to_vec()));
    let applets = crate::shell::run("/bin/busybox", &["--list"])?;
    let links = applets
        .lines()
        .filter(|a| *a != "busybox")
        .map(|a| (format!("/bin/{a}"), "busybox".to_owned()))
        .collect();
    let echo = Recipe {
        repository: "echo".into(),
        tag: "1".into(),
        entrypoint: vec!["/guest".into(), "serve".into()],
        files,
        links,
        folders,
        ..Recipe::default()
    };
    store.build(&echo)
}

/// A program and the shared libraries it needs, at the paths where its loader looks.
fn with_libraries(program: &Path) -> Result<Vec<(String, u32, Vec<u8>)>> {
    let name = program
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(|| anyhow!("{} has no name", program.display()))?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut files = vec![(format!("/{name}"), 0o755, read(program)?)];
    let listing = crate::shell::run("ldd", &[&program.to_string_lossy()])?;
    for library in listing.split_whitespace().filter(|w| w.starts_with('/')) {
        files.push((library.to_owned(), 0o755, read(Path::new(library))?));
    }
    Ok(files)
}
