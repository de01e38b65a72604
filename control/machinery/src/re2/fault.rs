//! What is wrong with an expression, in Go's words (upstream: `regexp/syntax`'s `Error`).

/// What is said of a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    CharRange,
    Escape,
    NamedCapture,
    PerlOp,
    RepeatOp,
    RepeatSize,
    MissingBracket,
    MissingParen,
    MissingRepeatArgument,
    TrailingBackslash,
    UnexpectedParen,
    NestingDepth,
    Large,
}

impl Code {
    pub(super) fn words(self) -> &'static str {
        match self {
            Code::CharRange => "invalid character class range",
            Code::Escape => "invalid escape sequence",
            Code::NamedCapture => "invalid named capture",
            Code::PerlOp => "invalid or unsupported Perl syntax",
            Code::RepeatOp => "invalid nested repetition operator",
            Code::RepeatSize => "invalid repeat count",
            Code::MissingBracket => "missing closing ]",
            Code::MissingParen => "missing closing )",
            Code::MissingRepeatArgument => "missing argument to repetition operator",
            Code::TrailingBackslash => "trailing backslash at end of expression",
            Code::UnexpectedParen => "unexpected )",
            Code::NestingDepth => "expression nests too deeply",
            Code::Large => "expression too large",
        }
    }

    /// A fault of this kind in a part of an expression.
    pub(super) fn of(self, part: &str) -> Error {
        Error { code: self, part: part.to_owned() }
    }
}

/// A text that is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {}: `{part}`", code.words())]
pub struct Error {
    code: Code,
    part: String,
}

/// What of a text is before a tail of it.
pub(super) fn before<'a>(text: &'a str, tail: &str) -> &'a str {
    text.get(..text.len().saturating_sub(tail.len())).unwrap_or(text)
}
