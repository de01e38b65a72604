//! Words that are not names (upstream: `reservedIds` of cel-go's parser).

/// Not names of variables or functions; as fields they are written `__word__`.
pub const RESERVED: [&str; 21] = [
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
