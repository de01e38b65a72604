//! D-Bus' wire format: its values as bytes, in little-endian order. Pure. Specification: "Marshaling (Wire Format)" of the D-Bus
//! specification.

use std::fmt;

/// A value of one of the types that messages are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `h`: which of the files that came with the message.
    File(u32),
    /// `a`: the signature of its elements, and they.
    Array(String, Vec<Self>),
    /// `(`...`)`
    Struct(Vec<Self>),
    /// `{`..`}`, an entry of a dictionary.
    Entry(Box<(Self, Self)>),
    /// `v`
    Variant(Box<Self>),
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "malformed D-Bus message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// An array may not be longer.
const LONGEST_ARRAY: usize = 1 << 26;
/// Values may not be nested deeper.
const DEEPEST: u32 = 64;

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Texts.
    pub fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        Self::Array("s".to_owned(), texts.into_iter().map(Self::text).collect())
    }

    /// The signature of its type.
    pub fn signature(&self) -> String {
        let one = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::File(_) => "h",
            Self::Variant(_) => "v",
            Self::Array(of, _) => return format!("a{of}"),
            Self::Struct(parts) => return format!("({})", signature(parts)),
            Self::Entry(pair) => return format!("{{{}{}}}", pair.0.signature(), pair.1.signature()),
        };
        one.to_owned()
    }

    /// The text of a text or path.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) => Some(text),
            _ => None,
        }
    }

    /// Appends its bytes; `out` began at a multiple of eight.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(byte) => out.push(*byte),
            Self::Bool(is) => number(out, u32::from(*is).to_le_bytes()),
            Self::I16(value) => number(out, value.to_le_bytes()),
            Self::U16(value) => number(out, value.to_le_bytes()),
            Self::I32(value) => number(out, value.to_le_bytes()),
            Self::U32(value) | Self::File(value) => number(out, value.to_le_bytes()),
            Self::I64(value) => number(out, value.to_le_bytes()),
            Self::U64(value) => number(out, value.to_le_bytes()),
            Self::Double(value) => number(out, value.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                number(out, length(text.len()).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => {
                out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Array(of, items) => {
                align(out, 4);
                let at = out.len();
                out.extend_from_slice(&[0; 4]);
                // Padding before the first element does not count.
                align(out, alignment(of));
                let first = out.len();
                items.iter().for_each(|item| item.write(out));
                let bytes = length(out.len() - first).to_le_bytes();
                out[at..at + 4].copy_from_slice(&bytes);
            }
            Self::Struct(parts) => {
                align(out, 8);
                parts.iter().for_each(|part| part.write(out));
            }
            Self::Entry(pair) => {
                align(out, 8);
                pair.0.write(out);
                pair.1.write(out);
            }
            Self::Variant(value) => {
                Self::Signature(value.signature()).write(out);
                value.write(out);
            }
        }
    }
}

/// The signature of values one after another.
pub fn signature(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn number<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    align(out, N);
    out.extend_from_slice(&bytes);
}

/// Adds zeroes up to a multiple of `to`.
pub fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Where values of a type may begin.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// The first complete type of a signature, and what follows it.
fn first(signature: &str) -> Result<(&str, &str), Malformed> {
    let wrong = Malformed("signature");
    let bytes = signature.as_bytes();
    let arrays = bytes.iter().take_while(|byte| **byte == b'a').count();
    let rest = &bytes[arrays..];
    let own = match rest.first() {
        None => return Err(wrong),
        Some(b'(' | b'{') => {
            let mut open = 0_usize;
            let end = rest.iter().position(|byte| {
                match byte {
                    b'(' | b'{' => open += 1,
                    b')' | b'}' => open -= 1,
                    _ => {}
                }
                open == 0
            });
            end.ok_or(wrong)? + 1
        }
        Some(_) => 1,
    };
    signature.split_at_checked(arrays + own).ok_or(wrong)
}

