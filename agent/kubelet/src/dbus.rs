//! A client of the system's D-Bus: what the kubelet asks systemd (slices) and logind (the machine's shutdown).
//!
//! Our own, since what is needed is small (calls, signals, files that come with an answer) and `zbus` brings an executor, a reactor and threads of its
//! own into an agent that is to be small. [`wire`] and [`message`] are pure; this is the connection.
//!
//! Promises: every call has an answer or an error within [`PATIENCE`]; a signal that comes meanwhile is kept for [`Connection::signal`], which gives
//! none that somebody else sent in its sender's place; a connection that failed is of no further use, and is made anew by whoever needs it.

pub(crate) mod message;
pub(crate) mod wire;

#[cfg(test)]
pub(crate) mod fake;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use message::{Kind, Message};
use wire::{Malformed, Value};

/// Where the system's bus listens.
pub(crate) const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest line of the greeting.
const LONGEST_LINE: usize = 4096;
/// Bytes that are read at once.
const CHUNK: usize = 4096;
/// So many files may come with what is read at once.
const MOST_FILES: usize = 16;
/// So many signals are kept for those who ask later.
const MOST_SIGNALS: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Nobody has the name that was asked about.
const NO_OWNER: &str = "org.freedesktop.DBus.Error.NameHasNoOwner";

/// Why the bus is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, or it went away.
    #[error("D-Bus: {0}")]
    Io(#[from] io::Error),
    /// It does not let us in.
    #[error("D-Bus refused the connection: {0:?}")]
    Refused(String),
    /// It says what nobody understands.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What was called failed.
    #[error("{member}: {text} ({name})")]
    Failed {
        /// The method.
        member: String,
        /// The error's name, `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// What it says.
        text: String,
    },
    /// An answer took too long.
    #[error("{0}: no answer in time")]
    Late(String),
    /// An answer is not what the method promises.
    #[error("{0}: unexpected answer")]
    Unexpected(&'static str),
}

impl Error {
    /// The name of a failure.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Failed { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// What a call gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<Value>,
    /// Files that came with it, in the order in which [`Value::File`] counts them.
    pub(crate) files: Vec<OwnedFd>,
}

/// A signal that is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    /// The well-known name of whose it is.
    pub(crate) sender: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) member: &'static str,
}

impl Signal {
    fn rule(&self) -> String {
        let Self { sender, path, interface, member } = self;
        format!("type='signal',sender='{sender}',path='{path}',interface='{interface}',member='{member}'")
    }

