//! Flags as upstream's components take them (`spf13/pflag`): strict, by a table a component.
//!
//! The tables (`data/flags`) name every flag of upstream's 1.36. One that is in none is refused by name; one without effect here is read
//! as strictly as the others and named in a warning. `--name=value` and `--name value` are the same, but for booleans, which take
//! `=` only; `_` in a name reads as `-`; what is given twice is the last one, lists and maps add up.

mod value;

pub(crate) use value::{Kind, boolean};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Why a command line is refused, in upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: {0:?} in -{1}")]
    UnknownShorthand(char, String),
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("invalid argument {value:?} for \"--{name}\" flag: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error("{component:?} does not take any arguments, got [{arguments}]")]
    Arguments { component: String, arguments: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flag {
    name: &'static str,
    kind: Kind,
    used: bool,
    /// What it sets of the component's configuration, by paths between commas; empty where that has no field for it.
    fields: &'static str,
}

/// Stands in a table for "without effect".
const UNUSED: &str = "unused";

/// The flags of a component.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    component: &'static str,
    flags: Vec<Flag>,
}

impl Table {
    /// Reads a table: a line a flag, its name, its type, and `unused` where it has no effect here, or the field of the component's
    /// configuration that it is.
    pub(crate) fn read(component: &'static str, text: &'static str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let flag = |line: &'static str| {
            let mut words = line.split(' ');
            let (name, kind) = (words.next()?, Kind::named(words.next()?)?);
            let fields = words.next().unwrap_or_default();
            let used = fields != UNUSED;
            Some(Flag { name, kind, used, fields: if used { fields } else { "" } })
        };
        Self { component, flags: lines.filter_map(flag).collect() }
    }

    /// Every flag, for people.
    pub(crate) fn help(&self) -> String {
        let line = |flag: &Flag| {
            let note = if flag.used { "" } else { "   (without effect here)" };
            format!("  --{} {}{note}\n", flag.name, flag.kind.name())
        };
        format!("Usage:\n  {} [flags]\n\nFlags:\n", self.component)
            + &self.flags.iter().map(line).collect::<String>()
    }

    fn find(&self, name: &str) -> Option<Flag> {
        let name = name.replace('_', "-");
        // One flag of upstream's is spelt with underscores: its table says so.
        self.flags.iter().find(|flag| flag.name.replace('_', "-") == name).copied()
    }

    /// Reads a command line.
    pub(crate) fn parse(&self, arguments: &[String]) -> Result<Flags, Error> {
        let mut flags = Flags::default();
        let (mut rest, mut positional) = (arguments.iter(), Vec::new());
        while let Some(argument) = rest.next() {
            if argument == "--" {
                positional.extend(rest.by_ref().cloned());
            } else if let Some(text) = argument.strip_prefix("--") {
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text, None),
                };
                if name.is_empty() || name.starts_with('-') {
                    return Err(Error::Syntax(argument.clone()));
                }
                let flag = self.find(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
                let value = match (value, flag.kind) {
                    (Some(value), _) => value,
                    (None, Kind::Bool) => "true".to_owned(),
                    (None, _) => rest.next().cloned().ok_or_else(|| Error::NoValue(argument.clone()))?,
                };
                flags.take(flag, value)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                let value = self.shorthand(&argument[1..])?;
                let (flag, value) = match value {
                    (flag, Some(value)) => (flag, value),
                    (flag, None) => {
                        let missing = || Error::NoValue(format!("'v' in {argument}"));
                        (flag, rest.next().cloned().ok_or_else(missing)?)
                    }
                };
                flags.take(flag, value)?;
            } else {
                positional.push(argument.clone());
            }
        }
        match positional.is_empty() {
            true => Ok(flags),
            false => {
                let quoted: Vec<String> = positional.iter().map(|word| format!("{word:?}")).collect();
                Err(Error::Arguments { component: self.component.to_owned(), arguments: quoted.join(" ") })
            }
        }
    }

    /// `-h` and `-v`, the shorthands there are.
    fn shorthand(&self, text: &str) -> Result<(Flag, Option<String>), Error> {
        let mut letters = text.chars();
        let letter = letters.next().unwrap_or_default();
        let unknown = || Error::UnknownShorthand(letter, text.to_owned());
        let value = letters.as_str();
        let value = value.strip_prefix('=').unwrap_or(value);
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match letter {
            'h' => Ok((self.find("help").ok_or_else(unknown)?, Some("true".to_owned()))),
            'v' => Ok((self.find("v").ok_or_else(unknown)?, value)),
            _ => Err(unknown()),
        }
    }
}

