//! A doorbell for every room: `doorbell` waits for the ring, `doorbell ring [WHO]` rings.
//!
//! ```sh
//! cargo run --example doorbell                    # on every host with a bell
//! cargo run --example doorbell ring "the post"    # at the door
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use atonce::client::{Client, Event, SendOptions};
use tokio::time::timeout;

/// Who has a bell listens to this, and who rang to the other.
const BELL: &str = "doorbell";
const ANSWER: &str = "doorbell.answer";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "doorbell: {error}");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect().await?;
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => wait(&mut client).await,
        Some("ring") => ring(&mut client, &arguments.next().unwrap_or_else(|| "somebody".to_owned())).await,
        Some(_) => Err("usage: doorbell [ring [WHO]]".into()),
    }
}

/// Tells of every ring, and answers it.
async fn wait(client: &mut Client) -> Result<(), Box<dyn Error>> {
    client.listen(BELL).await?;
    loop {
        let Event::Message(ring) = client.next_event().await? else { continue };
        // {:?} because what came from the network may hold anything, even escapes for the terminal.
        writeln!(
            io::stdout(),
            "ding dong: {:?} at {}",
            String::from_utf8_lossy(&ring.payload),
            ring.from.name
        )?;
        let door = ring.from.id.to_string();
        client.send(&door, ANSWER, b"coming", SendOptions::default()).await?;
    }
}

/// Rings all bells, and waits a while for somebody who comes.
async fn ring(client: &mut Client, who: &str) -> Result<(), Box<dyn Error>> {
    client.listen(ANSWER).await?;
    let rung = client.publish(BELL, who.as_bytes(), SendOptions::default()).await?;
    writeln!(io::stdout(), "rang at {} other {}", rung.sent, if rung.sent == 1 { "host" } else { "hosts" })?;
    while let Ok(event) = timeout(Duration::from_secs(2), client.next_event()).await {
        let Event::Message(answer) = event? else { continue };
        writeln!(io::stdout(), "{}: {:?}", answer.from.name, String::from_utf8_lossy(&answer.payload))?;
    }
    Ok(())
}