    fn is(&self, message: &Message) -> bool {
        (self.path, self.interface, self.member)
            == (message.path.as_str(), message.interface.as_str(), message.member.as_str())
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    input: Vec<u8>,
    files: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
    /// Who had a well-known name when the bus was asked last. The bus gives what a connection is called to no other one.
    owners: BTreeMap<&'static str, String>,
}

impl Connection {
    /// Connects to the bus that listens at `path`, and says hello.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let opening = async {
            let stream = UnixStream::connect(path).await?;
            let (input, files, signals) = (Vec::new(), VecDeque::new(), VecDeque::new());
            let owners = BTreeMap::new();
            let mut bus = Self { stream, serial: 0, input, files, signals, owners };
            bus.greet().await?;
            Ok::<_, Error>(bus)
        };
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let mut bus = opened.map_err(|_| Error::Late("connect".to_owned()))??;
        bus.call(Message::call(BUS, BUS_PATH, BUS, "Hello", Vec::new())).await?;
        Ok(bus)
    }

    /// We are who the kernel says that we are.
    async fn greet(&mut self) -> Result<(), Error> {
        let uid: String =
            nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).await?;
        self.expect("OK").await?;
        self.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        self.expect("AGREE_UNIX_FD").await?;
        self.stream.write_all(b"BEGIN\r\n").await?;
        Ok(())
    }

    async fn expect(&mut self, word: &str) -> Result<(), Error> {
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let rest = self.input.split_off(end + 2);
                let line = std::mem::replace(&mut self.input, rest);
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                return if line.starts_with(word) { Ok(()) } else { Err(Error::Refused(line)) };
            }
            if self.input.len() > LONGEST_LINE {
                return Err(Error::Refused("a line without an end".to_owned()));
            }
            self.fill().await?;
        }
    }

    /// Reads what is there, as soon as something is.
    async fn fill(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; CHUNK];
        let (stream, files) = (&self.stream, &mut self.files);
        let read = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = message {
                    files.extend(more);
                }
            }
            Ok(received.bytes)
        });
        let count = read.await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }

    /// The next message, and the files that came with it. What was read of a message is kept where this is dropped.
    async fn receive(&mut self) -> Result<(Message, Vec<OwnedFd>), Error> {
        loop {
            if let Some(length) = Message::length(&self.input)?.filter(|length| *length <= self.input.len()) {
                let rest = self.input.split_off(length);
                let message = Message::decode(&std::mem::replace(&mut self.input, rest))?;
                let count = usize::try_from(message.files).unwrap_or(usize::MAX).min(self.files.len());
                let files = self.files.drain(..count).collect();
                return Ok((message, files));
            }
            self.fill().await?;
        }
    }

    /// Calls a method, and waits for what it gives.
    pub(crate) async fn call(&mut self, mut call: Message) -> Result<Answer, Error> {
        self.serial = self.serial.wrapping_add(1).max(1);
        call.serial = self.serial;
        let (serial, member) = (call.serial, call.member.clone());
        let answering = async {
            self.stream.write_all(&call.encode()).await?;
            loop {
                let (message, files) = self.receive().await?;
                match message.kind {
                    Kind::Return if message.reply == serial => {
                        return Ok(Answer { body: message.body, files });
                    }
                    Kind::Error if message.reply == serial => {
                        let text = message.body.first().and_then(Value::as_text).unwrap_or_default();
                        return Err(Error::Failed {
                            member: call.member.clone(),
                            name: message.error.clone(),
                            text: text.to_owned(),
                        });
                    }
                    Kind::Signal => self.keep(message),
                    // Nobody calls us, and answers to calls that were given up are late.
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, answering).await.map_err(|_| Error::Late(member))?
    }

    fn keep(&mut self, signal: Message) {
        if self.signals.len() == MOST_SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(signal);
    }

    /// Has the bus pass on a signal.
    pub(crate) async fn listen(&mut self, signal: &Signal) -> Result<(), Error> {
        self.call(Message::call(BUS, BUS_PATH, BUS, "AddMatch", vec![Value::text(signal.rule())])).await?;
        Ok(())
    }

    /// The next such signal, however long it takes; none is lost where this is dropped. What the bus was told to pass on is not all that comes:
    /// anybody may send a signal straight to this connection, so the sender must be the one who has the name.
    pub(crate) async fn signal(&mut self, wanted: &Signal) -> Result<Message, Error> {
        // Whom the bus was asked about.
        let mut asked = String::new();
        loop {
            let Some(signal) = self.signals.pop_front() else {
                let (message, _) = self.receive().await?;
                if message.kind == Kind::Signal {
                    self.keep(message);
                }
                continue;
            };
            if !wanted.is(&signal) {
                continue;
            }
            if self.owners.get(wanted.sender).is_some_and(|owner| *owner == signal.sender) {
                return Ok(signal);
            }
            if asked == signal.sender {
                tracing::warn!(
                    sender = asked,
                    name = wanted.sender,
                    "a signal in the place of somebody else"
                );
                continue;
            }
            asked.clone_from(&signal.sender);
            self.signals.push_front(signal);
            self.find_owner(wanted.sender).await?;
        }
    }

    /// Asks who has a well-known name now.
    async fn find_owner(&mut self, name: &'static str) -> Result<(), Error> {
        match self.call(Message::call(BUS, BUS_PATH, BUS, "GetNameOwner", vec![Value::text(name)])).await {
            Ok(answer) => {
                let owner = answer.body.first().and_then(Value::as_text);
                let owner = owner.ok_or(Error::Unexpected("GetNameOwner"))?;
                self.owners.insert(name, owner.to_owned());
            }
            Err(error) if error.name() == Some(NO_OWNER) => drop(self.owners.remove(name)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A property of an object.
    pub(crate) async fn property(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<Value, Error> {
        let body = vec![Value::text(interface), Value::text(name)];
        let answer = self.call(Message::call(destination, path, PROPERTIES, "Get", body)).await?;
        match answer.body.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(Error::Unexpected("Get")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{Bus, Reply};
    use super::*;

    const HAPPENED: Signal = Signal { sender: "org.example", path: "/o", interface: "i", member: "Happened" };

    #[tokio::test]
    async fn calls_are_answered_and_signals_that_come_meanwhile_must_not_be_lost() {
        let bus = Bus::start(|call| match call.member.as_str() {
            "Get" => vec![
                Reply::Signal("/o", "i", "Happened", vec![Value::U32(1)]),
                Reply::Return(vec![Value::Variant(Box::new(Value::U64(5)))]),
            ],
            "Fail" => vec![Reply::Error("org.example.No", "not so")],
            _ => vec![Reply::Return(Vec::new())],
        });
        let mut connection = Connection::open(bus.path()).await.unwrap();
        connection.listen(&HAPPENED).await.unwrap();
        let value = connection.property("org.example", "/o", "i", "Delay").await.unwrap();
        assert_eq!(value, Value::U64(5));
        let signal = connection.signal(&HAPPENED).await.unwrap();
        assert_eq!((signal.member.as_str(), signal.body.as_slice()), ("Happened", &[Value::U32(1)][..]));
        let error =
            connection.call(Message::call("org.example", "/o", "i", "Fail", Vec::new())).await.unwrap_err();
        assert_eq!(error.to_string(), "Fail: not so (org.example.No)");
        assert_eq!(error.name(), Some("org.example.No"));
        assert_eq!(bus.members(), ["Hello", "AddMatch", "Get", "GetNameOwner", "Fail"]);
        let rule = bus.calls("AddMatch").remove(0).body;
        let text = "type='signal',sender='org.example',path='/o',interface='i',member='Happened'";
        assert_eq!(rule, [Value::text(text)]);
    }

    #[tokio::test]
    async fn a_signal_in_the_place_of_somebody_else_must_not_be_taken_for_theirs() {
        let bus = Bus::start(|_| vec![Reply::Return(Vec::new())]);
        let mut connection = Connection::open(bus.path()).await.unwrap();
        let tell =
            |sender: &str, number| bus.tell_as(sender, "/o", "i", "Happened", vec![Value::U32(number)]);
        tell(":1.99", 1);
        bus.tell("/o", "i", "SomethingElse", vec![Value::U32(2)]);
        bus.tell("/o", "i", "Happened", vec![Value::U32(3)]);
        assert_eq!(connection.signal(&HAPPENED).await.unwrap().body, [Value::U32(3)]);
        // The name has gone to another connection.
        bus.give_names_to(":1.7");
        tell(":1.7", 4);
        assert_eq!(connection.signal(&HAPPENED).await.unwrap().body, [Value::U32(4)]);
        // Nobody has it.
        bus.give_names_to("");
        tell(":1.8", 5);
        let none = connection.signal(&HAPPENED);
        assert!(tokio::time::timeout(Duration::from_millis(100), none).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_comes_with_an_answer_is_ours() {
        let bus = Bus::start(|call| match call.member.as_str() {
            "Inhibit" => vec![Reply::File],
            _ => vec![Reply::Return(Vec::new())],
        });
        let mut connection = Connection::open(bus.path()).await.unwrap();
        let answer =
            connection.call(Message::call("org.example", "/o", "i", "Inhibit", Vec::new())).await.unwrap();
        assert_eq!((answer.body, answer.files.len()), (vec![Value::File(0)], 1));
        assert!(bus.is_held());
        drop(answer.files);
        // The bus's own copy goes once it has sent it.
        for _ in 0..1000 {
            if !bus.is_held() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("somebody still holds it");
    }

    #[tokio::test]
    async fn a_bus_that_is_not_there_or_does_not_let_us_in_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Connection::open(&dir.path().join("none")).await;
        assert!(matches!(nobody, Err(Error::Io(_))));
        let path = dir.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refusing = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut peer, _) = listener.accept().unwrap();
            let mut buffer = [0; 64];
            assert!(peer.read(&mut buffer).unwrap() > 0);
            peer.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        });
        let refused = Connection::open(&path).await;
        assert!(matches!(refused, Err(Error::Refused(line)) if line == "REJECTED EXTERNAL"));
        refusing.join().unwrap();
    }
}
