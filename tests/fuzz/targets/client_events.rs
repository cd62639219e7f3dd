//! Any bytes as what a daemon says, to the real client library over a real socket.

use std::time::Duration;

use arbitrary::Unstructured;
use atonce::client::{Client, Error, Event, PingOptions, RequestOptions, SendOptions};
use atonce::limits;
use tokio::net::{UnixListener, UnixStream};

use super::rig::number;

const HELLO: &[u8] = concat!(
    r#"{"ev":"ok","id":1,"hello":{"v":1,"version":"1","node":{"name":"pi","id":"#,
    r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"payload_bytes":1152,"line_bytes":98304}}"#,
    "\n"
)
.as_bytes();
/// Never waited for: the daemon says all that it will ever say at once, and is gone.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mode: u8 = number(&mut input);
    let said = input.take_rest();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(&path).unwrap();
        let connecting = tokio::spawn({
            let path = path.clone();
            async move { Client::connect_to(&path, PATIENCE).await }
        });
        let stream = listener.accept().await.unwrap().0;
        // There is no second daemon.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        asked(&stream).await;
        let (has_hello, has_request) = (mode & 8 == 0, mode % 8 != 7);
        if !has_hello || !has_request {
            let hello = if has_hello { HELLO } else { b"" };
            say(stream, &[hello, said].concat());
            let client = connecting.await.unwrap();
            match client {
                Ok(client) if has_hello => use_client(client, mode, said).await,
                Ok(_) => {}
                Err(error) => expected(&error),
            }
            return;
        }
        stream.try_write(HELLO).unwrap();
        let client = connecting.await.unwrap().unwrap();
        let used = use_client(client, mode, said);
        let saying = async {
            asked(&stream).await;
            say(stream, said);
        };
        tokio::join!(used, saying);
    });
}

/// Waits for what the client asks.
async fn asked(stream: &UnixStream) {
    stream.readable().await.unwrap();
    let _ = stream.try_read(&mut [0; 4096]);
}

/// Says it and goes. More than the socket holds is cut: so may a daemon that dies.
fn say(stream: UnixStream, bytes: &[u8]) {
    let _ = stream.try_write(bytes);
}

async fn use_client(mut client: Client, mode: u8, said: &[u8]) {
    let asked = match mode % 8 {
        0 => client.listen("t").await,
        1 => client.send("pi", "t", b"x", SendOptions::default()).await.map(drop),
        2 => client.publish("t", b"x", SendOptions::default()).await.map(drop),
        3 => client.ping("pi", PingOptions::default(), |_| {}).await.map(drop),
        4 => client.peers().await.map(drop),
        5 => client.status().await.map(drop),
        6 if said.len().is_multiple_of(2) => client.network().await.map(drop),
        6 if said.len().is_multiple_of(3) => {
            client.request("pi", "t", b"x", RequestOptions::default()).await.map(drop)
        }
        6 => started(&mut client).await,
        _ => Ok(()),
    };
    if let Err(error) = asked {
        expected(&error);
    }
    let mut events = 0;
    loop {
        match client.next_event().await {
            // All that the daemon had to say.
            Ok(Event::Disconnected) => return,
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

async fn started(client: &mut Client) -> Result<(), Error> {
    for _ in 0..3 {
        client.start_send("pi", "t", b"x", SendOptions::default()).await?;
    }
    let mut ended = 0;
    while let Some(outcome) = client.next_outcome().await? {
        ended += 1;
        if let Err(error) = outcome.result {
            expected(&error);
        }
    }
    assert!(ended <= 3);
    Ok(())
}

fn expected(error: &Error) {
    assert!(
        matches!(error, Error::Closed | Error::Protocol(_) | Error::Refused { .. } | Error::Behind),
        "{error:?}"
    );
    assert!(!error.to_string().is_empty());
}
