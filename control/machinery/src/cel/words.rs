//! Words that are not names (upstream: `reservedIds` of cel-go's parser).

/// Not names of variables or functions; as fields they are written `__word__`.
pub(crate) const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// How a field that is called like a reserved word is written, too.
pub(super) fn escaped(field: &str) -> Option<String> {
    RESERVED.contains(&field).then(|| format!("__{field}__"))
}

/// A field's name in expressions; none where it cannot be written (upstream: `cel.Escape`).
#[must_use]
pub(crate) fn field_name(name: &str) -> Option<String> {
    if let Some(escaped) = escaped(name) {
        return Some(escaped);
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    is_identifier(&escaped).then_some(escaped)
}

/// Whether it may name a variable, reserved words aside.
#[must_use]
pub(crate) fn is_identifier(name: &str) -> bool {
    let fits = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.starts_with(|c: char| fits(c) && !c.is_ascii_digit()) && name.chars().all(fits)
}
