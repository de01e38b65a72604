//! A file read: its buckets, and the keys of each in order.

use super::Error;
use super::page::{BRANCH, BUCKET, HEAD, Head, LEAF, Marks, u32_at, u64_at};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// No tree is deeper: each level multiplies the keys by dozens.
const DEEPEST: usize = 32;
/// bbolt's page sizes are those of operating systems.
const PAGE_SIZES: [u64; 5] = [4096, 1024, 8192, 16384, 65536];

/// An open file.
pub struct Reader {
    path: PathBuf,
    file: File,
    marks: Marks,
}

impl Reader {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is no database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::read(path))?;
        let marks = marks(&file).ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            why: "it does not begin as a database does".to_owned(),
        })?;
        Ok(Self { path: path.to_owned(), file, marks })
    }

    /// The names of the buckets, in order.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Vec::new();
        self.roots(|name, _| names.push(name.to_vec()))?;
        Ok(names)
    }

    fn roots(&self, mut found: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let mut visit = |flags: u32, key: &[u8], value: &[u8]| {
            if flags & BUCKET != 0 {
                found(key, value);
            }
            Ok(())
        };
        Walk::new(self, &mut visit).page(self.marks.root, 0)
    }

    /// Shows `visit` every key of a bucket and its value, in order; none where there is no such bucket.
    ///
    /// # Errors
    /// Those of `visit`; the file is damaged or cannot be read.
    pub fn each<E: From<Error>>(
        &self,
        bucket: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut root = None;
        self.roots(|name, value| {
            if name == bucket {
                root = Some(value.to_vec());
            }
        })?;
        let Some(value) = root else { return Ok(()) };
        let mut visit = |_: u32, key: &[u8], value: &[u8]| visit(key, value);
        let mut walk = Walk::new(self, &mut visit);
        match u64_at(&value, 0) {
            // A small bucket lies where it is named.
            Some(0) => walk.elements(value.get(HEAD..).unwrap_or_default(), 0),
            Some(root) => walk.page(root, 0),
            None => Err(self.damaged("a bucket has no root").into()),
        }
    }

    /// A page with those that belong to it.
    fn page(&self, id: u64) -> Result<Vec<u8>, Error> {
        let size = u64::from(self.marks.page_size);
        if id >= self.marks.end {
            return Err(self.damaged(&format!("page {id} is beyond the last one")));
        }
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, id * size).map_err(Error::read(&self.path))?;
        let said = Head::decode(&head).filter(|said| said.id == id);
        let said = said.ok_or_else(|| self.damaged(&format!("page {id} says that it is another")))?;
        if u64::from(said.overflow) >= self.marks.end - id {
            return Err(self.damaged(&format!("page {id} reaches beyond the last one")));
        }
        let length = (u64::from(said.overflow) + 1) * size;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| self.damaged("a page is too large"))?];
        self.file.read_exact_at(&mut bytes, id * size).map_err(Error::read(&self.path))?;
        Ok(bytes)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { path: self.path.clone(), why: why.to_owned() }
    }
}

/// Is shown an element's flags, its key and its value.
type Visit<'a, E> = &'a mut (dyn FnMut(u32, &[u8], &[u8]) -> Result<(), E> + 'a);

/// A walk over one tree.
struct Walk<'a, E> {
    reader: &'a Reader,
    visit: Visit<'a, E>,
    /// A tree has no more pages than its file, unless it leads back to itself.
    left: u64,
}

impl<'a, E: From<Error>> Walk<'a, E> {
    fn new(reader: &'a Reader, visit: Visit<'a, E>) -> Self {
        Self { reader, visit, left: reader.marks.end }
    }

    fn page(&mut self, id: u64, depth: usize) -> Result<(), E> {
        let left = self.left.checked_sub(1).filter(|_| depth <= DEEPEST);
        self.left = left.ok_or_else(|| self.reader.damaged("a tree leads back to itself"))?;
        let bytes = self.reader.page(id)?;
        self.elements(&bytes, depth)
    }

    fn elements(&mut self, bytes: &[u8], depth: usize) -> Result<(), E> {
        let reader = self.reader;
        let short = || reader.damaged("an element reaches beyond its page");
        let head = Head::decode(bytes).ok_or_else(short)?;
        for at in (0..usize::from(head.count)).map(|n| HEAD * (n + 1)) {
            match head.kind {
                LEAF => {
                    let field = |n: usize| u32_at(bytes, at + 4 * n).ok_or_else(short);
                    let (flags, start) = (field(0)?, at + field(1)? as usize);
                    let middle = start + field(2)? as usize;
                    let end = middle + field(3)? as usize;
                    let key = bytes.get(start..middle).ok_or_else(short)?;
                    (self.visit)(flags, key, bytes.get(middle..end).ok_or_else(short)?)?;
                }
                BRANCH => self.page(u64_at(bytes, at + 8).ok_or_else(short)?, depth + 1)?,
                other => return Err(reader.damaged(&format!("a page of kind {other} in a tree")).into()),
            }
        }
        Ok(())
    }
}

/// The marks of the newer transaction of the two that the file begins with.
fn marks(file: &File) -> Option<Marks> {
    let at = |offset: u64| {
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, offset + HEAD as u64).ok()?;
        Marks::decode(&bytes).filter(|marks| marks.page_size >= 512)
    };
    // Where the first marks are damaged, the size of a page is not known yet.
    let first = at(0);
    let second = first.and_then(|first| at(u64::from(first.page_size))).or_else(|| {
        PAGE_SIZES.into_iter().find_map(|size| at(size).filter(|m| u64::from(m.page_size) == size))
    });
    first.into_iter().chain(second).max_by_key(|marks| marks.transaction)
}