/// What a command line says; every value is of its flag's type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    given: BTreeMap<&'static str, Vec<String>>,
    unused: Vec<&'static str>,
    /// Those given that are fields of the component's configuration.
    fields: Vec<Flag>,
}

impl Flags {
    fn take(&mut self, flag: Flag, value: String) -> Result<(), Error> {
        if let Err(reason) = flag.kind.check(&value) {
            return Err(Error::Invalid { name: flag.name.to_owned(), value, reason });
        }
        let values = self.given.entry(flag.name).or_default();
        if !flag.kind.adds_up() {
            values.clear();
        }
        match flag.kind {
            Kind::List | Kind::Map | Kind::Gates | Kind::Multimap => values.extend(value::elements(&value)),
            _ => values.push(value),
        }
        if !flag.used && !self.unused.contains(&flag.name) {
            self.unused.push(flag.name);
        }
        if !flag.fields.is_empty() && !self.fields.contains(&flag) {
            self.fields.push(flag);
        }
        Ok(())
    }

    /// What the flags say as the component's configuration would: only what was given, by the fields the table names.
    pub(crate) fn document(&self) -> serde_json::Value {
        let mut out = serde_json::Value::Object(serde_json::Map::new());
        for flag in &self.fields {
            let values = self.given.get(flag.name).map(Vec::as_slice).unwrap_or_default();
            let Some(value) = flag.kind.json(values) else { continue };
            for path in flag.fields.split(',') {
                // Every step is an object, made by the step before.
                let place = path.split('.').fold(&mut out, |at, name| &mut at[name]);
                *place = value.clone();
            }
        }
        out
    }

    /// Warns of what was given and has no effect.
    pub(crate) fn warn(&self) {
        for name in &self.unused {
            tracing::warn!("flag --{name} has no effect here");
        }
    }

    /// The flags that were given and have no effect.
    #[cfg(test)]
    pub(crate) fn unused(&self) -> &[&'static str] {
        &self.unused
    }

    /// The flags that were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.given.keys().copied()
    }

    /// A flag's text, unless it is empty, which stands for "not given".
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let last = self.given.get(name).and_then(|values| values.last());
        last.map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(|text| boolean(text).ok())
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    pub(crate) fn float(&self, name: &str) -> Option<f64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        let nanos = machinery::duration::parse(self.text(name)?).ok()?;
        Some(Duration::from_nanos(nanos.try_into().unwrap_or_default()))
    }

    pub(crate) fn ip(&self, name: &str) -> Option<IpAddr> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// The elements of a list or map (`key=value`), in order; `None` where it was not given.
    pub(crate) fn list(&self, name: &str) -> Option<&[String]> {
        self.given.get(name).map(Vec::as_slice)
    }

    pub(crate) fn port(&self, name: &str, default: u16) -> Result<u16, Error> {
        let Some(number) = self.int(name) else { return Ok(default) };
        let wrong = |_| Error::Invalid {
            name: name.to_owned(),
            value: number.to_string(),
            reason: "must be between 0 and 65535, inclusive".to_owned(),
        };
        u16::try_from(number).map_err(wrong)
    }
}

#[cfg(test)]
mod tests;
