//! Every byte of a remote command arrives, or its end is a failure: over both protocols, both ways, with slow readers.

use super::*;

const PROTOCOL: &str = "v5.channel.k8s.io";

async fn websocket(port: &Port, query: &str) -> tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>> {
    let ours = port.authority.issue("apiserver", "system:masters");
    let mut request = format!("wss://node/exec/n/p/c?{query}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
    let stream = port.connect(Some(&ours)).await;
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

/// The channels' bytes, read with a pause now and then; and whether the end was a normal closure.
async fn slowly(
    socket: &mut (impl futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> (Vec<Vec<u8>>, bool) {
    let (mut channels, mut closed) = (vec![Vec::<u8>::new(); 5], false);
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => {
                let channel = &mut channels[usize::from(bytes[0])];
                channel.extend(&bytes[1..]);
                if channel.len() % (1 << 20) < 16 * 1024 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Message::Close(frame) => closed = frame.is_some_and(|f| u16::from(f.code) == 1000),
            other => panic!("{other:?}"),
        }
    }
    (channels, closed)
}

#[tokio::test]
async fn a_download_must_not_be_cut_short_by_the_end_of_the_command() {
    let port = port().await;
    for size in [1, 65_536, 100_000, 3_000_000, 12_000_000] {
        let query = format!("command=whole&command={size}&output=1");
        let (channels, closed) = slowly(&mut websocket(&port, &query).await).await;
        assert!(channels[1] == streaming::said(0..size), "{} of {size} bytes", channels[1].len());
        assert_eq!(String::from_utf8_lossy(&channels[3]), streaming::SUCCESS);
        assert!(closed);
    }
    port.end().await;
}

#[tokio::test]
async fn a_broken_command_must_not_look_like_one_that_ended() {
    let port = port().await;
    let (channels, closed) =
        slowly(&mut websocket(&port, "command=broken&command=2000000&output=1").await).await;
    let verdict: Value = serde_json::from_slice(&channels[3]).unwrap();
    assert_eq!((&verdict["status"], &verdict["reason"]), (&json!("Failure"), &json!("InternalError")));
    assert!(closed);
    port.end().await;
}

#[tokio::test]
async fn an_upload_must_not_be_cut_short() {
    let port = port().await;
    let socket = websocket(&port, &format!("{COMMAND}&input=1&output=1")).await;
    let (mut to, mut from) = socket.split();
    let input = Bytes::from(streaming::said(0..6_000_000));
    let send = async {
        for piece in input.chunks(32 * 1024) {
            to.send(Message::Binary([&[0], piece].concat().into())).await.unwrap();
        }
        to.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    };
    let ((), (channels, closed)) = tokio::join!(send, slowly(&mut from));
    assert!(channels[1] == [b"size=;", &input[..]].concat(), "{} bytes", channels[1].len());
    assert_eq!(channels[3], streaming::VERDICT.as_bytes());
    assert!(closed);
    port.end().await;
}

#[tokio::test]
async fn a_download_by_spdy_must_not_be_cut_short_by_the_end_of_the_command() {
    let port = port().await;
    for size in [100_000, 12_000_000] {
        let (mut session, driver) =
            spdy::client(spdy(&port, &format!("command=whole&command={size}&output=1")).await).unwrap();
        let driven = tokio::spawn(driver.run());
        let mut open =
            async |kind: &str| session.open(vec![("streamtype".to_owned(), kind.to_owned())]).await.unwrap();
        let (mut error, mut stdout) = (open("error").await, open("stdout").await);
        let mut got = Vec::new();
        while let Some(piece) = stdout.1.receive().await {
            got.extend(piece);
            if got.len() % (1 << 20) < 16 * 1024 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        assert!(got == streaming::said(0..size), "{} of {size} bytes", got.len());
        let verdict = error.1.receive().await.unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&verdict), streaming::SUCCESS);
        drop((session, error.0, stdout.0));
        driven.await.unwrap().unwrap();
    }
    port.end().await;
}
