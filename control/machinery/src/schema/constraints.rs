//! Constraints of the table on a value, whatever stands around it.

use crate::names;

/// What is wrong with a text; nothing where it fits.
pub(crate) type Format = fn(&str) -> Vec<String>;

/// The constraints of a field: attributes of its line, and the values its type enumerates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints {
    /// `filled`: empty is a missing value; absent is too, unless it is a pointer.
    pub(crate) filled: bool,
    /// `listed`: empty is not one of the values.
    pub(crate) listed: bool,
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    /// `bytes=`: the longest text.
    pub(crate) bytes: Option<usize>,
    pub(crate) format: Option<Format>,
    /// `fixed` or `fixed=N`: an update does not change it; where several changed they are reported by N.
    pub(crate) fixed: Option<u8>,
    /// `A | B`, as the alias has it; empty where the type is no enumeration.
    values: &'static str,
}

const FORMATS: [(&str, Format); 7] = [
    ("environment", names::env_var_name),
    ("key", names::config_map_key),
    ("label", names::dns1123_label),
    ("labelValue", names::label_value),
    ("qualified", names::qualified_name),
    ("segment", names::path_segment),
    ("subdomain", names::dns1123_subdomain),
];

impl Constraints {
    /// Reads a line's attributes; none where they and the type's values constrain nothing.
    pub(super) fn read<'w>(
        words: impl Iterator<Item = &'w str>,
        values: &'static str,
    ) -> Option<Box<Constraints>> {
        let mut found = Constraints { values, ..Constraints::default() };
        let mut any = !values.is_empty();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "filled" => found.filled = true,
                "listed" => found.listed = true,
                "min" => found.min = value.parse().ok(),
                "max" => found.max = value.parse().ok(),
                "bytes" => found.bytes = value.parse().ok(),
                "format" => found.format = FORMATS.iter().find(|(n, _)| *n == value).map(|(_, f)| *f),
                "fixed" => found.fixed = Some(value.parse().unwrap_or_default()),
                _ => continue,
            }
            any = true;
        }
        any.then(|| Box::new(found))
    }

    /// The values of an enumeration.
    pub(crate) fn values(&self) -> impl Iterator<Item = &'static str> + use<> {
        let listed = (!self.values.is_empty()).then(|| self.values.split(" | "));
        listed.into_iter().flatten().map(|value| if value == "''" { "" } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a field's line may say beside its name, number and type.
    const ATTRIBUTES: [&str; 18] = [
        "always", "bytes", "default", "filled", "fixed", "format", "inline", "list", "listed", "map", "max",
        "min", "nullable", "patch", "pointer", "proto", "required", "struct",
    ];

    #[test]
    fn a_misspelt_constraint_must_not_be_passed_over() {
        let table = include_str!("../../data/fields.txt");
        for line in table.lines().filter(|line| line.starts_with("  ")) {
            for word in line.split_whitespace().skip(3) {
                let (name, value) = word.split_once('=').unwrap_or((word, ""));
                assert!(ATTRIBUTES.contains(&name), "{line}");
                let read = match name {
                    "min" | "max" => value.parse::<i64>().is_ok(),
                    "bytes" => value.parse::<usize>().is_ok(),
                    "fixed" => value.is_empty() || value.parse::<u8>().is_ok(),
                    "format" => FORMATS.iter().any(|(format, _)| *format == value),
                    _ => true,
                };
                assert!(read, "{line}");
            }
        }
    }
}
