//! Files of environment variables that init containers leave for others: `NAME='value'` lines, where a value may span
//! several. Upstream's rules, which are a part of a shell's.

use std::path::Path;

/// How much of a file is read.
const FILE_BYTES: u64 = 1 << 20;

/// A file some variable takes its value from.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Where it is on this machine, for the error.
    pub path: String,
    /// Its text; `None` when it cannot be read.
    pub text: Option<String>,
}

impl File {
    /// Reads a file of a volume; one that leads out of it cannot be read.
    pub fn read(volume: &Path, path: &str) -> Self {
        use std::io::Read;
        let wanted = volume.join(path.trim_start_matches('/'));
        let shown = wanted.to_string_lossy().into_owned();
        let inside = || -> Option<String> {
            let root = volume.canonicalize().ok()?;
            let real = wanted.canonicalize().ok().filter(|real| real.starts_with(&root))?;
            // A pipe would keep us waiting.
            std::fs::metadata(&real).ok().filter(std::fs::Metadata::is_file)?;
            let mut text = String::new();
            std::fs::File::open(real).ok()?.take(FILE_BYTES).read_to_string(&mut text).ok()?;
            Some(text)
        };
        Self { path: shown, text: inside() }
    }
}

/// A line that is no definition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid environment variable format at line {line}: {why}")]
pub struct Invalid {
    line: usize,
    why: &'static str,
}

/// The value of the first definition of `key`, empty where there is none. What follows it is not looked at.
pub fn value(text: &str, key: &str) -> Result<String, Invalid> {
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let wrong = |why| Invalid { line: index + 1, why };
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("missing '='"))?;
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return Err(wrong("empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(wrong("whitespace before '=' is not allowed"));
        }
        if value.starts_with([' ', '\t']) {
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let rest = value.strip_prefix('\'');
        let mut rest = rest.ok_or_else(|| wrong("value must be enclosed in single quotes"))?;
        let mut found = String::new();
        loop {
            if let Some((inside, after)) = rest.split_once('\'') {
                let after = after.trim_start_matches([' ', '\t']);
                if !after.is_empty() && !after.starts_with('#') {
                    return Err(wrong("unexpected content after closing quote"));
                }
                found.push_str(inside);
                break;
            }
            found.push_str(rest);
            found.push('\n');
            rest = lines.next().ok_or_else(|| wrong("unclosed single quote"))?.1;
        }
        if name == key {
            return Ok(found);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        let text = "# c\n\n  A='1' # one\nB= 'x'\nC='two\nlines $A'\nD='e'f\n";
        assert_eq!(value(text, "A").unwrap(), "1");
        assert_eq!(value(text, "B").unwrap(), "");
        assert_eq!(value(text, "C").unwrap(), "two\nlines $A");
        assert_eq!(value(text, "D").unwrap_err().why, "unexpected content after closing quote");
        assert_eq!(value("", "A").unwrap(), "");
        for (text, why) in [
            ("A", "missing '='"),
            ("='x'", "empty variable name"),
            ("A ='x'", "whitespace before '=' is not allowed"),
            ("A=x", "value must be enclosed in single quotes"),
            ("A='x", "unclosed single quote"),
        ] {
            assert_eq!(value(text, "B").unwrap_err().why, why, "{text}");
        }
    }

    #[test]
    fn files_stay_in_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("env"), "A='1'").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("out")).unwrap();
        assert_eq!(File::read(dir.path(), "env").text.as_deref(), Some("A='1'"));
        assert_eq!(File::read(dir.path(), "out").text, None);
        assert_eq!(File::read(dir.path(), "../etc/hostname").text, None);
    }
}
