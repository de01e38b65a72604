//! A file written: each bucket from its sorted keys, leaf after leaf, then the branches above them.

use super::Error;
use super::page::{BRANCH, BUCKET, FREE_LIST, HEAD, Head, LEAF, META, Marks, SIZE};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Two pages of marks and the empty list of free pages.
const FIRST_FREE: u64 = 3;

/// A new file. One that is not finished is none.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    /// The next page.
    next: u64,
    /// Names and root pages.
    buckets: Vec<(Vec<u8>, u64)>,
}

impl Writer {
    /// Begins the file at `path`, which must not exist.
    ///
    /// # Errors
    /// It does, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = BufWriter::new(file.map_err(Error::write(path))?);
        file.seek(SeekFrom::Start(FIRST_FREE * SIZE as u64)).map_err(Error::write(path))?;
        Ok(Self { path: path.to_owned(), file, next: FIRST_FREE, buckets: Vec::new() })
    }

    /// Begins a bucket; the one before it must be finished.
    pub fn bucket(&mut self, name: &[u8]) -> Bucket<'_> {
        Bucket { name: name.to_vec(), writer: self, leaf: Page::default(), leaves: Vec::new(), last: None }
    }

    /// Writes what finds the buckets, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), Error> {
        self.buckets.sort();
        let mut page = Page::default();
        for (name, root) in std::mem::take(&mut self.buckets) {
            let mut value = [0; 16];
            value[..8].copy_from_slice(&root.to_le_bytes());
            page.add(BUCKET, &name, &value);
        }
        let root = self.write(&page, LEAF)?;
        let path = self.path.clone();
        self.marks(root).map_err(Error::write(&path))
    }

    fn marks(mut self, root: u64) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        for transaction in 0..2_u64 {
            let head = Head { id: transaction, kind: META, count: 0, overflow: 0 };
            let marks = Marks { page_size: SIZE as u32, root, free_list: 2, end: self.next, transaction };
            let mut page = [head.encode().as_slice(), &marks.encode()].concat();
            page.resize(SIZE, 0);
            self.file.write_all(&page)?;
        }
        let mut free = Head { id: 2, kind: FREE_LIST, count: 0, overflow: 0 }.encode().to_vec();
        free.resize(SIZE, 0);
        self.file.write_all(&free)?;
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()
    }

    /// Writes a page and gives its number.
    fn write(&mut self, page: &Page, kind: u16) -> Result<u64, Error> {
        let (bytes, pages) = page.encode(self.next, kind);
        self.file.write_all(&bytes).map_err(Error::write(&self.path))?;
        let id = self.next;
        self.next += pages;
        Ok(id)
    }
}

/// A bucket being written.
pub struct Bucket<'a> {
    name: Vec<u8>,
    writer: &'a mut Writer,
    leaf: Page,
    /// First keys and numbers of the pages written.
    leaves: Vec<(Vec<u8>, u64)>,
    last: Option<Vec<u8>>,
}

impl Bucket<'_> {
    /// Adds a key behind all that were added before.
    ///
    /// # Errors
    /// It is not behind them, or cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if key.is_empty() || self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::Order { path: self.writer.path.clone() });
        }
        self.last = Some(key.to_vec());
        if !self.leaf.fits(key.len() + value.len()) {
            self.flush()?;
        }
        self.leaf.add(0, key, value);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let page = std::mem::take(&mut self.leaf);
        let first = page.first().to_vec();
        self.leaves.push((first, self.writer.write(&page, LEAF)?));
        Ok(())
    }

    /// Writes the branches above the leaves.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn finish(mut self) -> Result<(), Error> {
        if !self.leaf.elements.is_empty() || self.leaves.is_empty() {
            self.flush()?;
        }
        let mut level = std::mem::take(&mut self.leaves);
        while level.len() > 1 {
            let (mut above, mut page) = (Vec::new(), Page::default());
            for (first, id) in level {
                if !page.fits(first.len()) {
                    let full = std::mem::take(&mut page);
                    above.push((full.first().to_vec(), self.writer.write(&full, BRANCH)?));
                }
                page.add_branch(&first, id);
            }
            above.push((page.first().to_vec(), self.writer.write(&page, BRANCH)?));
            level = above;
        }
        let root = level.first().map_or(0, |(_, id)| *id);
        self.writer.buckets.push((std::mem::take(&mut self.name), root));
        Ok(())
    }
}

/// What goes into a page: an element's flags or child, its key and its value.
#[derive(Default)]
struct Page {
    elements: Vec<Element>,
    data: Vec<u8>,
}

struct Element {
    flags: u32,
    child: u64,
    key: usize,
    value: usize,
}

impl Page {
    /// Whether an element fits a page of the usual size, or is alone in one of its own.
    fn fits(&self, bytes: usize) -> bool {
        let used = HEAD * (self.elements.len() + 2) + self.data.len() + bytes;
        self.elements.is_empty() || used <= SIZE
    }

    fn add(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push(Element { flags, child: 0, key: key.len(), value: value.len() });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn add_branch(&mut self, key: &[u8], child: u64) {
        self.elements.push(Element { flags: 0, child, key: key.len(), value: 0 });
        self.data.extend_from_slice(key);
    }

    /// The key it begins with.
    fn first(&self) -> &[u8] {
        self.elements.first().map_or(&[], |element| &self.data[..element.key])
    }

    /// Its bytes under a number, and how many pages they are.
    fn encode(&self, id: u64, kind: u16) -> (Vec<u8>, u64) {
        let heads = HEAD * (self.elements.len() + 1);
        let pages = (heads + self.data.len()).div_ceil(SIZE).max(1);
        let count = u16::try_from(self.elements.len()).unwrap_or(u16::MAX);
        let overflow = u32::try_from(pages - 1).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(pages * SIZE);
        out.extend_from_slice(&Head { id, kind, count, overflow }.encode());
        let mut at = heads;
        for (n, element) in self.elements.iter().enumerate() {
            // Counted from the element's own place.
            let position = ((at - HEAD * (n + 1)) as u32).to_le_bytes();
            let key = (element.key as u32).to_le_bytes();
            if kind == BRANCH {
                out.extend_from_slice(&position);
                out.extend_from_slice(&key);
                out.extend_from_slice(&element.child.to_le_bytes());
            } else {
                out.extend_from_slice(&element.flags.to_le_bytes());
                out.extend_from_slice(&position);
                out.extend_from_slice(&key);
                out.extend_from_slice(&(element.value as u32).to_le_bytes());
            }
            at += element.key + element.value;
        }
        out.extend_from_slice(&self.data);
        out.resize(pages * SIZE, 0);
        (out, pages as u64)
    }
}
