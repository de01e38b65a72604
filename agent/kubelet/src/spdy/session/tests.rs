use super::*;
use std::time::Duration;
use tokio::io::DuplexStream;

/// The other end, frame by frame.
struct Peer {
    io: DuplexStream,
    inflater: Inflater,
    deflater: Deflater,
}

#[derive(Debug, PartialEq)]
enum Got {
    Data(u32, bool, Vec<u8>),
    Control(Control),
}

impl Peer {
    async fn next(&mut self) -> Got {
        let mut bytes = [0; HEAD];
        self.io.read_exact(&mut bytes).await.unwrap();
        let head = frame::head(&bytes).unwrap();
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.unwrap();
        match head {
            Head::Data { stream, fin, .. } => Got::Data(stream, fin, payload),
            Head::Control { kind, flags, .. } => {
                Got::Control(Control::read(kind, flags, &payload, &mut self.inflater).unwrap())
            }
        }
    }

    async fn say(&mut self, control: Control) {
        let bytes = control.write(&mut self.deflater).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        self.io.write_all(&frame::data(stream, fin, bytes.len())).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }
}

fn pair() -> (Session, Driver<DuplexStream>, Peer) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (session, driver) = client(ours).unwrap();
    (session, driver, Peer { io: theirs, inflater: Inflater::default(), deflater: Deflater::new().unwrap() })
}

fn kind(name: &str) -> Headers {
    vec![("streamtype".to_owned(), name.to_owned())]
}

#[tokio::test]
async fn streams_are_opened_used_and_closed_by_halves() {
    let (mut session, driver, mut peer) = pair();
    let carried = tokio::spawn(driver.run());
    let (sending, mut receiving) = session.open(kind("stdin")).await.unwrap();
    assert_eq!(
        peer.next().await,
        Got::Control(Control::SynStream { stream: 1, fin: false, headers: kind("stdin") })
    );
    peer.say(Control::SynReply { stream: 1, fin: false, headers: vec![] }).await;
    sending.send(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(peer.next().await, Got::Data(1, false, b"hello".to_vec()));
    sending.finish().await.unwrap();
    assert_eq!(peer.next().await, Got::Data(1, true, vec![]));
    peer.data(1, false, b"back").await;
    assert_eq!(receiving.receive().await.unwrap(), "back");
    peer.data(1, true, b"").await;
    assert_eq!(receiving.receive().await, None);
    peer.say(Control::Ping(2)).await;
    assert_eq!(peer.next().await, Got::Control(Control::Ping(2)));
    peer.say(Control::SynStream { stream: 2, fin: false, headers: vec![] }).await;
    assert_eq!(peer.next().await, Got::Control(Control::RstStream { stream: 2, status: REFUSED }));
    let (_sending, mut refused) = session.open(kind("x")).await.unwrap();
    assert!(matches!(peer.next().await, Got::Control(Control::SynStream { stream: 3, .. })));
    peer.say(Control::RstStream { stream: 3, status: 1 }).await;
    assert_eq!(refused.receive().await, None);
    drop(peer);
    carried.await.unwrap().unwrap();
    assert!(matches!(sending.send(Bytes::from_static(b"late")).await, Err(Error::Ended)));
}

#[tokio::test]
async fn windows_are_granted_for_what_was_received() {
    let (mut session, driver, mut peer) = pair();
    let carried = tokio::spawn(driver.run());
    let (_sending, mut receiving) = session.open(kind("stdout")).await.unwrap();
    peer.next().await;
    let reader = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(piece) = receiving.receive().await {
            sum += piece.len();
        }
        sum
    });
    peer.data(1, false, &[7; 40_000]).await;
    let mut grants = [peer.next().await, peer.next().await];
    grants.sort_by_key(|g| format!("{g:?}"));
    for (grant, id) in grants.iter().zip([0, 1]) {
        assert!(
            matches!(grant, Got::Control(Control::WindowUpdate { stream, delta }) if *stream == id && *delta >= GRANT),
            "{grant:?}"
        );
    }
    peer.data(1, true, &[7; 100]).await;
    assert_eq!(reader.await.unwrap(), 40_100);
    drop(session);
    drop(peer);
    carried.await.unwrap().unwrap();
}

#[tokio::test]
async fn reading_must_not_wait_for_a_peer_that_does_not_read() {
    let (mut session, driver, mut peer) = pair();
    let carried = tokio::spawn(driver.run());
    let (sending, mut receiving) = session.open(kind("both")).await.unwrap();
    peer.next().await;
    // Far more than the pipe and the queue hold: the writer is stuck.
    let stuck = tokio::spawn(async move { sending.send(vec![0; 1 << 20].into()).await });
    for _ in 0..50 {
        peer.data(1, false, &[1; 8000]).await;
        let mut got = 0;
        while got < 8000 {
            let piece = tokio::time::timeout(Duration::from_secs(10), receiving.receive()).await.unwrap();
            got += piece.unwrap().len();
        }
    }
    drop(peer);
    assert!(carried.await.unwrap().is_err() || stuck.is_finished());
    assert!(stuck.await.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_that_keeps_no_windows_must_not_be_sent_any_while_it_speaks() {
    let (mut session, driver, mut peer) = pair();
    let carried = tokio::spawn(driver.run());
    let (_sending, mut receiving) = session.open(kind("stdout")).await.unwrap();
    peer.next().await;
    let reader = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(piece) = receiving.receive().await {
            sum += piece.len();
        }
        sum
    });
    for _ in 0..200 {
        peer.data(1, false, &[7; 20_000]).await;
    }
    peer.data(1, true, &[]).await;
    assert_eq!(reader.await.unwrap(), 4_000_000);
    // the answer to a ping is the first thing said
    peer.say(Control::Ping(2)).await;
    assert_eq!(peer.next().await, Got::Control(Control::Ping(2)));
    drop(peer);
    carried.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_write_must_not_cost_what_the_peer_said() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (mut session, driver) = client(ours).unwrap();
    let (sending, mut receiving) = session.open(kind("both")).await.unwrap();
    let mut peer = Peer { io: theirs, inflater: Inflater::default(), deflater: Deflater::new().unwrap() };
    for _ in 0..50 {
        peer.data(1, false, &[1; 20_000]).await;
    }
    // Gone: everything written from now on is refused.
    drop(peer);
    let carried = tokio::spawn(driver.run());
    let reading = async {
        let mut got = 0;
        while let Some(piece) = receiving.receive().await {
            got += piece.len();
            tokio::task::yield_now().await;
        }
        got
    };
    let saying = async { while sending.send(Bytes::from_static(b"more")).await.is_ok() {} };
    let (got, ()) = tokio::join!(reading, saying);
    assert_eq!(got, 1_000_000);
    carried.await.unwrap().unwrap();
}
