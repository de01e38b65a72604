use super::*;
use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

const MEGABYTES: usize = 5 << 20;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (near, accepted) = tokio::join!(connect, listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

/// Reads to the end, in small pieces with pauses for others.
async fn slowly(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        tokio::task::yield_now().await;
        match from.read(&mut piece).await.unwrap() {
            0 => return all,
            count => all.extend(&piece[..count]),
        }
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn ends() -> (DuplexStream, DuplexStream) {
    duplex(4096)
}

#[tokio::test]
async fn a_server_that_takes_no_more_must_not_cost_what_it_said() {
    let ((mut client, ours), (behind, mut server)) = (ends(), sockets().await);
    let joined = tokio::spawn(join(ours, behind));
    let sent = bytes(1 << 20);
    server.write_all(&sent[..1000]).await.unwrap();
    let rest = sent.clone();
    // closes with input of the client unread, as a process that ends does
    let serving = tokio::spawn(async move {
        server.write_all(&rest[1000..]).await.unwrap();
        server.shutdown().await.unwrap();
        server
    });
    let mut got = vec![0; 1000];
    client.read_exact(&mut got).await.unwrap();
    let (mut from, mut to) = split(client);
    let saying = tokio::spawn(async move {
        for _ in 0..200 {
            to.write_all(&[1; 1000]).await.unwrap();
        }
        to.shutdown().await.unwrap();
    });
    got.extend(slowly(&mut from).await);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    saying.await.unwrap();
    drop(serving.await.unwrap());
    joined.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_write_must_not_end_the_other_direction() {
    let ((mut client, ours), (behind, server)) = (ends(), duplex(MEGABYTES));
    let sent = bytes(MEGABYTES);
    let (from_client, mut to_client) = split(server);
    to_client.write_all(&sent).await.unwrap();
    // gone, with everything it said still in the buffer: each write to it is refused
    drop((from_client, to_client));
    let joined = tokio::spawn(join(ours, behind));
    client.write_all(b"is anyone there?").await.unwrap();
    let got = slowly(&mut client).await;
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    client.write_all(b"still here").await.unwrap();
    drop(client);
    joined.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_clients_bytes_must_not_end_the_answer() {
    let ((mut client, ours), (behind, mut server)) = (ends(), ends());
    let joined = tokio::spawn(join(ours, behind));
    let sent = bytes(MEGABYTES);
    let serving = tokio::spawn(async move {
        let all = slowly(&mut server).await;
        server.write_all(&all).await.unwrap();
    });
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(slowly(&mut client).await == sent);
    serving.await.unwrap();
    drop(client);
    joined.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broken_server_must_not_look_like_one_that_ended() {
    let ((mut client, ours), (behind, server)) = (ends(), sockets().await);
    let joined = tokio::spawn(join(ours, behind));
    client.write_all(b"unread").await.unwrap();
    server.peek(&mut [0]).await.unwrap();
    // unread bytes: the kernel resets the connection
    drop(server);
    let joined = tokio::time::timeout(Duration::from_secs(10), joined).await;
    assert!(matches!(joined, Ok(Ok(Err(_)))), "{joined:?}");
}
