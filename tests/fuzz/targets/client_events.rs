//! Any bytes as what a daemon says, to the real client library over a real socket.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use arbitrary::Unstructured;
use atonce::client::{Client, Error, PingOptions, SendOptions};
use atonce::limits;

use super::rig::number;

const HELLO: &[u8] = concat!(
    r#"{"ev":"ok","id":1,"hello":{"v":1,"version":"1","node":{"name":"pi","id":"#,
    r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"payload_bytes":1152,"line_bytes":98304}}"#,
    "\n"
)
.as_bytes();
/// Never waited for: all that the daemon will ever say is there from the start.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mode: u8 = number(&mut input);
    let said = input.take_rest();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // What is said waits in the socket before the client asks: a connection is made before it is accepted.
        let connecting = tokio::spawn(async move { Client::connect_to(&path, PATIENCE).await });
        tokio::task::yield_now().await;
        let mut stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        let hello = if mode & 8 == 0 { HELLO } else { b"" };
        // More than the socket holds is cut: so may a daemon that dies.
        let _ = stream.write_all(&[hello, said].concat());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let client = connecting.await.unwrap();
        if mode & 8 == 0 {
            use_client(client.unwrap(), mode, said).await;
        } else if let Err(error) = client {
            expected(&error);
        }
    });
}

async fn use_client(mut client: Client, mode: u8, said: &[u8]) {
    let asked = match mode % 8 {
        0 => client.listen("t").await,
        1 => client.send("pi", "t", b"x", SendOptions::default()).await.map(drop),
        2 => client.publish("t", b"x", SendOptions::default()).await.map(drop),
        3 => client.ping("pi", PingOptions::default(), |_| {}).await.map(drop),
        4 => client.peers().await.map(drop),
        5 => client.status().await.map(drop),
        6 => client.network().await.map(drop),
        _ => Ok(()),
    };
    if let Err(error) = asked {
        expected(&error);
    }
    let mut events = 0;
    loop {
        match client.next_event().await {
            Ok(event) => {
                events += 1;
                assert!(serde_json::to_vec(&event).is_ok());
            }
            Err(Error::Refused { .. }) => events += 1,
            Err(error) => return expected(&error),
        }
        let lines = said.iter().filter(|byte| **byte == b'\n').count();
        assert!(events <= lines && said.len() <= limits::CLIENT_QUEUE_BYTES);
    }
}

fn expected(error: &Error) {
    assert!(
        matches!(error, Error::Closed | Error::Protocol(_) | Error::Refused { .. } | Error::Behind),
        "{error:?}"
    );
    assert!(!error.to_string().is_empty());
}
