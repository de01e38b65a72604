//! A bus for tests: it answers calls as it is told, and remembers them. One connection has all names, and sends what nobody else is said to.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::message::{Kind, Message};
use super::wire::Value;

/// What the bus does about a call.
pub(crate) enum Reply {
    /// It gives these.
    Return(Vec<Value>),
    /// It fails with this name and text.
    Error(&'static str, &'static str),
    /// It tells of something: of which object, by which interface and name.
    Signal(&'static str, &'static str, &'static str, Vec<Value>),
    /// The same, as somebody else.
    SignalAs(&'static str, &'static str, &'static str, &'static str, Vec<Value>),
    /// It gives a file, whose other end [`Bus::is_held`] looks at.
    File,
}

/// What the connection that has the names is called.
const OWNER: &str = ":1.1";

type Answers = dyn Fn(&Message) -> Vec<Reply> + Send + Sync;

/// A bus that listens while this is kept.
pub(crate) struct Bus {
    path: PathBuf,
    calls: Arc<Mutex<Vec<Message>>>,
    peers: Arc<Mutex<Vec<UnixStream>>>,
    held: Arc<Mutex<Vec<UnixStream>>>,
    owner: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Bus {
    /// Listens; each connection has a thread that ends with it.
    pub(crate) fn start(answers: impl Fn(&Message) -> Vec<Reply> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let answers: Arc<Answers> = Arc::new(answers);
        let (calls, peers, held) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let owner = Arc::new(Mutex::new(OWNER.to_owned()));
        let (remembered, known, kept) = (Arc::clone(&calls), Arc::clone(&peers), Arc::clone(&held));
        let names = Arc::clone(&owner);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                known.lock().push(stream.try_clone().unwrap());
                let (answers, remembered, kept, names) =
                    (Arc::clone(&answers), Arc::clone(&remembered), Arc::clone(&kept), Arc::clone(&names));
                std::thread::spawn(move || serve(stream, &*answers, &remembered, &kept, &names));
            }
        });
        Self { path, calls, peers, held, owner, _dir: dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The methods that were called, in their order.
    pub(crate) fn members(&self) -> Vec<String> {
        self.calls.lock().iter().map(|call| call.member.clone()).collect()
    }

    /// The calls of a method.
    pub(crate) fn calls(&self, member: &str) -> Vec<Message> {
        self.calls.lock().iter().filter(|call| call.member == member).cloned().collect()
    }

    /// Tells everybody who is connected.
    pub(crate) fn tell(&self, path: &str, interface: &str, member: &str, body: Vec<Value>) {
        self.tell_as(OWNER, path, interface, member, body);
    }

    /// The same, as somebody else.
    pub(crate) fn tell_as(&self, sender: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) {
        let bytes = signal(sender, path, interface, member, body).encode();
        for mut peer in self.peers.lock().iter() {
            // One that left is told nothing.
            peer.write_all(&bytes).ok();
        }
    }

    /// Another connection has the names from now on; nobody, where its name is empty.
    pub(crate) fn give_names_to(&self, connection: &str) {
        connection.clone_into(&mut self.owner.lock());
    }

    /// A file that was given away is still open.
    pub(crate) fn is_held(&self) -> bool {
        let mut byte = [0];
        self.held.lock().iter_mut().any(|other| {
            other.set_nonblocking(true).unwrap();
            // The end of it is read once nobody has the other side.
            !matches!(other.read(&mut byte), Ok(0))
        })
    }
}

fn signal(sender: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Message {
    let call = Message::call("", path, interface, member, body);
    Message { kind: Kind::Signal, serial: 1, sender: sender.to_owned(), ..call }
}

fn serve(
    mut stream: UnixStream,
    answers: &Answers,
    calls: &Mutex<Vec<Message>>,
    held: &Mutex<Vec<UnixStream>>,
    owner: &Mutex<String>,
) {
    let mut input = Vec::new();
    let read = |stream: &mut UnixStream, input: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap_or(0);
        input.extend_from_slice(&buffer[..count]);
        count > 0
    };
    for answer in ["OK 0123456789abcdef\r\n", "AGREE_UNIX_FD\r\n", ""] {
        let end = loop {
            match input.windows(2).position(|two| two == b"\r\n") {
                Some(end) => break end + 2,
                None if read(&mut stream, &mut input) => {}
                None => return,
            }
        };
        input.drain(..end);
        stream.write_all(answer.as_bytes()).unwrap();
    }
    loop {
        let Some(length) = Message::length(&input).unwrap().filter(|length| *length <= input.len()) else {
            if read(&mut stream, &mut input) {
                continue;
            }
            return;
        };
        let bytes: Vec<u8> = input.drain(..length).collect();
        let call = Message::decode(&bytes).unwrap();
        calls.lock().push(call.clone());
        if call.member == "GetNameOwner" {
            let owner = owner.lock().clone();
            let reply = match owner.as_str() {
                "" => Reply::Error("org.freedesktop.DBus.Error.NameHasNoOwner", "nobody has it"),
                owner => Reply::Return(vec![Value::text(owner)]),
            };
            send(&mut stream, &call, reply, held);
            continue;
        }
        for reply in answers(&call) {
            send(&mut stream, &call, reply, held);
        }
    }
}

fn send(stream: &mut UnixStream, call: &Message, reply: Reply, held: &Mutex<Vec<UnixStream>>) {
    let answer = Message { kind: Kind::Return, serial: 1, reply: call.serial, ..Message::default() };
    let message = match reply {
        Reply::Return(body) => Message { body, ..answer },
        Reply::Error(name, text) => {
            Message { kind: Kind::Error, error: name.to_owned(), body: vec![Value::text(text)], ..answer }
        }
        Reply::Signal(path, interface, member, body) => signal(OWNER, path, interface, member, body),
        Reply::SignalAs(sender, path, interface, member, body) => {
            signal(sender, path, interface, member, body)
        }
        Reply::File => {
            let (own, theirs) = UnixStream::pair().unwrap();
            held.lock().push(own);
            let bytes = Message { files: 1, body: vec![Value::File(0)], ..answer }.encode();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let files = [theirs.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
            let sent = sendmsg(&*stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty());
            assert_eq!(sent.unwrap(), bytes.len());
            return;
        }
    };
    // One that left needs no answer.
    stream.write_all(&message.encode()).ok();
}
