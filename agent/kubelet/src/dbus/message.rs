//! Messages of D-Bus: a header, and values. Pure.

use super::wire::{Malformed, Reader, Value, align, signature};

/// What a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Somebody is to do something.
    #[default]
    Call,
    /// It was done.
    Return,
    /// It was not.
    Error,
    /// Something happened.
    Signal,
}

const KINDS: [(Kind, u8); 4] = [(Kind::Call, 1), (Kind::Return, 2), (Kind::Error, 3), (Kind::Signal, 4)];

/// A message; what does not apply to its kind is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Its sender's number for it, never zero.
    pub serial: u32,
    /// The object it is for, or from.
    pub path: String,
    /// The interface of the method or signal.
    pub interface: String,
    /// The method or signal.
    pub member: String,
    /// The error's name.
    pub error: String,
    /// The call it answers.
    pub reply: u32,
    /// Who is to get it.
    pub destination: String,
    /// Whom it is from.
    pub sender: String,
    /// How many files come with it.
    pub files: u32,
    /// Its values.
    pub body: Vec<Value>,
}

/// The header up to the length of its fields.
const HEAD: usize = 16;
/// No message may be longer.
const LONGEST: usize = 1 << 27;

impl Message {
    /// A call of an object's method.
    pub fn call(destination: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Self {
        Self {
            destination: destination.to_owned(),
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            body,
            ..Self::default()
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.iter().for_each(|value| value.write(&mut body));
        let kinds = signature(&self.body);
        let text = |code: u8, text: &str| (!text.is_empty()).then(|| field(code, Value::text(text)));
        let number = |code: u8, number: u32| (number > 0).then(|| field(code, Value::U32(number)));
        let fields = [
            (!self.path.is_empty()).then(|| field(1, Value::Path(self.path.clone()))),
            text(2, &self.interface),
            text(3, &self.member),
            text(4, &self.error),
            number(5, self.reply),
            text(6, &self.destination),
            text(7, &self.sender),
            (!kinds.is_empty()).then(|| field(8, Value::Signature(kinds.clone()))),
            number(9, self.files),
        ];
        let code = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, code)| *code);
        let mut out = vec![b'l', code, 0, 1];
        Value::U32(u32::try_from(body.len()).unwrap_or(u32::MAX)).write(&mut out);
        Value::U32(self.serial).write(&mut out);
        Value::Array("(yv)".to_owned(), fields.into_iter().flatten().collect()).write(&mut out);
        align(&mut out, 8);
        out.extend_from_slice(&body);
        out
    }

    /// How long the message is that begins here; `None` where too little of it is there to tell.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(head) = bytes.get(..HEAD) else { return Ok(None) };
        if head[0] != b'l' || head[3] != 1 {
            return Err(Malformed("byte order or version"));
        }
        let number = |at: usize| {
            let four = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            usize::try_from(u32::from_le_bytes(four)).unwrap_or(usize::MAX)
        };
        let (body, fields) = (number(4), number(12));
        if body > LONGEST || fields > LONGEST {
            return Err(Malformed("too long"));
        }
        Ok(Some((HEAD + fields).next_multiple_of(8) + body))
    }

    /// The message of exactly these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if Self::length(bytes)? != Some(bytes.len()) {
            return Err(Malformed("length"));
        }
        let mut reader = Reader::new(bytes);
        let head = reader.values("yyyyuua(yv)")?;
        let [_, Value::Byte(code), _, _, _, Value::U32(serial), Value::Array(_, fields)] = head.as_slice()
        else {
            return Err(Malformed("header"));
        };
        // Kinds to come are to be passed over: a signal that nobody waits for is.
        let kind = KINDS.iter().find(|(_, known)| known == code).map_or(Kind::Signal, |(kind, _)| *kind);
        let mut message = Self { kind, serial: *serial, ..Self::default() };
        let mut kinds = String::new();
        for field in fields {
            let Value::Struct(parts) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = parts.as_slice() else { continue };
            match (code, &**value) {
                (1, Value::Path(text)) => message.path.clone_from(text),
                (2, Value::Text(text)) => message.interface.clone_from(text),
                (3, Value::Text(text)) => message.member.clone_from(text),
                (4, Value::Text(text)) => message.error.clone_from(text),
                (5, Value::U32(number)) => message.reply = *number,
                (6, Value::Text(text)) => message.destination.clone_from(text),
                (7, Value::Text(text)) => message.sender.clone_from(text),
                (8, Value::Signature(text)) => kinds.clone_from(text),
                (9, Value::U32(number)) => message.files = *number,
                _ => {}
            }
        }
        reader.align(8)?;
        // The body's alignment is its own.
        let body = bytes.get(reader.position()..).unwrap_or_default();
        message.body = Reader::new(body).values(&kinds)?;
        Ok(message)
    }
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first call on any bus, as `dbus-send` writes it.
    #[test]
    fn a_call_is_the_bytes_of_the_specification() {
        let hello = Message {
            serial: 1,
            ..Message::call(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "Hello",
                Vec::new(),
            )
        };
        let mut want = vec![b'l', 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 109, 0, 0, 0];
        want.extend_from_slice(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
        want.extend_from_slice(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        want.extend_from_slice(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
        want.extend_from_slice(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        assert_eq!(hello.encode(), want);
        assert_eq!(Message::decode(&want), Ok(hello));
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let signal = Message {
            kind: Kind::Signal,
            serial: 7,
            sender: ":1.2".into(),
            path: "/org/freedesktop/login1".into(),
            interface: "org.freedesktop.login1.Manager".into(),
            member: "PrepareForShutdown".into(),
            body: vec![Value::Bool(true)],
            ..Message::default()
        };
        let failure = Message {
            kind: Kind::Error,
            serial: 3,
            reply: 2,
            error: "org.freedesktop.systemd1.UnitExists".into(),
            body: vec![Value::text("it is there")],
            ..Message::default()
        };
        for message in [signal, failure] {
            let bytes = message.encode();
            assert_eq!(Message::length(&bytes), Ok(Some(bytes.len())));
            assert_eq!(Message::length(&bytes[..10]), Ok(None));
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn what_is_no_message_must_not_be_taken_for_one() {
        assert!(Message::length(&[b'B'; 16]).is_err());
        assert!(Message::length(&[b'l', 1, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        let bytes = Message { serial: 1, ..Message::default() }.encode();
        assert!(Message::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
