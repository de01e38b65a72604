//! Text to tokens.

use super::Problem;
use super::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    Literal(Value),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}", "=", "&",
];
/// Tokens with their places, in characters.
pub(super) fn lex(text: &str) -> Result<Vec<(usize, Token)>, Problem> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        out.push((at, token));
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn blanks(&mut self) {
        while let Some(c) = self.peek(0) {
            if c.is_whitespace() {
                self.at += 1;
            } else if c == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                break;
            }
        }
    }

    fn problem(&self, text: String) -> Problem {
        Problem { at: self.at, text }
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return self.number();
        }
        if let Some((raw, bytes, length)) = self.quote_prefix() {
            self.at += length;
            return self.text(raw, bytes);
        }
        if c == '_' || c.is_ascii_alphabetic() {
            return Ok(self.word());
        }
        if c == '`' {
            return self.quoted_name();
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(i, s)| self.peek(i) == Some(s)) {
                if matches!(symbol, "=" | "&") {
                    break;
                }
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        Err(self.problem(format!("Syntax error: token recognition error at: '{c}'")))
    }

    /// `r`, `b` or both, before a quote: raw, bytes, how long.
    fn quote_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes, mut length) = (false, false, 0);
        while let Some(c) = self.peek(length) {
            match c {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '"' | '\'' => return Some((raw, bytes, length)),
                _ => return None,
            }
            length += 1;
        }
        None
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c == '_' || c.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        match word.as_str() {
            "true" => Token::Literal(Value::Bool(true)),
            "false" => Token::Literal(Value::Bool(false)),
            "null" => Token::Literal(Value::Null),
            _ => Token::Ident(word),
        }
    }

    /// A field's name in backquotes.
    fn quoted_name(&mut self) -> Result<Token, Problem> {
        let start = self.at + 1;
        let end = (start..self.chars.len()).find(|i| self.chars[*i] == '`');
        let Some(end) = end else {
            return Err(self.problem("Syntax error: token recognition error at: '`'".to_owned()));
        };
        self.at = end + 1;
        Ok(Token::Ident(self.chars[start..end].iter().collect()))
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let from = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
            let digits: String = self.chars[from..self.at].iter().collect();
            return self.integer(u64::from_str_radix(&digits, 16).ok());
        }
        let mut float = false;
        while let Some(c) = self.peek(0) {
            match c {
                '0'..='9' => {}
                '.' if !float && self.peek(1).is_some_and(|d| d.is_ascii_digit()) => float = true,
                'e' | 'E' => {
                    let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
                    if !self.peek(1 + sign).is_some_and(|d| d.is_ascii_digit()) {
                        break;
                    }
                    float = true;
                    self.at += sign;
                }
                _ => break,
            }
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if float {
            return match text.parse() {
                Ok(f) => Ok(Token::Literal(Value::Double(f))),
                Err(_) => Err(self.problem("invalid double literal".to_owned())),
            };
        }
        self.integer(text.parse().ok())
    }

    fn integer(&mut self, value: Option<u64>) -> Result<Token, Problem> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        self.at += usize::from(unsigned);
        match value {
            Some(n) if unsigned => Ok(Token::Literal(Value::Uint(n))),
            // The parser takes it with a minus before it only.
            Some(n) if n == 1 << 63 => Ok(Token::Literal(Value::Uint(n))),
            Some(n) => i64::try_from(n)
                .map(|n| Token::Literal(Value::Int(n)))
                .map_err(|_| self.problem("invalid int literal".to_owned())),
            None => Err(self.problem("invalid int literal".to_owned())),
        }
    }

    fn text(&mut self, raw: bool, bytes: bool) -> Result<Token, Problem> {
        let quote = self.peek(0).unwrap_or('"');
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if long { 3 } else { 1 };
        self.at += width;
        let mut out: Vec<u8> = Vec::new();
        let mut push = |c: char| out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        loop {
            let Some(c) = self.peek(0) else {
                return Err(
                    self.problem("Syntax error: token recognition error: unterminated string".to_owned())
                );
            };
            if (0..width).all(|i| self.peek(i) == Some(quote)) {
                self.at += width;
                break;
            }
            if c == '\n' && !long {
                return Err(
                    self.problem("Syntax error: token recognition error: unterminated string".to_owned())
                );
            }
            self.at += 1;
            if c != '\\' || raw {
                push(c);
                continue;
            }
            let Some(escaped) = self.peek(0) else { continue };
            self.at += 1;
            match escaped {
                'n' => push('\n'),
                't' => push('\t'),
                'r' => push('\r'),
                'a' => push('\u{7}'),
                'b' => push('\u{8}'),
                'f' => push('\u{c}'),
                'v' => push('\u{b}'),
                '\\' | '\'' | '"' | '`' | '?' => push(escaped),
                'x' | 'X' => push(self.code(2, 16)?),
                'u' => push(self.code(4, 16)?),
                'U' => push(self.code(8, 16)?),
                '0'..='3' => {
                    self.at -= 1;
                    push(self.code(3, 8)?);
                }
                other => {
                    let text = format!("Syntax error: token recognition error at: '\\{other}'");
                    return Err(self.problem(text));
                }
            }
        }
        if bytes {
            return Ok(Token::Literal(Value::Bytes(out.into())));
        }
        Ok(Token::Literal(Value::text_of(&String::from_utf8_lossy(&out))))
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<char, Problem> {
        let end = (self.at + digits).min(self.chars.len());
        let text: String = self.chars[self.at..end].iter().collect();
        self.at = end;
        u32::from_str_radix(&text, radix)
            .ok()
            .filter(|_| text.len() == digits)
            .and_then(char::from_u32)
            .ok_or_else(|| self.problem("Syntax error: invalid escape".to_owned()))
    }
}
