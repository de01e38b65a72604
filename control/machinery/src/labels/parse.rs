//! The query language's grammar. Its errors are matched on, so they name what upstream's parser names.

use super::{Error, Operator, Requirement, key_error};
use crate::field::Path;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    NotEquals,
    Open,
    In,
    NotIn,
    Word,
    Bad,
}

const SYMBOLS: [(&str, Token); 9] = [
    (")", Token::Close),
    (",", Token::Comma),
    ("!", Token::Not),
    ("==", Token::DoubleEquals),
    ("=", Token::Equals),
    (">", Token::Greater),
    ("<", Token::Less),
    ("!=", Token::NotEquals),
    ("(", Token::Open),
];

struct Item {
    token: Token,
    text: String,
}

struct Parser {
    items: Vec<Item>,
    position: usize,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn scan(mut rest: &str) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        // Upstream's lexer takes a NUL for the end of the text.
        if rest.is_empty() || rest.starts_with('\0') {
            items.push(Item { token: Token::End, text: String::new() });
            return items;
        }
        let (item, len) = if rest.starts_with(is_symbol) { symbol(rest) } else { word(rest) };
        items.push(item);
        rest = &rest[len..];
    }
}

fn word(rest: &str) -> (Item, usize) {
    let end = rest.find(|c| is_symbol(c) || is_space(c) || c == '\0').unwrap_or(rest.len());
    let token = match &rest[..end] {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Word,
    };
    (Item { token, text: rest[..end].to_owned() }, end)
}

/// The longest symbol the text starts with; every single symbol character but the two-character ones is one.
fn symbol(rest: &str) -> (Item, usize) {
    let longest = SYMBOLS.iter().filter(|(s, _)| rest.starts_with(s)).max_by_key(|(s, _)| s.len());
    match longest {
        Some((text, token)) => (Item { token: token.clone(), text: (*text).to_owned() }, text.len()),
        None => {
            (Item { token: Token::Bad, text: format!("error expected: keyword found '{rest}'") }, rest.len())
        }
    }
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut parser = Parser { items: scan(text), position: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Word | Token::Not, _) => {
                let requirement = parser
                    .requirement()
                    .map_err(|e| Error(format!("unable to parse requirement: {}", e.0)))?;
                requirements.push(requirement);
                match parser.take() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match parser.peek() {
                        (Token::Word | Token::Not, _) => {}
                        (_, text) => {
                            return Err(Error(format!("found '{text}', expected: identifier after ','")));
                        }
                    },
                    (_, text) => {
                        return Err(Error(format!("found '{text}', expected: ',' or 'end of string'")));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, text) => {
                return Err(Error(format!("found '{text}', expected: !, identifier, or 'end of string'")));
            }
        }
    }
}

impl Parser {
    /// The next item, where `in` and `notin` are ordinary words.
    fn peek(&self) -> (Token, String) {
        match self.raw() {
            Some(Item { token: Token::In | Token::NotIn, text }) => (Token::Word, text.clone()),
            Some(item) => (item.token.clone(), item.text.clone()),
            None => (Token::End, String::new()),
        }
    }

    fn take(&mut self) -> (Token, String) {
        let item = self.peek();
        self.position += 1;
        item
    }

    fn raw(&self) -> Option<&Item> {
        self.items.get(self.position)
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        let (key, negated) = self.key()?;
        let unary = matches!(self.peek().0, Token::End | Token::Comma);
        if negated || unary {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(&key, operator, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn key(&mut self) -> Result<(String, bool), Error> {
        let (mut token, mut text) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, text) = self.take();
        }
        if token != Token::Word {
            return Err(Error(format!("found '{text}', expected: identifier")));
        }
        match key_error(&text, &Path::root()) {
            Some(error) => Err(Error(error.to_string())),
            None => Ok((text, negated)),
        }
    }

    fn operator(&mut self) -> Result<Operator, Error> {
        let operator = match self.raw().map(|i| &i.token) {
            Some(Token::In) => Operator::In,
            Some(Token::NotIn) => Operator::NotIn,
            Some(Token::Equals) => Operator::Equals,
            Some(Token::DoubleEquals) => Operator::DoubleEquals,
            Some(Token::NotEquals) => Operator::NotEquals,
            Some(Token::Greater) => Operator::GreaterThan,
            Some(Token::Less) => Operator::LessThan,
            _ => {
                let (_, text) = self.peek();
                return Err(Error(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")));
            }
        };
        self.position += 1;
        Ok(operator)
    }

    fn values(&mut self) -> Result<BTreeSet<String>, Error> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(Error(format!("found '{text}' expected: '('")));
        }
        match self.peek() {
            (Token::Word | Token::Comma, first) => {
                let values = self.word_list()?;
                match self.take().0 {
                    Token::Close => Ok(values),
                    // Upstream names the first value here, not what it found.
                    _ => Err(Error(format!("found '{first}', expected: ')'"))),
                }
            }
            (Token::Close, _) => {
                self.position += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            (_, text) => Err(Error(format!("found '{text}', expected: ',', ')' or identifier"))),
        }
    }

    /// Words parted by commas; nothing before, between or after commas is the empty value.
    fn word_list(&mut self) -> Result<BTreeSet<String>, Error> {
        let mut values = BTreeSet::new();
        loop {
            match self.take() {
                (Token::Word, text) => {
                    values.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(Error(format!("found '{text}', expected: ',' or ')'"))),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(Error(format!("found '{text}', expected: ',', or identifier"))),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, Error> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.take() {
            (Token::Word, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(Error(format!("found '{text}', expected: identifier"))),
        }
    }
}
