//! Messages of `channel.k8s.io`: the first byte names a channel. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes; version 5 adds the closing of a channel.
    Binary {
        /// Version 5.
        closes: bool,
    },
    /// Version 4 with base64 in text.
    Base64,
}

/// The versions translated here. Older ones say less about a command's end and are left to the runtime.
pub const PROTOCOLS: &[(&str, Protocol)] = &[
    ("v5.channel.k8s.io", Protocol::Binary { closes: true }),
    ("v4.channel.k8s.io", Protocol::Binary { closes: false }),
    ("v4.base64.channel.k8s.io", Protocol::Base64),
];

pub mod number {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    /// How the command ended.
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
    /// Not a channel: the next byte is one that is closed.
    pub const CLOSE: u8 = 255;
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Bytes for a channel.
    Bytes(u8, Bytes),
    /// Nothing more for a channel.
    Close(u8),
    Leave,
    Nothing,
}

impl Protocol {
    /// Reads a message; `Err` for what the protocol does not allow.
    pub fn read(self, message: Message) -> Result<ClientMessage, &'static str> {
        let (channel, rest) = match (message, self) {
            (Message::Close(_), _) => return Ok(ClientMessage::Leave),
            (Message::Ping(_) | Message::Pong(_) | Message::Frame(_), _) => {
                return Ok(ClientMessage::Nothing);
            }
            (Message::Binary(mut bytes), Self::Binary { .. }) => {
                if bytes.is_empty() {
                    return Ok(ClientMessage::Nothing);
                }
                let channel = bytes.split_to(1)[0];
                (channel, bytes)
            }
            (Message::Text(text), Self::Base64) => {
                let Some((digit, rest)) = text.as_bytes().split_first() else {
                    return Ok(ClientMessage::Nothing);
                };
                let rest = STANDARD.decode(rest).map_err(|_| "message is no base64")?;
                (digit.wrapping_sub(b'0'), Bytes::from(rest))
            }
            _ => return Err("message of the other type"),
        };
        if channel == number::CLOSE && self == (Self::Binary { closes: true }) {
            return rest.first().map(|closed| ClientMessage::Close(*closed)).ok_or("no channel to close");
        }
        Ok(ClientMessage::Bytes(channel, rest))
    }

    /// A message of a channel.
    pub fn write(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Self::Binary { .. } => Message::Binary([&[channel], bytes].concat().into()),
            Self::Base64 => {
                let mut text = char::from(b'0' + channel).to_string();
                STANDARD.encode_string(bytes, &mut text);
                Message::Text(text.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn closing_is_version_5s_alone() {
        let message = || Message::Binary(vec![255, 0].into());
        assert_eq!(Protocol::Binary { closes: true }.read(message()), Ok(ClientMessage::Close(0)));
        let bytes = ClientMessage::Bytes(255, Bytes::from_static(&[0]));
        assert_eq!(Protocol::Binary { closes: false }.read(message()), Ok(bytes));
        assert!(Protocol::Base64.read(message()).is_err());
        assert!(Protocol::Base64.read(Message::Text("0*".into())).is_err());
    }

    proptest! {
        #[test]
        fn messages_come_back(channel in 0u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for (_, protocol) in PROTOCOLS {
                let said = protocol.read(protocol.write(channel, &bytes));
                prop_assert_eq!(said, Ok(ClientMessage::Bytes(channel, bytes.clone().into())));
            }
        }
    }
}