/// Reads values from bytes that begin at a multiple of eight.
pub struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// From the first byte.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// All values of a signature.
    pub fn values(&mut self, signature: &str) -> Result<Vec<Value>, Malformed> {
        self.sequence(signature, 0)
    }

    /// Goes on at a multiple of `to`.
    pub fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let next = self.at.next_multiple_of(to);
        self.take(next - self.at).map(|_| ())
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("it ends too soon"))?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        self.take(N)?.try_into().map_err(|_| Malformed("number"))
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u32::from_le_bytes(self.number()?)).map_err(|_| Malformed("length"))
    }

    fn terminated(&mut self, count: usize) -> Result<String, Malformed> {
        let text = self.take(count)?.to_vec();
        if self.take(1)? != [0] {
            return Err(Malformed("text without its end"));
        }
        String::from_utf8(text).map_err(|_| Malformed("text that is no UTF-8"))
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let count = self.take(1)?.first().copied().unwrap_or_default();
        self.terminated(count.into())
    }

    fn sequence(&mut self, signature: &str, depth: u32) -> Result<Vec<Value>, Malformed> {
        let (mut rest, mut out) = (signature, Vec::new());
        while !rest.is_empty() {
            let (own, more) = first(rest)?;
            out.push(self.value(own, depth)?);
            rest = more;
        }
        Ok(out)
    }

    fn value(&mut self, of: &str, depth: u32) -> Result<Value, Malformed> {
        if depth > DEEPEST {
            return Err(Malformed("nested too deep"));
        }
        let inner = || of.get(1..of.len() - 1).unwrap_or_default();
        Ok(match of.as_bytes().first() {
            Some(b'y') => Value::Byte(u8::from_le_bytes(self.number()?)),
            Some(b'b') => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            Some(b'n') => Value::I16(i16::from_le_bytes(self.number()?)),
            Some(b'q') => Value::U16(u16::from_le_bytes(self.number()?)),
            Some(b'i') => Value::I32(i32::from_le_bytes(self.number()?)),
            Some(b'u') => Value::U32(u32::from_le_bytes(self.number()?)),
            Some(b'x') => Value::I64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::U64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.number()?)),
            Some(b'h') => Value::File(u32::from_le_bytes(self.number()?)),
            Some(b's') => {
                let count = self.size()?;
                Value::Text(self.terminated(count)?)
            }
            Some(b'o') => {
                let count = self.size()?;
                Value::Path(self.terminated(count)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let own = self.signature()?;
                match self.sequence(&own, depth + 1)?.as_mut_slice() {
                    [one] => Value::Variant(Box::new(one.clone())),
                    _ => return Err(Malformed("variant")),
                }
            }
            Some(b'a') => {
                let element = of.get(1..).unwrap_or_default();
                let count = self.size()?;
                if count > LONGEST_ARRAY {
                    return Err(Malformed("array too long"));
                }
                self.align(alignment(element))?;
                let end = self.at + count;
                let mut items = Vec::new();
                while self.at < end {
                    items.push(self.value(element, depth + 1)?);
                }
                if self.at != end {
                    return Err(Malformed("array"));
                }
                Value::Array(element.to_owned(), items)
            }
            Some(b'(') => {
                self.align(8)?;
                let parts = self.sequence(inner(), depth + 1)?;
                // One without parts takes no bytes: an array of them would have no end.
                if parts.is_empty() {
                    return Err(Malformed("empty structure"));
                }
                Value::Struct(parts)
            }
            Some(b'{') => {
                self.align(8)?;
                let mut parts = self.sequence(inner(), depth + 1)?.into_iter();
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(key), Some(value), None) => Value::Entry(Box::new((key, value))),
                    _ => return Err(Malformed("dictionary")),
                }
            }
            _ => return Err(Malformed("type")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    /// Values and their bytes, by hand from the specification.
    #[test]
    fn values_are_the_bytes_of_the_specification() {
        let property =
            Value::Struct(vec![Value::text("CPUWeight"), Value::Variant(Box::new(Value::U64(39)))]);
        let vectors: [(Value, &[u8]); 7] = [
            (Value::Bool(true), &[1, 0, 0, 0]),
            (Value::text("foo"), &[3, 0, 0, 0, b'f', b'o', b'o', 0]),
            (Value::Signature("a{sv}".into()), &[5, b'a', b'{', b's', b'v', b'}', 0]),
            (
                Value::Array("t".into(), vec![Value::U64(5)]),
                &[8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Value::Array("t".into(), Vec::new()), &[0, 0, 0, 0, 0, 0, 0, 0]),
            (Value::texts(["a", "b"]), &[14, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 1, 0, 0, 0, b'b', 0]),
            (
                property,
                &[
                    9, 0, 0, 0, b'C', b'P', b'U', b'W', b'e', b'i', b'g', b'h', b't', 0, // s
                    1, b't', 0, // signature
                    0, 0, 0, 0, 0, 0, 0, // padding to 24
                    39, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ];
        for (value, want) in vectors {
            assert_eq!(bytes(&value), want, "{value:?}");
            let read = Reader::new(want).values(&value.signature()).unwrap();
            assert_eq!(read, [value]);
        }
    }

    #[test]
    fn every_type_is_read_as_it_was_written() {
        let all = vec![
            Value::Byte(7),
            Value::I16(-2),
            Value::U16(9),
            Value::I32(-5),
            Value::U32(5),
            Value::I64(-1),
            Value::Double(0.5),
            Value::Path("/a".into()),
            Value::File(0),
            Value::Array(
                "{sv}".into(),
                vec![Value::Entry(Box::new((
                    Value::text("k"),
                    Value::Variant(Box::new(Value::texts(["x"]))),
                )))],
            ),
        ];
        let mut out = Vec::new();
        all.iter().for_each(|value| value.write(&mut out));
        let kinds = signature(&all);
        assert_eq!(kinds, "ynqiuxdoha{sv}");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.values(&kinds).unwrap(), all);
        assert_eq!(reader.position(), out.len());
    }

    #[test]
    fn a_malformed_message_must_not_be_read_or_read_for_ever() {
        for (signature, bytes) in [
            ("s", &[200, 0, 0, 0, b'a'][..]),
            ("s", &[1, 0, 0, 0, b'a', 1]),
            ("s", &[1, 0, 0, 0, 0xff, 0]),
            ("a()", &[1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("(", &[0; 8]),
            ("z", &[0; 8]),
            ("a", &[4, 0, 0, 0, 0]),
            ("v", &[2, b's', b's', 0, 0, 0, 0, 0]),
            ("at", &[255, 255, 255, 255, 0, 0, 0, 0]),
            ("{sss}", &[0; 64]),
            (")", &[0; 8]),
        ] {
            assert!(Reader::new(bytes).values(signature).is_err(), "{signature} {bytes:?}");
        }
        // A variant of a variant of a variant, and so on.
        let deep = [1, b'v', 0].repeat(500);
        assert_eq!(Reader::new(&deep).values("v"), Err(Malformed("nested too deep")));
    }
}
